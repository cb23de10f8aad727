//! Puts a node together and starts it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc};

use super::attendance::Attendance;
use super::clock;
use super::command::Commands;
use super::dispatcher::{Dispatcher, Kept};
use super::gate::Gate;
use super::handler::{Handler, NoHandler};
use super::hub::{Hub, Inner, KeptHistory};
use super::link::{Link, in_time};
use super::listing::Counts;
use super::observer::{Event, Observer, Observing};
use super::reader::Reader;
use super::shard::Shard;
use super::spawn::{client_id, supervise};
use super::types::StartError;
use super::up::LinksUp;
use crate::machines::Positions;
use crate::{
    Authenticator, Authorizer, Bus, BusError, CloseReason, CursorKey, Limits, MAX_PARTITIONS,
    NodeId, Topic, TopicRules,
};

/// Puts a hub together.
#[derive(Debug)]
pub struct HubBuilder {
    bus: Arc<dyn Bus>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    handler: Arc<dyn Handler>,
    limits: Limits,
    topics: TopicRules,
    observer: Observing,
    shards: usize,
    node: Option<NodeId>,
}

impl HubBuilder {
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Self {
        Self {
            bus,
            authenticator,
            authorizer,
            handler: Arc::new(NoHandler),
            limits: Limits::default(),
            topics: TopicRules::default(),
            observer: Observing::default(),
            shards: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            node: None,
        }
    }

