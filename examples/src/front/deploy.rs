//! Two nodes behind a proxy that leave in order, or all at once, while clients listen and publishers publish.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

use super::measure::{attempts, peak, returns, waits};
use super::proxy::{Kind, Proxy, free_address};
use crate::check::{
    Address, Addresses, Client, ClientRecord, Crowd, Failure, Http, Node, Outbound, Phase,
    Progress, Published, Publisher, Random, Report, Rules, Topics, Transport, token, verdict,
};

/// Two nodes behind a proxy.
#[derive(Debug)]
pub struct Site {
    binary: PathBuf,
    flags: Vec<String>,
    listen: [SocketAddr; 2],
    nodes: [Option<Node>; 2],
    proxy: Proxy,
}

impl Site {
    /// Starts both nodes with these flags, which must name a bus that joins them, and the proxy.
    ///
    /// # Errors
    /// When a node cannot be started.
    pub async fn start(kind: Kind, binary: &Path, flags: Vec<String>) -> Result<Self, Failure> {
        let listen = [free_address(), free_address()];
        let proxy = Proxy::start(kind, listen, &[]);
        let mut site =
            Self { binary: binary.to_owned(), flags, listen, nodes: [None, None], proxy };
        site.start_node(0).await?;
        site.start_node(1).await?;
        Ok(site)
    }

    /// Starts a node where it was before.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_node(&mut self, number: usize) -> Result<(), Failure> {
        let node = Node::start_at(&self.binary, self.listen[number], &self.flags).await?;
        self.nodes[number] = Some(node);
        Ok(())
    }

    /// Asks a node to end, waits until it has, and starts it again. Answers how many connections it had.
    ///
    /// # Errors
    /// When it does not run, or does not end with 0.
    pub async fn restart(&mut self, number: usize) -> Result<u64, Failure> {
        let mut node = self.nodes[number].take().ok_or("the node does not run")?;
        let connections = connections(&node).await?;
        node.signal("TERM").await?;
        let status = node.wait().await?;
        if !status.success() {
            return Err(format!("a node that was asked to end ended with {status}").into());
        }
        self.start_node(number).await?;
        Ok(connections)
    }

    /// Ends a node at once. Answers how many connections it had.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, number: usize) -> Result<u64, Failure> {
        let mut node = self.nodes[number].take().ok_or("the node does not run")?;
        let connections = connections(&node).await?;
        node.kill().await?;
        Ok(connections)
    }

    /// Waits until the nodes that run hold so many connections.
    ///
    /// # Errors
    /// When they do not within `patience`.
    pub async fn holds(&self, wanted: usize, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        loop {
            let mut held = 0;
            for node in self.nodes.iter().flatten() {
                held += connections(node).await?;
            }
            if held == wanted as u64 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the nodes hold {held} connections, not {wanted}").into());
            }
            sleep(PAUSE).await;
        }
    }
}

async fn connections(node: &Node) -> Result<u64, Failure> {
    let (status, body) =
        Http::default().request(node.admin, "GET /stats", "", "", PATIENCE).await?;
    if status != 200 {
        return Err(format!("/stats answers {status}").into());
    }
    let stats: Value = serde_json::from_str(&body)?;
    let count = |transport| stats["connections"][transport].as_u64().unwrap_or(0);
    Ok(count("websocket") + count("sse"))
}

/// Clients, half of them on WebSocket and half on event streams, and a publisher.
#[derive(Debug)]
pub struct Load {
    start: Instant,
    clients: usize,
    crowd: Crowd,
    stop: watch::Sender<bool>,
    publishing: JoinHandle<Result<Vec<Published>, Failure>>,
}

/// What a load went through.
#[derive(Debug)]
pub struct Outcome {
    /// Whether everything came, and in order.
    pub report: Report,
    /// Clients that still lack something at the end.
    pub lacking: usize,
    /// How long clients were away, each time; sorted.
    pub waits: Vec<Duration>,
    /// What each client went through.
    pub records: Vec<ClientRecord>,
}

