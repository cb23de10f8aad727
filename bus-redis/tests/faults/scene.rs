//! Two nodes on one bus, each with a client in every room, numbered messages, and what became of them.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    AllowAll, Anonymous, Bus, Hub, Message, Publication, PublishError, Retention, RoomId, TenantId,
    Topic, TopicOptions, TopicRules,
};
use tidings_redis_testing::{in_time, until};
use tokio::time::{sleep, timeout};

use crate::client::Client;

/// What a fault happens to. Message `n` goes to room `n % ROOMS`, through the nodes in turn.
pub(crate) struct Scene {
    nodes: Vec<Node>,
    next: u64,
    /// Messages published while all was well, and those that were acknowledged at all.
    well: Vec<u64>,
    acknowledged: Vec<u64>,
    kept: bool,
}

struct Node {
    hub: Hub,
    client: Client,
    /// Connected after the fault.
    newcomer: Option<Client>,
}

impl Scene {
    /// Starts a node on each of the buses and publishes a while, which must go well. Nothing is kept.
    pub(crate) async fn start(buses: impl IntoIterator<Item = Arc<dyn Bus>>) -> Self {
        Self::with(buses, None).await
    }

    /// The same with topics that keep their messages: then no acknowledged one may be lost, whatever happens to a Redis
    /// that keeps what it was told, and clients notice nothing.
    pub(crate) async fn start_kept(buses: impl IntoIterator<Item = Arc<dyn Bus>>) -> Self {
        let retention = Retention { count: 10_000, age: Duration::from_secs(600) };
        Self::with(buses, Some(retention)).await
    }

    async fn with(
        buses: impl IntoIterator<Item = Arc<dyn Bus>>,
        retention: Option<Retention>,
    ) -> Self {
        let mut options = TopicOptions::default();
        options.retention = retention;
        let (rules, kept) = (TopicRules::all(options), retention.is_some());
        let mut nodes = Vec::new();
        for bus in buses {
            let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).shards(1);
            let start = builder.topics(rules.clone()).start();
            let hub = in_time("a node to start", start).await.expect("the bus is there");
            let client = Client::in_rooms(&hub, rooms()).await;
            nodes.push(Node { hub, client, newcomer: None });
        }
        let (well, acknowledged) = (Vec::new(), Vec::new());
        let mut scene = Self { nodes, next: 0, well, acknowledged, kept };
        scene.goes_well().await;
        scene
    }

    /// Goes on publishing while a fault takes its course. What becomes of it is not known, but every publish is
    /// answered.
    pub(crate) async fn during(&mut self, fault: impl Future<Output = ()>) {
        let mut fault = pin!(fault);
        while timeout(Duration::from_millis(20), &mut fault).await.is_err() {
            let _ = self.publish().await;
        }
    }

    /// The end of every fault test: every node serves, old clients and new ones; nothing hangs; what was published
    /// while all was well arrived once and in order.
    pub(crate) async fn serves_again(mut self) {
        in_time("every node to serve again", self.round_trips()).await;
        for node in &mut self.nodes {
            until("the node to be ready", async || node.hub.is_ready()).await;
            node.newcomer = Some(Client::in_rooms(&node.hub, rooms()).await);
        }
        self.goes_well().await;
        for node in &self.nodes {
            if self.kept {
                node.client.hears(&self.acknowledged).await;
                node.client.heard_in_order(&self.acknowledged);
                assert_eq!(node.client.gaps(), 0, "what was kept was repaired");
            }
            node.client.heard_in_order(&self.well);
        }
    }

    /// The end of every twin, whose protection is off: the fault is not survived within [`BOUND`], so the test
    /// with the protection proves something.
    pub(crate) async fn stays_broken(mut self) {
        let survived = timeout(BOUND, self.round_trips()).await.is_ok();
        assert!(!survived, "survived without the protection: the test of it proves nothing");
    }

    /// The end of a twin without deadlines: a publish is not answered, and no node says that anything is wrong.
    pub(crate) async fn hangs(mut self) {
        let answered = timeout(BOUND, self.publish()).await.is_ok();
        assert!(!answered, "answered without a deadline: the test of it proves nothing");
        assert!(
            self.nodes.iter().all(|node| node.hub.is_ready()),
            "a node noticed without a probe"
        );
    }

    /// The nodes, to look at while the scene goes on.
    pub(crate) fn nodes(&self) -> Nodes {
        Nodes(self.nodes.iter().map(|node| node.hub.clone()).collect())
    }

    /// Publishes while all is well: everything is acknowledged, and every client hears it.
    pub(crate) async fn goes_well(&mut self) {
        let mut numbers = Vec::new();
        for _ in 0..10 * self.round() {
            let number = self.next;
            self.publish().await.expect("all is well");
            numbers.push(number);
        }
        self.all_hear(&numbers).await;
        self.well.extend(numbers);
    }

    /// Returns once each node has published to each room and each client heard it.
    async fn round_trips(&mut self) {
        while !self.round_trip().await {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn round_trip(&mut self) -> bool {
        let mut numbers = Vec::new();
        for _ in 0..self.round() {
            numbers.push(self.next);
            if self.publish().await.is_err() {
                return false;
            }
        }
        timeout(Duration::from_secs(2), self.all_hear(&numbers)).await.is_ok()
    }

    async fn all_hear(&self, numbers: &[u64]) {
        for node in &self.nodes {
            for client in [Some(&node.client), node.newcomer.as_ref()].into_iter().flatten() {
                client.hears(numbers).await;
            }
        }
    }

    /// How many messages it takes until each node has published to each room.
    fn round(&self) -> u64 {
        ROOMS * self.nodes.len() as u64
    }

    /// Publishes the next message; an answer comes in time.
    async fn publish(&mut self) -> Result<(), PublishError> {
        let number = self.next;
        self.next += 1;
        let message = Message::of("news", &number).expect("a number is JSON");
        let publication = Publication::new(room(number % ROOMS), message);
        let node = (number / ROOMS) as usize % self.nodes.len();
        let answer = self.nodes[node].hub.publish(publication);
        match timeout(ANSWER, answer).await.expect("a publish is answered in time") {
            Ok(_) => {
                self.acknowledged.push(number);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// What the nodes say of themselves.
pub(crate) struct Nodes(Vec<Hub>);

impl Nodes {
    /// Waits until every node says that the bus is away.
    pub(crate) async fn say_away(&self) {
        let away = |hub: &Hub| !hub.is_bus_up() && !hub.is_ready();
        until("every node to say that the bus is away", async || self.0.iter().all(away)).await;
    }

    /// Waits until every node is ready.
    pub(crate) async fn say_ready(&self) {
        until("every node to be ready", async || self.0.iter().all(Hub::is_ready)).await;
    }
}

/// A room of the default tenant.
fn room(number: u64) -> Topic {
    let room = RoomId::new(format!("room {number}")).expect("it is a name");
    Topic::room(TenantId::default(), room)
}

fn rooms() -> impl Iterator<Item = String> {
    (0..ROOMS).map(|number| format!("room {number}"))
}

/// Insists that numbers rise, and that none comes twice.
pub(crate) fn are_in_order(numbers: &[u64]) -> bool {
    let distinct: HashSet<_> = numbers.iter().collect();
    distinct.len() == numbers.len() && numbers.is_sorted()
}

/// Enough to be in several partitions of a bus.
pub(crate) const ROOMS: u64 = 8;
/// How long a publish may take; the deadline of the buses under test is far shorter.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a twin may try; far longer than its protection takes.
const BOUND: Duration = Duration::from_secs(15);
