//! The nodes of a run and what joins them, and what is done to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidings_examples::check::{Addresses, Failure, Node};
use tidings_redis_testing::{Proxy, Redis, Traffic};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Bus;
use crate::plan::{Action, Way};
use crate::store::Store;

/// What joins the nodes, and the nodes. Before one Redis each has a proxy of its own.
#[derive(Debug)]
pub(crate) struct World {
    server: PathBuf,
    store: Store,
    nodes: Vec<Place>,
    flags: Vec<String>,
    /// Where the nodes are reached now.
    pub(crate) addresses: Addresses,
}

/// Where a node runs, or ran before it was killed.
#[derive(Debug)]
struct Place {
    node: Option<Node>,
    /// A node does not start while Redis is away, so it is tried again and again, as a supervisor does.
    starting: Option<JoinHandle<Node>>,
    proxy: Option<Proxy>,
}

impl World {
    /// Starts servers that lose nothing when they are killed, and so many nodes with these flags.
    pub(crate) async fn start(
        server: &Path,
        bus: Bus,
        nodes: usize,
        flags: Vec<String>,
    ) -> Result<Self, Failure> {
        let store = Store::start(bus, true).await;
        Self::start_apart(server, store, flags, &vec![Duration::ZERO; nodes]).await
    }

    /// Starts nodes at these servers, each so long after the one before is there.
    pub(crate) async fn start_apart(
        server: &Path,
        mut store: Store,
        flags: Vec<String>,
        apart: &[Duration],
    ) -> Result<Self, Failure> {
        let mut proxies = Vec::new();
        for _ in apart {
            proxies.push(match store.one() {
                Ok(redis) => Some(Proxy::to(redis.address()).await),
                Err(_) => None,
            });
        }
        let addresses = Addresses::new(vec![([127, 0, 0, 1], 0).into(); apart.len()]);
        let mut world = Self { server: server.into(), store, nodes: Vec::new(), flags, addresses };
        for (number, (proxy, pause)) in proxies.into_iter().zip(apart).enumerate() {
            tokio::time::sleep(*pause).await;
            world.nodes.push(Place { node: None, starting: None, proxy });
            world.start_node(number);
            world.wait_for(number).await?;
        }
        Ok(world)
    }

    /// Waits until a node that is starting is there.
    ///
    /// # Errors
    /// When it does not start within a minute.
    pub(crate) async fn wait_for(&mut self, number: usize) -> Result<(), Failure> {
        if let Some(starting) = self.nodes[number].starting.take() {
            self.nodes[number].node = Some(timeout(START_PATIENCE, starting).await??);
        }
        Ok(())
    }

    fn start_node(&mut self, number: usize) {
        let mut flags = self.flags.clone();
        flags.extend(["--node-id".to_owned(), format!("n{number}")]);
        let place = &mut self.nodes[number];
        let url = place.proxy.as_ref().map(|proxy| format!("redis://{}", proxy.address()));
        flags.extend(["--bus".to_owned(), url.unwrap_or_else(|| self.store.url())]);
        let (addresses, server) = (self.addresses.clone(), self.server.clone());
        place.starting = Some(tokio::spawn(async move {
            loop {
                match Node::start(&server, &flags).await {
                    Ok(node) => {
                        addresses.set(number, node.address);
                        return node;
                    }
                    Err(_) => tokio::time::sleep(START_PAUSE).await,
                }
            }
        }));
    }

    /// Does one step of the plan.
    ///
    /// # Errors
    /// When a server could not be started, or a node ended by itself.
    pub(crate) async fn act(&mut self, action: Action) -> Result<(), Failure> {
        self.take_started().await?;
        match action {
            Action::KillNode(number) => {
                if let Some(mut node) = self.nodes[number].node.take() {
                    node.kill().await?;
                }
            }
            Action::StartNode(number) => {
                if self.nodes[number].node.is_none() && self.nodes[number].starting.is_none() {
                    self.start_node(number);
                }
            }
            Action::StopNode(number) => self.signal(number, "STOP").await?,
            Action::ContinueNode(number) => self.signal(number, "CONT").await?,
            Action::KillRedis(any) => self.store.kill(any).await?,
            Action::StartRedis => self.store.start_again().await,
            Action::StopRedis(any) => self.store.stop(any).await?,
            Action::ContinueRedis => self.store.go_on(),
            Action::KillPubsub => self.store.ask_all(&["CLIENT", "KILL", "TYPE", "pubsub"]).await,
            Action::Flush => self.store.ask_all(&["FLUSHALL"]).await,
            // What was written before is what it starts with again: its configuration still says so.
            Action::StopWriting => {
                self.store.ask_all(&["CONFIG", "SET", "appendonly", "no"]).await;
            }
            Action::Failover(any) => self.store.failover(any).await?,
            Action::MoveSlot(any) => self.store.move_slot(any).await?,
            Action::Swallow(number, way) => self.proxy(number)?.set(match way {
                Way::Both => Traffic::Drop,
                Way::Requests => Traffic::DropRequests,
                Way::Answers => Traffic::DropAnswers,
            }),
            Action::Pass(number) => self.proxy(number)?.set(Traffic::Pass),
            Action::Reset(number) => self.proxy(number)?.reset(),
        }
        Ok(())
    }

    /// Whether every node that was not killed still runs.
    ///
    /// # Errors
    /// When one has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        for (number, place) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = place.node.as_mut().and_then(|node| node.ended().transpose()) {
                return Err(format!("node {number} ended by itself: {}", status?).into());
            }
        }
        Ok(())
    }

    async fn take_started(&mut self) -> Result<(), Failure> {
        for number in 0..self.nodes.len() {
            if self.nodes[number].starting.as_ref().is_some_and(JoinHandle::is_finished) {
                self.wait_for(number).await?;
            }
        }
        Ok(())
    }

    /// Sends a signal to a node; one that is still starting gets none.
    async fn signal(&self, number: usize, name: &str) -> Result<(), Failure> {
        match &self.nodes[number].node {
            Some(node) => Ok(node.signal(name).await?),
            None => Ok(()),
        }
    }

    /// The node of this number, which must run.
    ///
    /// # Errors
    /// When it was killed.
    pub(crate) fn node(&self, number: usize) -> Result<&Node, Failure> {
        self.nodes[number].node.as_ref().ok_or_else(|| "the node does not run".into())
    }

    /// How often Redis was asked to do what, by command.
    pub(crate) async fn calls(&mut self) -> Result<BTreeMap<String, u64>, Failure> {
        let stats = self.redis()?.info("commandstats").await;
        Ok(stats
            .into_iter()
            .filter_map(|(name, text)| {
                let calls = text.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
                Some((name.trim_start_matches("cmdstat_").to_owned(), calls))
            })
            .collect())
    }

    /// The processor time that Redis has taken.
    pub(crate) async fn redis_cpu(&mut self) -> Result<Duration, Failure> {
        let cpu = self.redis()?.info("cpu").await;
        let seconds = |name: &str| cpu.get(name).and_then(|text| text.parse::<f64>().ok());
        let used =
            seconds("used_cpu_user").zip(seconds("used_cpu_sys")).ok_or("Redis tells no CPU")?;
        Ok(Duration::from_secs_f64(used.0 + used.1))
    }

    fn redis(&mut self) -> Result<&mut Redis, Failure> {
        self.store.one()
    }

    fn proxy(&self, number: usize) -> Result<&Proxy, Failure> {
        self.nodes[number].proxy.as_ref().ok_or_else(|| "this run has no Redis".into())
    }
}

const START_PATIENCE: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_millis(200);