impl Outcome {
    /// The attempts to connect within a time, the most within any second, and their mean per second.
    pub fn attempts(&self, within: &Range<Duration>) -> (usize, usize, f64) {
        let attempts = attempts(&self.records, within);
        let (most, mean) = peak(&attempts);
        (attempts.len(), most, mean)
    }

    /// How many times clients came back, and how many of these with a cursor and told that nothing is missing.
    pub fn returns(&self) -> (usize, usize) {
        returns(&self.records)
    }
}

impl Load {
    /// So many clients through the proxy, two of each user and a hundred in each room; `rate` times a second a message
    /// goes to a room and one to a user, now and then one to everyone. Returns when all clients are in.
    ///
    /// # Errors
    /// When not all come in.
    pub async fn start(site: &Site, clients: usize, rate: u32) -> Result<Self, Failure> {
        let start = Instant::now();
        let (rooms, users) = (clients.div_ceil(100), clients.div_ceil(2));
        let all = (0..rooms).map(|n| Address::Room(format!("r{n}")));
        let all = all.chain((0..users).map(|n| Address::User(format!("u{n}"))));
        let topics = Topics::new(all.chain([Address::Everyone]));
        let addresses = Addresses::new([site.proxy.address]);
        let client = |number: usize| Client {
            name: format!("client {number}"),
            user: format!("u{}", number / 2),
            token: token(&format!("u{}", number / 2), &json!({})),
            transport: [Transport::WebSocket, Transport::EventSource][number % 2],
            rooms: vec![format!("r{}", number % rooms)],
            late_room: None,
            topics: topics.clone(),
            addresses: addresses.clone(),
            cuts: None,
            leaves: None,
            cursor_ahead: false,
            start,
            random: Random::of(1, number as u64),
            progress: Progress::default(),
        };
        let crowd = Crowd::start((0..clients).map(client).collect(), Phase::Calm);
        crowd.joined(PATIENCE).await?;
        let (stop, stopped) = watch::channel(false);
        let publisher = Publisher::new(0, topics.clone(), addresses, start, 1);
        let publishing = tokio::spawn(publish(publisher, topics, rate, stopped));
        Ok(Self { start, clients, crowd, stop, publishing })
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until each client has a connection.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn all_are_back(&self, site: &Site) -> Result<(), Failure> {
        site.holds(self.clients, PATIENCE).await
    }

    /// Ends publishing, waits until the clients have everything, and ends them.
    ///
    /// # Errors
    /// When something could not be published, or a client panicked.
    pub async fn end(self) -> Result<Outcome, Failure> {
        self.stop.send_replace(true);
        let published = self.publishing.await??;
        let lacking = self.crowd.settle(&published, PATIENCE).await;
        let records = self.crowd.end().await?;
        let report = verdict(&published, &records, Rules { no_gap: true, forks: None });
        Ok(Outcome { report, lacking, waits: waits(&records), records })
    }
}

async fn publish(
    mut publisher: Publisher,
    topics: Arc<Topics>,
    rate: u32,
    stopped: watch::Receiver<bool>,
) -> Result<Vec<Published>, Failure> {
    let mut published = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    let of = |wanted: fn(&Address) -> bool| -> Vec<_> {
        topics.iter().filter(|(_, address)| wanted(address)).map(|(id, _)| id).collect()
    };
    let (rooms, users) =
        (of(|a| matches!(a, Address::Room(_))), of(|a| matches!(a, Address::User(_))));
    let everyone = of(|a| *a == Address::Everyone);
    let mut round = 0;
    while !*stopped.borrow() {
        ticks.tick().await;
        let mut to = vec![rooms[round % rooms.len()], users[round % users.len()]];
        if round % 10 == 0 {
            to.extend(&everyone);
        }
        let batch: Vec<_> = to.into_iter().map(|topic| Outbound { topic, except: None }).collect();
        published.extend(publisher.publish(&batch, PATIENCE).await?);
        round += 1;
    }
    Ok(published)
}

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);
