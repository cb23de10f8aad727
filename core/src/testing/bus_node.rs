//! A node as the laws see it: its links, and what it hears on them.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use crate::MAX_PARTITIONS;
use crate::{
    Bus, BusError, BusLink, Delivery, Message, Publication, Receipt, RoomId, TenantId, Topic,
};

/// Waits for an answer that every bus must give in bounded time.
pub(super) async fn in_time<T>(what: impl Debug, answer: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what:?}: nothing within {PATIENCE:?}"),
    }
}

/// A room of the default tenant.
pub(super) fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("a name of a law is a name"))
}

/// A publication whose payload is a text.
pub(super) fn say(topic: &Topic, text: &str) -> Publication {
    let message = Message::of("law", &text).expect("a text is JSON");
    Publication::new(topic.clone(), message)
}

/// Publishes and insists that everything is accepted.
pub(super) async fn publish(bus: &Arc<dyn Bus>, batch: Vec<Publication>) -> Vec<Receipt> {
    let len = batch.len();
    let answers = in_time("publish", bus.publish(batch)).await;
    assert_eq!(answers.len(), len, "one answer per publication");
    let accepted = answers.into_iter().enumerate().map(|(place, answer)| {
        answer.unwrap_or_else(|error| panic!("publication {place} of {len}: {error}"))
    });
    accepted.collect()
}

/// A node with one link to each partition.
pub(super) struct Node {
    bus: Arc<dyn Bus>,
    links: Vec<BusLink>,
    sentinels: u32,
}

impl Node {
    pub(super) async fn join(bus: Arc<dyn Bus>) -> Self {
        let mut links = Vec::new();
        for partition in 0..bus.partitions() {
            links.push(connect(&bus, partition).await);
        }
        let allowed = 1..=usize::from(MAX_PARTITIONS);
        assert!(allowed.contains(&links.len()), "a bus has 1 to {MAX_PARTITIONS} partitions");
        Self { bus, links, sentinels: 0 }
    }

    pub(super) async fn subscribe(&mut self, topics: &[Topic]) {
        for (partition, topics) in self.by_partition(topics) {
            let answer = self.links[partition].interest.subscribe(&topics);
            in_time("subscribe", answer).await.expect("a subscribe on a live bus succeeds");
        }
    }

    pub(super) async fn unsubscribe(&mut self, topics: &[Topic]) {
        for (partition, topics) in self.by_partition(topics) {
            let answer = self.links[partition].interest.unsubscribe(&topics);
            in_time("unsubscribe", answer).await.expect("an unsubscribe on a live bus succeeds");
        }
    }

    /// Publishes through this node's own bus.
    pub(super) async fn publish(&self, publication: Publication) {
        publish(&self.bus, vec![publication]).await;
    }

    /// The next delivery of the partition that the topic belongs to.
    pub(super) async fn next(&mut self, topic: &Topic) -> Delivery {
        let partition = self.partition(topic);
        let item = in_time(topic, self.links[partition].deliveries.next()).await;
        let item = item.unwrap_or_else(|| panic!("the link ended instead of delivering {topic:?}"));
        item.unwrap_or_else(|error| panic!("instead of delivering {topic:?}: {error}"))
    }

    /// The next delivery is this publication, whole.
    pub(super) async fn hears(&mut self, publication: &Publication) -> Delivery {
        let heard = self.next(&publication.topic).await;
        assert_eq!(without_position(&heard), Delivery::of(publication));
        heard
    }

    /// Nothing waits on any link: what is published now is the next to arrive.
    pub(super) async fn hears_nothing_more(&mut self) {
        for partition in 0..self.links.len() {
            self.sentinels += 1;
            let topic = self.topic_in(partition, "sentinel");
            let sentinel = say(&topic, &format!("sentinel {}", self.sentinels));
            self.subscribe(std::slice::from_ref(&topic)).await;
            self.publish(sentinel.clone()).await;
            self.hears(&sentinel).await;
            self.unsubscribe(&[topic]).await;
        }
    }

    /// All links end; what was under way, and one error each, may come first.
    pub(super) async fn ends(&mut self) {
        for link in &mut self.links {
            let end = async { while let Some(Ok(_)) = link.deliveries.next().await {} };
            in_time("the end of a broken link", end).await;
        }
    }

    /// A topic of the same partition as another, so that order holds between them.
    pub(super) fn beside(&self, topic: &Topic, name: &str) -> Topic {
        self.topic_in(self.partition(topic), name)
    }

    fn topic_in(&self, partition: usize, name: &str) -> Topic {
        let topic = (0..MAX_GUESSES)
            .map(|n| room(&format!("{name} {n}")))
            .find(|topic| self.partition(topic) == partition);
        topic.unwrap_or_else(|| panic!("no topic belongs to partition {partition}"))
    }

    pub(super) fn partition(&self, topic: &Topic) -> usize {
        let partition = self.bus.partition(topic);
        assert_eq!(partition, self.bus.partition(topic), "a topic stays in its partition");
        assert!(partition < self.bus.partitions(), "{topic:?} is in no partition");
        partition.into()
    }

    fn by_partition(&self, topics: &[Topic]) -> Vec<(usize, Vec<Topic>)> {
        let mut parts = vec![Vec::new(); self.links.len()];
        for topic in topics {
            parts[self.partition(topic)].push(topic.clone());
        }
        parts.into_iter().enumerate().filter(|(_, topics)| !topics.is_empty()).collect()
    }
}

/// Connects, and tries again while the bus comes back.
async fn connect(bus: &Arc<dyn Bus>, partition: u16) -> BusLink {
    answered("connect", || bus.connect(partition)).await
}

/// Asks, and asks again while the bus is away.
pub(super) async fn answered<T, A>(what: &str, mut ask: impl FnMut() -> A) -> T
where
    A: Future<Output = Result<T, BusError>>,
{
    let attempts = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(BusError::Unavailable(_) | BusError::TimedOut) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    };
    in_time(what, attempts).await
}

/// What of a delivery every bus must keep; a position is up to its history.
fn without_position(delivery: &Delivery) -> Delivery {
    Delivery { position: None, ..delivery.clone() }
}

/// How long a law waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// Names tried until one falls into a partition; far more than there are partitions.
const MAX_GUESSES: u32 = 1_000_000;
