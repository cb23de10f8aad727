//! One connection to one server: opened within a deadline, logged in, proven to be a primary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, Value, cmd};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::RedisConfig;
use crate::fault::{Failure, Fault};
use crate::run::Info;
use crate::sabotage::Protection;
use crate::spawn::Task;
use crate::tls::Tls;
use crate::url::{Address, Login};

/// How connections are opened, wherever to.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) config: RedisConfig,
    pub(crate) login: Login,
    pub(crate) tls: Option<Tls>,
}

/// A connection and the task that drives it; the task is over when the connection is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) redis: MultiplexedConnection,
    pub(crate) driver: Task,
}

/// A connection's bytes: TCP, TLS or a Unix socket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What is called with everything that Redis sends unasked; it must not wait.
pub(crate) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

impl Opener {
    /// Connects and logs in.
    pub(crate) async fn open(
        &self,
        address: &Address,
        on_push: Option<OnPush>,
    ) -> Result<Opened, Failure> {
        self.open_as(address, &self.login, on_push).await
    }

    /// The same for a server that must be a primary.
    pub(crate) async fn open_primary(
        &self,
        address: &Address,
        on_push: Option<OnPush>,
    ) -> Result<Opened, Failure> {
        let mut opened = self.open(address, on_push).await?;
        match opened.redis.send_packed_command(&cmd("ROLE")).await.map_err(Failure::from) {
            Ok(role) if is_primary(&role) || self.config.lacks(Protection::Role) => Ok(opened),
            Ok(_) => Err(Failure::new(
                Fault::ReadOnly,
                format!("{address} is a replica: give the address of its primary"),
            )),
            // Who may not ask finds out by the first write, which a replica refuses.
            Err(failure) if failure.fault == Fault::NoPermission => Ok(opened),
            Err(failure) => Err(failure),
        }
    }

    /// Refuses a server that may forget what it must keep.
    pub(crate) fn refuse_eviction(&self, address: &Address, info: &Info) -> Result<(), Failure> {
        match (info.field("maxmemory"), info.field("maxmemory_policy")) {
            _ if self.config.allow_eviction => Ok(()),
            ("" | "0", _) | (_, "" | "noeviction") => Ok(()),
            (_, policy) => Err(Failure::new(
                Fault::Other,
                format!(
                    "{address} may evict what history needs (maxmemory-policy {policy}): set it to \
                     noeviction, or allow_eviction where nothing is kept"
                ),
            )),
        }
    }

    /// Connects and logs in as someone else.
    pub(crate) async fn open_as(
        &self,
        address: &Address,
        login: &Login,
        on_push: Option<OnPush>,
    ) -> Result<Opened, Failure> {
        self.in_time(address, async {
            let stream = self.stream(address).await?;
            self.speak(address, login, stream, on_push).await
        })
        .await
    }

    /// What opens a connection, or the failure of a server that does not answer.
    pub(crate) async fn in_time<T>(
        &self,
        address: &Address,
        opening: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout(self.config.connect_timeout, opening).await.map_err(|_| {
            Failure::away(format!(
                "{address} does not answer (it hangs, or the network drops what is sent)"
            ))
        })?
    }

    /// Connects, and says nothing yet.
    pub(crate) async fn stream(&self, address: &Address) -> Result<Box<dyn Stream>, Failure> {
        let failed = |error: io::Error| Failure::away(format!("{address}: {error}"));
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                tune(&stream).map_err(failed)?;
                match &self.tls {
                    Some(tls) => Ok(Box::new(tls.connect(host, stream).await.map_err(failed)?)),
                    None => Ok(Box::new(stream)),
                }
            }
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        }
    }

    async fn speak(
        &self,
        address: &Address,
        login: &Login,
        stream: Box<dyn Stream>,
        on_push: Option<OnPush>,
    ) -> Result<Opened, Failure> {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(login.database.into());
        if let Some(username) = &login.username {
            info = info.set_username(username);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password);
        }
        let mut config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.config.deadline))
            .set_pipeline_buffer_size(PIPELINE);
        if let Some(on_push) = on_push {
            config = config.set_push_sender(move |push| {
                on_push(push);
                Ok::<(), ()>(())
            });
        }
        let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (redis, driver) = opened.map_err(|error| named(address, &error.into()))?;
        Ok(Opened { redis, driver: Task::spawn(driver) })
    }
}

fn named(address: &Address, failure: &Failure) -> Failure {
    Failure::new(failure.fault, format!("{address}: {}", failure.text()))
}

/// Sends at once, and notices a peer that is gone although nothing is sent.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    match parts.first() {
        Some(Value::BulkString(name)) => name == b"master",
        Some(Value::SimpleString(name)) => name == "master",
        _ => false,
    }
}

/// Commands that may wait for the socket; beyond it their callers wait.
const PIPELINE: usize = 1024;
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long what was sent may stay unacknowledged before the kernel gives the connection up.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
