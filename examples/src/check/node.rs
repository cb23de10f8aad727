//! The built server as a process.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::connection::invalid;

/// The secret that [`token`] signs with.
pub const SECRET: &str = "a secret of at least thirty-two bytes, for tests";
/// The key that [`Node`]s are started with.
pub const PUBLISH_KEY: &str = "publish-key";

/// A token of `user`, good for a day, with more claims.
pub fn token(user: &str, more: &Value) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let mut claims = json!({"sub": user, "exp": now + 24 * 3600});
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    tidings_auth_jwt::sign_hs256(SECRET.as_bytes(), &claims.to_string())
}

/// A server process, killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Kept open: a server that cannot print ends.
    _lines: Lines<BufReader<ChildStdout>>,
    /// Where clients and publishers connect.
    pub address: SocketAddr,
    /// Where administrators connect.
    pub admin: SocketAddr,
}

impl Node {
    /// Starts `binary` on free ports of 127.0.0.1, with [`SECRET`], [`PUBLISH_KEY`], every room open and more flags,
    /// and waits until it listens. What it prints as an error goes to ours.
    ///
    /// # Errors
    /// When it cannot be started, or says nothing within a minute.
    pub async fn start(binary: &Path, flags: &[String]) -> io::Result<Self> {
        Self::start_at(binary, SocketAddr::from(([127, 0, 0, 1], 0)), flags).await
    }

    /// The same at an address, where another may have been.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_at(binary: &Path, listen: SocketAddr, flags: &[String]) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .args(["--listen", &listen.to_string()])
            .args(["--admin-listen", "127.0.0.1:0", "--open-rooms"])
            .args(["--jwt-hs256-secret", SECRET, "--publish-key", PUBLISH_KEY])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| invalid("no pipe"))?;
        let mut lines = BufReader::new(stdout).lines();
        let (address, admin) = timeout(START_PATIENCE, async {
            Ok::<_, io::Error>((
                printed(&mut lines, "page:").await?,
                printed(&mut lines, "admin:").await?,
            ))
        })
        .await??;
        Ok(Self { child, _lines: lines, address, admin })
    }

    /// Its process id; `None` after it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The processor time that all its threads have taken.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        let pid = self.pid().ok_or_else(|| invalid("the server has ended"))?;
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Sends it a signal, by name: `STOP`, `CONT`, `TERM`.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.pid().ok_or_else(|| invalid("the server has ended"))?;
        // The shell's own `kill`: not every system has the program.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
        if status.await?.success() { Ok(()) } else { Err(invalid("the server has ended")) }
    }

    /// Ends it at once, with SIGKILL.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// How it ended by itself, if it did.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// The address in the next line, which must begin with `name`.
async fn printed(lines: &mut Lines<BufReader<ChildStdout>>, name: &str) -> io::Result<SocketAddr> {
    let line = lines.next_line().await?.ok_or_else(|| invalid("the server ended at its start"))?;
    let url = line.strip_prefix(name).and_then(|url| url.trim().strip_prefix("http://"));
    let host = url.and_then(|url| url.split('/').next());
    host.and_then(|host| host.parse().ok()).ok_or_else(|| invalid("the server told no address"))
}

/// Where each node is reached now: a node that is started again has another port.
#[derive(Debug, Clone)]
pub struct Addresses(Arc<Mutex<Vec<SocketAddr>>>);

impl Addresses {
    /// These, numbered from 0.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(addresses.into_iter().collect())))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The address of a node; numbers go round.
    pub fn get(&self, number: usize) -> SocketAddr {
        let addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        addresses[number % addresses.len()]
    }

    /// A node is elsewhere now.
    pub fn set(&self, number: usize, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[number] = address;
    }
}

const START_PATIENCE: Duration = Duration::from_secs(60);
