//! The Redis servers of a run, in each topology, and what is done to them.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_examples::check::Failure;
use tidings_redis_testing::{Cluster, Options, Redis, Reply, SENTINEL_MASTER, SentinelTrio};
use tokio::time::{Instant, sleep, timeout};

use crate::Bus;

/// What joins the nodes.
#[derive(Debug)]
pub(crate) struct Store {
    servers: Servers,
    /// Which server is killed or stopped.
    down: Option<usize>,
}

#[derive(Debug)]
enum Servers {
    None,
    One(Box<Redis>),
    Sentinel(Box<SentinelTrio>),
    Cluster(Box<Cluster>),
}

impl Store {
    /// Starts the servers; `durable` ones say that they lose nothing of what they acknowledged.
    pub(crate) async fn start(bus: Bus, durable: bool) -> Self {
        // What Redis has written lives on when its process is killed; only a machine that dies needs more.
        let fsync = if durable { "always" } else { "no" };
        let options = Options::default().set("appendonly", "yes").set("appendfsync", fsync);
        let servers = match bus {
            Bus::Memory => Servers::None,
            Bus::Redis => Servers::One(Redis::start(options).await.into()),
            Bus::Sentinel => Servers::Sentinel(SentinelTrio::start(options).await.into()),
            Bus::Cluster => Servers::Cluster(Cluster::start(options).await.into()),
        };
        Self { servers, down: None }
    }

    /// The one server that nodes reach through proxies; others tell nodes their addresses themselves.
    pub(crate) fn one(&mut self) -> Result<&mut Redis, Failure> {
        match &mut self.servers {
            Servers::One(redis) => Ok(redis),
            _ => Err("this run has not one Redis".into()),
        }
    }

    /// Where nodes find it, for those without a proxy.
    pub(crate) fn url(&self) -> String {
        let join = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match &self.servers {
            Servers::None => "memory".to_owned(),
            Servers::One(redis) => redis.url(),
            Servers::Sentinel(trio) => {
                format!("redis+sentinel://{}/{SENTINEL_MASTER}", join(&trio.addresses()))
            }
            Servers::Cluster(cluster) => format!("redis+cluster://{}", join(&cluster.addresses())),
        }
    }

    fn servers(&mut self) -> Vec<&mut Redis> {
        match &mut self.servers {
            Servers::None => Vec::new(),
            Servers::One(redis) => vec![redis],
            Servers::Sentinel(trio) => trio.servers.iter_mut().collect(),
            Servers::Cluster(cluster) => cluster.nodes.iter_mut().collect(),
        }
    }

    /// Waits until every replica has a copy, so that one fault does not lose both.
    async fn settled(&self) {
        match &self.servers {
            Servers::Sentinel(trio) => trio.settled().await,
            Servers::Cluster(cluster) => cluster.settled().await,
            _ => {}
        }
    }

    /// The place of a primary, chosen by a number.
    async fn primary(&self, any: usize) -> usize {
        match &self.servers {
            Servers::Sentinel(trio) => trio.primary().await,
            Servers::Cluster(cluster) => cluster.owner(slot(cluster, any).await).await,
            _ => 0,
        }
    }

    /// Takes a primary for what is done to it.
    async fn take_down(&mut self, any: usize) -> Result<&mut Redis, Failure> {
        self.settled().await;
        let primary = self.primary(any).await;
        self.down = Some(primary);
        self.servers().into_iter().nth(primary).ok_or_else(|| "this run has no Redis".into())
    }

    /// What was taken down, if anything was.
    fn take_up(&mut self) -> Option<&mut Redis> {
        let down = self.down.take()?;
        self.servers().into_iter().nth(down)
    }

    pub(crate) async fn kill(&mut self, any: usize) -> Result<(), Failure> {
        self.take_down(any).await?.kill9();
        Ok(())
    }

    pub(crate) async fn start_again(&mut self) {
        if let Some(redis) = self.take_up() {
            redis.restart().await;
        }
    }

    pub(crate) async fn stop(&mut self, any: usize) -> Result<(), Failure> {
        self.take_down(any).await?.sigstop();
        Ok(())
    }

    pub(crate) fn go_on(&mut self) {
        if let Some(redis) = self.take_up() {
            redis.sigcont();
        }
    }

    /// Asks all servers that answer, primaries and replicas.
    pub(crate) async fn ask_all(&mut self, command: &[&str]) {
        for server in self.servers() {
            // One that is away has nothing that could be done to it, a stopped one is left alone.
            let _ = timeout(ANSWER, server.try_cli(command)).await;
        }
    }

    /// A planned failover; it waits for none of the nodes, nor for the old primary to know of it.
    pub(crate) async fn failover(&mut self, any: usize) -> Result<(), Failure> {
        self.settled().await;
        match &self.servers {
            Servers::Sentinel(trio) => {
                let sentinel = &trio.sentinels[any % trio.sentinels.len()];
                let replica = 1 - trio.primary().await;
                accepted(sentinel, &["SENTINEL", "FAILOVER", SENTINEL_MASTER]).await?;
                // The Sentinels may give it up: then there was none.
                let _ = timeout(PROMOTION, trio.promoted(replica)).await;
                Ok(())
            }
            Servers::Cluster(cluster) => {
                // A primary and its replica stand three places apart.
                let primary = self.primary(any).await;
                let replica = &cluster.nodes[(primary + 3) % 6];
                accepted(replica, &["CLUSTER", "FAILOVER"]).await
            }
            _ => Err("one Redis has no failover".into()),
        }
    }

    /// Moves the slot of a partition to another primary.
    pub(crate) async fn move_slot(&mut self, any: usize) -> Result<(), Failure> {
        self.settled().await;
        let Servers::Cluster(cluster) = &self.servers else { return Err("no cluster".into()) };
        let slot = slot(cluster, any).await;
        let from = cluster.owner(slot).await;
        for (place, node) in cluster.nodes.iter().enumerate() {
            if place != from && node.is_primary().await {
                cluster.move_slot(slot, place).await;
                break;
            }
        }
        Ok(())
    }
}

/// The slot of one of the bus's partitions.
async fn slot(cluster: &Cluster, any: usize) -> u16 {
    let mut clocks = Vec::new();
    for node in &cluster.nodes {
        // Replicas name them too.
        if let Ok(Reply::List(keys)) = node.try_cli(&["KEYS", "*}:clock"]).await {
            clocks.extend(keys.into_iter().map(Reply::text));
        }
    }
    clocks.sort();
    clocks.dedup();
    match clocks.get(any % clocks.len().max(1)) {
        Some(clock) => cluster.slot(clock).await,
        None => 0,
    }
}

/// Asks until it is accepted: a replica that has just come back is not taken at once.
async fn accepted(server: &Redis, command: &[&str]) -> Result<(), Failure> {
    let deadline = Instant::now() + ACCEPTANCE;
    loop {
        match server.cli(command).await {
            Reply::Error(error) if Instant::now() > deadline => return Err(error.into()),
            Reply::Error(_) => sleep(PAUSE).await,
            _ => return Ok(()),
        }
    }
}

const ANSWER: Duration = Duration::from_secs(1);
const ACCEPTANCE: Duration = Duration::from_secs(30);
const PROMOTION: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
