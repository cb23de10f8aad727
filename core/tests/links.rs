//! A node's link to a bus that dies or refuses again and again: how often it is tried, and that it costs nothing meanwhile.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusInterest, BusLink, History, Hub, Presence, Publication,
    Receipt, Topic,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use support::*;

/// What links do now.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Links {
    Live,
    /// Each ends as soon as it is up.
    Die,
    SubscribesHang,
    UnsubscribesAreRefused,
    /// All topics of a subscribe that names the room "bad".
    BadIsRefused,
}

/// A bus that notes when it is connected to, and how often its links are polled.
#[derive(Debug)]
struct Noting {
    bus: MemoryBus,
    links: watch::Sender<Links>,
    connects: Mutex<Vec<Instant>>,
    polls: Arc<AtomicUsize>,
}

impl Noting {
    async fn start() -> (Arc<Self>, Hub) {
        let (bus, links) = (MemoryBus::without_history(), watch::channel(Links::Live).0);
        let bus = Arc::new(Self { bus, links, connects: Mutex::default(), polls: Arc::default() });
        let builder = Hub::builder(bus.clone(), Arc::new(Anonymous), Arc::new(AllowAll));
        (bus, builder.shards(1).start().await.expect("the bus is there"))
    }

    fn connects(&self) -> Vec<Instant> {
        self.connects.lock().expect("nobody panics").clone()
    }
}

#[async_trait]
impl Bus for Noting {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.bus.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        1
    }

    fn partition(&self, _: &Topic) -> u16 {
        0
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        self.connects.lock().expect("nobody panics").push(Instant::now());
        let BusLink { interest, mut deliveries } = self.bus.connect(partition).await?;
        let interest = Box::new(Interest(interest, self.links.clone()));
        let polls = self.polls.clone();
        let counted = stream::poll_fn(move |cx| {
            polls.fetch_add(1, SeqCst);
            deliveries.poll_next_unpin(cx)
        });
        let mut links = self.links.subscribe();
        let death = async move { drop(links.wait_for(|links| *links == Links::Die).await) };
        Ok(BusLink { interest, deliveries: counted.take_until(Box::pin(death)).boxed() })
    }

    fn history(&self) -> Option<&dyn History> {
        None
    }

    fn presence(&self) -> Option<&dyn Presence> {
        None
    }
}

struct Interest(Box<dyn BusInterest>, watch::Sender<Links>);

#[async_trait]
impl BusInterest for Interest {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        if *self.1.borrow() == Links::SubscribesHang {
            std::future::pending::<()>().await;
        }
        let is_bad = *self.1.borrow() == Links::BadIsRefused && topics.contains(&room("bad"));
        if is_bad {
            return Err(BusError::Refused("as it was told".to_owned()));
        }
        self.0.subscribe(topics).await
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        if *self.1.borrow() == Links::UnsubscribesAreRefused {
            return Err(BusError::Refused("as it was told".to_owned()));
        }
        self.0.unsubscribe(topics).await
    }
}

#[tokio::test(start_paused = true)]
async fn links_that_die_at_once_are_tried_less_and_less_often() {
    let (bus, hub) = Noting::start().await;
    let died = Instant::now();
    bus.links.send_replace(Links::Die);
    sleep(20 * LONGEST_BACKOFF).await;
    let connects = [vec![died], bus.connects()[1..].to_vec()].concat();
    let waits: Vec<_> = connects.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut longest = Duration::from_millis(100);
    for (number, &wait) in waits.iter().enumerate() {
        let bounds = longest / 2..=longest + TICK;
        assert!(bounds.contains(&wait), "wait {number} is {wait:?}, not in {bounds:?}");
        longest = (longest * 2).min(LONGEST_BACKOFF);
    }
    let late = &waits[7..];
    assert!(late.len() > 10, "{} waits", late.len());
    assert!(late.iter().any(|wait| *wait != late[0]), "nodes would come back in step: {late:?}");

    // One that outlives the longest wait is a good link: the next is tried soon.
    bus.links.send_replace(Links::Live);
    until(async || hub.is_bus_up()).await;
    sleep(LONGEST_BACKOFF + TICK).await;
    let (died, count) = (Instant::now(), bus.connects().len());
    bus.links.send_replace(Links::Die);
    until(async || bus.connects().len() > count).await;
    let wait = bus.connects()[count] - died;
    assert!(wait <= Duration::from_millis(100) + TICK, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_that_has_to_wait_does_not_keep_the_link_awake() {
    for links in [Links::SubscribesHang, Links::UnsubscribesAreRefused] {
        let (bus, hub) = Noting::start().await;
        let gone = Client::connect(&hub, "gone").await;
        drop(gone);
        until(async || hub.users().await.is_empty()).await;
        bus.links.send_replace(links);
        let late = tokio::spawn({
            let hub = hub.clone();
            async move { drop(attach(&hub, "late").await) }
        });
        let before = bus.polls.load(SeqCst);
        // Gone's topic comes due after one second, and a subscribe hangs for ten.
        sleep(Duration::from_secs(9)).await;
        let polls = bus.polls.load(SeqCst) - before;
        // A refused command is tried ten times a second, and the link is polled a few times for each.
        assert!(polls < 500, "{links:?}: {polls} polls in nine seconds");
        late.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_refused_is_told_and_keeps_nobody_else_waiting() {
    let (bus, hub) = Noting::start().await;
    let mut bad = Client::connect(&hub, "bad").await;
    bad.join("bad").await;
    let mut others = Vec::new();
    for n in 0..20 {
        let (name, mut client) = (format!("good{n}"), Client::connect(&hub, "other").await);
        client.join(&name).await;
        others.push((name, client));
    }
    bus.links.send_replace(Links::Die);
    until(async || !hub.is_bus_up()).await;
    bus.links.send_replace(Links::BadIsRefused);
    until(async || hub.is_bus_up() && !hub.is_ready()).await;
    for (name, client) in &mut others {
        is_told_of(client, name).await;
        publish(&hub, news(&room(name), 1)).await;
        while client.any().await["payload"] != 1 {}
    }
    is_told_of(&mut bad, "bad").await;
    sleep(20 * LONGEST_BACKOFF).await;
    assert!(!hub.is_ready(), "it is refused still");
    let mut late = Client::connect(&hub, "late").await;
    late.say("{\"type\":\"join:room\",\"payload\":{\"roomId\":\"bad\"}}").await;
    late.next("error").await;
    late.join("good of the late").await;

    bus.links.send_replace(Links::Live);
    until(async || hub.is_ready()).await;
    // What was published before the topic was taken is not kept.
    is_told_of(&mut bad, "bad").await;
    publish(&hub, news(&room("bad"), 2)).await;
    bad.hears(2).await;
}

/// Waits for the gap of a room; other gaps may come before it.
async fn is_told_of(client: &mut Client, room: &str) {
    loop {
        let gap = client.next("gap").await;
        assert_eq!(gap["payload"]["reason"], "outage");
        if gap["payload"]["roomId"] == room {
            return;
        }
    }
}

const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A sleep ends at the next millisecond, or the one after.
const TICK: Duration = Duration::from_millis(2);
