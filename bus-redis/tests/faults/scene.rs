//! Two nodes on one bus, each with a client in every room, numbered messages, and what became of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_core::{
    AllowAll, Anonymous, Bus, Hub, Limits, Message, Publication, PublishError, Retention, RoomId,
    TenantId, Topic, TopicOptions, TopicRules,
};
use tidings_redis_testing::{in_time, until};
use tokio::time::{sleep, timeout};

use crate::client::Client;

/// What a fault happens to. Message `n` goes to room `n % rooms`, through the nodes in turn.
pub(crate) struct Scene {
    nodes: Vec<Node>,
    next: u64,
    /// Messages published while all was well, and those that were acknowledged at all.
    well: Vec<u64>,
    acknowledged: Vec<u64>,
    kept: Kept,
    rooms: u64,
}

/// What becomes of acknowledged messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    No,
    /// All are heard, and clients notice nothing.
    Whole,
    /// They are heard, or a gap is told.
    OrGap,
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
        Self::with(buses, ROOMS, Kept::No).await
    }

    /// The same with topics that keep their messages: then no acknowledged one may be lost, whatever happens to a Redis
    /// that keeps what it was told, and clients notice nothing.
    pub(crate) async fn start_kept(buses: impl IntoIterator<Item = Arc<dyn Bus>>) -> Self {
        Self::with(buses, ROOMS, Kept::Whole).await
    }

    /// The same where another Redis takes over, which may lack the last of it: clients are told what they may have missed.
    pub(crate) async fn start_kept_or_gap(buses: impl IntoIterator<Item = Arc<dyn Bus>>) -> Self {
        Self::with(buses, ROOMS, Kept::OrGap).await
    }

    /// With so many rooms, of which nothing is kept.
    pub(crate) async fn start_in(
        rooms: u64,
        buses: impl IntoIterator<Item = Arc<dyn Bus>>,
    ) -> Self {
        Self::with(buses, rooms, Kept::No).await
    }

    async fn with(buses: impl IntoIterator<Item = Arc<dyn Bus>>, count: u64, kept: Kept) -> Self {
        let mut options = TopicOptions::default();
        let retention = Retention { count: 10_000, age: Duration::from_secs(600) };
        options.retention = (kept != Kept::No).then_some(retention);
        let rules = TopicRules::all(options);
        let mut limits = Limits::default();
        (limits.rooms_per_connection, limits.message_rate) = (0, 0);
        let mut nodes = Vec::new();
        for bus in buses {
            let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).shards(1);
            let start = builder.limits(limits.clone()).topics(rules.clone()).start();
            let hub = in_time("a node to start", start).await.expect("the bus is there");
            let client = Client::in_rooms(&hub, rooms(count)).await;
            nodes.push(Node { hub, client, newcomer: None });
        }
        let (well, acknowledged) = (Vec::new(), Vec::new());
        let mut scene = Self { nodes, next: 0, well, acknowledged, kept, rooms: count };
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
            until("the node to be ready", async || has_all(&node.hub)).await;
            node.newcomer = Some(Client::in_rooms(&node.hub, rooms(self.rooms)).await);
        }
        self.goes_well().await;
        for node in &self.nodes {
            let (client, acknowledged) = (&node.client, &self.acknowledged);
            match self.kept {
                Kept::No => {}
                Kept::Whole => {
                    client.hears(acknowledged).await;
                    client.heard_in_order(acknowledged, self.rooms);
                    assert_eq!(client.gaps(), 0, "what was kept was repaired");
                }
                Kept::OrGap => {
                    client.hears_or_is_told(acknowledged, self.rooms).await;
                    client.heard_at_most_once(acknowledged, self.rooms);
                }
            }
            client.heard_in_order(&self.well, self.rooms);
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
        for _ in 0..(10 * ROOMS / self.rooms).max(1) {
            numbers.extend(self.publish_round().await.expect("all is well"));
        }
        self.all_hear(&numbers).await;
        self.well.extend(numbers);
    }

    /// Returns once each node has published to each room and each client heard it.
    pub(crate) async fn round_trips(&mut self) {
        while !self.round_trip().await {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn round_trip(&mut self) -> bool {
        let Ok(numbers) = self.publish_round().await else { return false };
        timeout(Duration::from_secs(2), self.all_hear(&numbers)).await.is_ok()
    }

    async fn all_hear(&self, numbers: &[u64]) {
        for node in &self.nodes {
            for client in [Some(&node.client), node.newcomer.as_ref()].into_iter().flatten() {
                client.hears(numbers).await;
            }
        }
    }

    /// Publishes in each room through each node; an error ends it.
    async fn publish_round(&mut self) -> Result<Vec<u64>, PublishError> {
        let round = self.next..self.next + self.rooms * self.nodes.len() as u64;
        while self.next < round.end {
            // No room twice at a time, so that the order in each is known.
            let turn = (self.next / self.rooms + 1) * self.rooms;
            let part = self.next..turn.min(round.end).min(self.next + AT_A_TIME);
            self.next = part.end;
            let answers = join_all(part.clone().map(|number| self.send(number))).await;
            let acknowledged = part.zip(&answers).filter(|(_, answer)| answer.is_ok());
            self.acknowledged.extend(acknowledged.map(|(number, _)| number));
            answers.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(round.collect())
    }

    /// Publishes the next message.
    async fn publish(&mut self) -> Result<(), PublishError> {
        let number = self.next;
        self.next += 1;
        self.send(number).await?;
        self.acknowledged.push(number);
        Ok(())
    }

    /// Publishes a message; an answer comes in time.
    async fn send(&self, number: u64) -> Result<(), PublishError> {
        let publication = publication(number % self.rooms, number);
        let node = (number / self.rooms) as usize % self.nodes.len();
        let answer = self.nodes[node].hub.publish(publication);
        timeout(ANSWER, answer).await.expect("a publish is answered in time").map(|_| ())
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

    /// Waits until every node is ready, and has all of the bus.
    pub(crate) async fn say_ready(&self) {
        until("every node to be ready", async || self.0.iter().all(has_all)).await;
    }
}

/// Whether a node is ready, and no part of the bus is away.
fn has_all(hub: &Hub) -> bool {
    hub.is_ready() && hub.partitions_away().is_empty()
}

pub(crate) fn publication(of_room: u64, number: u64) -> Publication {
    let message = Message::of("news", &number).expect("a number is JSON");
    Publication::new(room(of_room), message)
}

/// A room of the default tenant.
fn room(number: u64) -> Topic {
    let room = RoomId::new(room_name(number)).expect("it is a name");
    Topic::room(TenantId::default(), room)
}

pub(crate) fn room_name(number: u64) -> String {
    format!("room {number}")
}

fn rooms(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(room_name)
}

/// Enough to be in several partitions of a bus.
pub(crate) const ROOMS: u64 = 8;
/// Publications of a round at a time.
const AT_A_TIME: u64 = 256;
/// How long a publish may take; the deadline of the buses under test is far shorter.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a twin may try; far longer than its protection takes.
const BOUND: Duration = Duration::from_secs(15);
