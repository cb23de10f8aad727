//! The servers of a run, and what is done to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidings_examples::check::{Addresses, Failure, Node};
use tidings_redis_testing::{Options, Proxy, Redis, Traffic};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::plan::{Action, Way};

/// One Redis, or none, and the nodes, each with a proxy of its own before Redis.
#[derive(Debug)]
pub(crate) struct World {
    server: PathBuf,
    redis: Option<Redis>,
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
    /// Starts Redis, when wished, and so many nodes with these flags.
    pub(crate) async fn start(
        server: &Path,
        redis: bool,
        nodes: usize,
        flags: Vec<String>,
    ) -> Result<Self, Failure> {
        // What Redis has written lives on when its process is killed; only a machine that dies needs more.
        let options = Options::default().set("appendonly", "yes").set("appendfsync", "no");
        let redis = if redis { Some(Redis::start(options).await) } else { None };
        let addresses = Addresses::new(vec![([127, 0, 0, 1], 0).into(); nodes]);
        let mut world = Self { server: server.into(), redis, nodes: Vec::new(), flags, addresses };
        for number in 0..nodes {
            let proxy = match &world.redis {
                Some(redis) => Some(Proxy::to(redis.address()).await),
                None => None,
            };
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
        if let Some(proxy) = &place.proxy {
            flags.extend(["--bus".to_owned(), format!("redis://{}?durable=1", proxy.address())]);
        }
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
            Action::KillRedis => self.redis()?.kill9(),
            Action::StartRedis => self.redis()?.restart().await,
            Action::StopRedis => self.redis()?.sigstop(),
            Action::ContinueRedis => self.redis()?.sigcont(),
            Action::KillPubsub => self.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?,
            Action::Flush => self.ask(&["FLUSHALL"]).await?,
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

    async fn ask(&mut self, command: &[&str]) -> Result<(), Failure> {
        self.redis()?.cli(command).await.ok();
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
        self.redis.as_mut().ok_or_else(|| "this run has no Redis".into())
    }

    fn proxy(&self, number: usize) -> Result<&Proxy, Failure> {
        self.nodes[number].proxy.as_ref().ok_or_else(|| "this run has no Redis".into())
    }
}

const START_PATIENCE: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_millis(200);
