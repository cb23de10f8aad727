//! A TCP proxy that does to connections what networks do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::port::Port;

/// What happens to the bytes of every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traffic {
    /// They pass.
    #[default]
    Pass,
    /// They pass so much later.
    Delay(Duration),
    /// They vanish, both ways, and nobody is told. The connections of that time stay dead for good.
    Drop,
    /// What the server says vanishes; what it is told arrives.
    DropAnswers,
    /// What the server is told vanishes; what it says arrives.
    DropRequests,
}

/// Listens on a port of its own and passes connections on. It ends when dropped, and with the test's runtime.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    server: watch::Sender<SocketAddr>,
    traffic: watch::Sender<Traffic>,
    pairs: Arc<Mutex<Vec<Pair>>>,
    listening: Option<JoinHandle<()>>,
}

/// A connection of a client, and the one to the server.
#[derive(Debug)]
struct Pair {
    ends: watch::Sender<Option<End>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fin,
    Rst,
}

impl Proxy {
    /// A proxy in front of a server.
    pub async fn to(server: SocketAddr) -> Self {
        let (traffic, server) = (watch::Sender::new(Traffic::Pass), watch::Sender::new(server));
        let mut proxy =
            Self { port: Port::reserve(), server, traffic, pairs: Arc::default(), listening: None };
        proxy.accept().await;
        proxy
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// From now on this happens to the bytes of all connections, old and new.
    pub fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }

    /// Passes new connections on to another server; those there are stay where they are.
    pub fn point_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// Ends every connection by RST, on both sides.
    pub fn reset(&self) {
        self.end(End::Rst);
    }

    /// Ends every connection by FIN, on both sides.
    pub fn finish(&self) {
        self.end(End::Fin);
    }

    /// Refuses new connections; those there are go on.
    pub async fn refuse(&mut self) {
        if let Some(task) = self.listening.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Takes new connections again after [`refuse`](Self::refuse).
    pub async fn accept(&mut self) {
        self.refuse().await;
        let listener = TcpListener::bind(self.port.address()).await.expect("the port is ours");
        let (server, traffic, pairs) =
            (self.server.subscribe(), self.traffic.clone(), self.pairs.clone());
        self.listening = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A server that is away looks to the client like one that hangs up at once.
                let server = *server.borrow();
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let mut pairs = pairs.lock().unwrap_or_else(PoisonError::into_inner);
                pairs.retain(|pair| pair.tasks.iter().any(|task| !task.is_finished()));
                pairs.push(Pair::start(client, server, &traffic));
            }
        }));
    }

    /// How many connections it holds.
    pub fn connections(&self) -> usize {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.iter().filter(|pair| pair.tasks.iter().any(|task| !task.is_finished())).count()
    }

    fn end(&self, end: End) {
        for pair in self.pairs.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            pair.ends.send_replace(Some(end));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = self.listening.take() {
            task.abort();
        }
        for pair in self.pairs.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            pair.tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

impl Pair {
    fn start(client: TcpStream, server: TcpStream, traffic: &watch::Sender<Traffic>) -> Self {
        let ends = watch::Sender::new(None);
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a socket takes its options");
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let task = |from, to, way| {
            let (traffic, ends) = (traffic.subscribe(), ends.subscribe());
            tokio::spawn(pass(from, to, way, traffic, ends))
        };
        let tasks =
            [task(from_client, to_server, Way::Request), task(from_server, to_client, Way::Answer)];
        Self { ends, tasks }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

impl Traffic {
    fn drops(self, way: Way) -> bool {
        match self {
            Self::Pass | Self::Delay(_) => false,
            Self::Drop => true,
            Self::DropAnswers => way == Way::Answer,
            Self::DropRequests => way == Way::Request,
        }
    }
}

/// Passes the bytes of one way until its end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut traffic: watch::Receiver<Traffic>,
    mut ends: watch::Receiver<Option<End>>,
) {
    let (mut bytes, mut dead) = (vec![0; 16 * 1024], false);
    let end = loop {
        let now = *traffic.borrow_and_update();
        dead |= now.drops(way);
        let read = tokio::select! {
            end = ends.wait_for(Option::is_some) => break end.ok().and_then(|end| *end),
            Ok(()) = traffic.changed() => continue,
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        if dead && read == 0 {
            // Also the end is not told: it waits for the test to end the pair.
            break ends.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        }
        if let Traffic::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if read == 0 || !dead && to.write_all(&bytes[..read]).await.is_err() {
            break Some(End::Fin);
        }
    };
    if end == Some(End::Rst) {
        // Without lingering, closing the socket discards what waits and sends RST.
        let stream: &TcpStream = to.as_ref();
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        to.forget();
    } else {
        let _ = to.shutdown().await;
    }
}