    /// The application's handler; without one every message of its own is `unknown_type`.
    #[must_use]
    pub fn handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handler = handler;
        self
    }

    /// What the node grants.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What is kept of which topic, and so on. The same on all nodes of a bus.
    #[must_use]
    pub fn topics(mut self, rules: TopicRules) -> Self {
        self.topics = rules;
        self
    }

    /// What this node is called among the others; random by default. No two nodes that run may have one name; one that is
    /// started again may have that of its last run.
    #[must_use]
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Who is told what happens on the node; without one, nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observing::with(observer);
        self
    }

    /// How many shards there are; best one per worker thread, which is the default.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards.max(1);
        self
    }

    /// Connects to the bus and starts the node on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when the bus cannot be reached, or does not answer within `bus_deadline`; when it has more than
    /// [`MAX_PARTITIONS`], or when a limit is zero whose zero means nothing.
    pub async fn start(self) -> Result<Hub, StartError> {
        self.limits.check().map_err(StartError::Configuration)?;
        let partitions = self.bus.partitions();
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let text = format!("a bus has 1 to {MAX_PARTITIONS} partitions, not {partitions}");
            return Err(StartError::Configuration(text));
        }
        let (mut links, deadline) = (Vec::new(), self.limits.bus_deadline);
        for partition in 0..partitions {
            let link = in_time(deadline, self.bus.connect(partition)).await;
            let (bus, observer) = (self.bus.clone(), self.observer.clone());
            let link = link.map_err(StartError::Bus)?;
            links.push(Link::new(bus, partition, link, deadline, observer));
        }
        let key = match self.bus.history() {
            Some(history) => {
                let key = in_time(deadline, history.cursor_key()).await;
                Some(key.map_err(StartError::Bus)?)
            }
            None => None,
        };
        let key = key.map(|key| CursorKey::new(&key));
        let rules = Arc::new(self.topics);
        let positions = in_time(deadline, positions(&*self.bus)).await.map_err(StartError::Bus)?;
        let kept = key.clone().zip(positions).map(|(key, positions)| {
            Kept::new(self.bus.clone(), positions, rules.clone(), key, &self.limits)
        });
        let (wishes, wished) = mpsc::unbounded_channel();
        let node = self.node.unwrap_or_else(random_node);
        let failed = Arc::new(AtomicBool::new(false));
        let attendance = self.bus.presence().map(|_| {
            let (attendance, attendants) = Attendance::new(&self.bus, &node, &rules, &self.limits);
            for attendant in attendants {
                let (failed, observer) = (failed.clone(), self.observer.clone());
                supervise(attendant.run(), move || fail(&failed, &observer));
            }
            attendance
        });
        let emptied = Arc::<Notify>::default();
        let counts = Arc::<Counts>::default();
        let shards: Vec<_> = (0..self.shards)
            .map(|n| {
                let (heartbeat, observer) = (self.limits.heartbeat, self.observer.clone());
                let cursor_age = self.limits.cursor_age;
                let bus = self.bus.clone();
                let partition = Arc::new(move |topic: &Topic| bus.partition(topic));
                let (wishes, key, attendance) = (wishes.clone(), key.clone(), attendance.clone());
                Shard::new(
                    n,
                    wishes,
                    heartbeat,
                    cursor_age,
                    emptied.clone(),
                    observer,
                    key,
                    attendance,
                    partition,
                )
            })
            .collect();
        let handles: Vec<_> = shards.iter().map(Shard::handle).collect();
        let links_up = Arc::new(LinksUp::new(self.bus.partitions()));
        let Limits { inbox_bytes, message_bytes, .. } = self.limits;
        let (bus, up) = (self.bus.clone(), links_up.clone());
        let commands = Arc::new(Commands::new(
            bus.clone(),
            handles.clone(),
            attendance.clone(),
            message_bytes,
        ));
        let (shards_of, told) = (handles.clone(), commands.clone());
        let dispatcher = Dispatcher::new(
            bus,
            links,
            shards_of,
            told,
            wished,
            kept,
            rules.clone(),
            up,
            inbox_bytes,
            counts.clone(),
        );
        let (told, observer, shards_of) = (failed.clone(), self.observer.clone(), handles.clone());
        supervise(dispatcher.run(), move || {
            fail(&told, &observer);
            // Nothing reaches them any more.
            shards_of.iter().for_each(|shard| shard.end_all(CloseReason::INTERNAL));
        });
        for shard in shards {
            let (failed, observer) = (failed.clone(), self.observer.clone());
            supervise(shard.run(), move || fail(&failed, &observer));
        }
        let gate = Mutex::new(Gate::new(clock::monotonic(), &self.limits));
        let reader = Arc::new(Reader::new(self.bus.clone(), deadline));
        let hub = Hub(Arc::new(Inner {
            bus: self.bus,
            authenticator: self.authenticator,
            authorizer: self.authorizer,
            handler: self.handler,
            limits: self.limits,
            observer: self.observer,
            shards: handles,
            wishes,
            commands,
            node,
            framings: Mutex::default(),
            next_shard: AtomicUsize::new(0),
            emptied,
            links_up,
            failed,
            rules,
            attendance,
            kept: key.map(|key| KeptHistory { key, reader }),
            draining: AtomicBool::new(false),
            gate,
            counts,
        }));
        // When the bus goes away just now, the wish stands and is fulfilled once it is back.
        let (wished, subscribed) = hub.wish(0, hub.0.commands.topics());
        wished.fulfil();
        let _ = subscribed.await;
        hub.sign_on().await;
        Ok(hub)
    }
}

/// A task of the node has panicked: the node takes nobody in any more, and says so.
fn fail(failed: &AtomicBool, observer: &Observing) {
    failed.store(true, Ordering::Release);
    observer.on(Event::Panicked);
}

fn random_node() -> NodeId {
    NodeId::new(client_id().to_string()).expect("32 digits are a name")
}

/// Where a bus stands now, when it keeps anything.
async fn positions(bus: &dyn Bus) -> Result<Option<Positions>, BusError> {
    let Some(history) = bus.history() else { return Ok(None) };
    let mut partitions = Vec::new();
    for partition in 0..bus.partitions() {
        let tops = history.tops(partition, &[]).await?;
        partitions.push((tops.epoch, tops.clock));
    }
    Ok(Some(Positions::new(partitions)))
}
