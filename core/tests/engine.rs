//! The tasks of a node: they end with it, and what panics in one of them harms as little as it can.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::{MemoryPipe, PipeClient, PipeReader, PipeWriter};
use tidings_core::{
    AllowAll, Anonymous, AttachError, Bus, BusError, BusLink, CloseReason, ConnectOptions, Event,
    Framing, History, Hub, Identity, Observer, Outgoing, Presence, Publication, Receipt, Scope,
    Topic, Transport, TransportInfo, UserId,
};

use support::*;

/// How many links a publication reaches.
async fn links(bus: &MemoryBus, topic: &Topic) -> Option<u32> {
    let receipt = bus.publish(vec![news(topic, 0)]).await.pop().expect("an answer");
    receipt.expect("the bus is there").links
}

/// A bus whose code panics when it is told to.
#[derive(Debug, Default)]
struct Fragile {
    bus: MemoryBus,
    partition: AtomicBool,
    /// At which question about a user's topic from now on; 0 is none.
    user: AtomicUsize,
}

#[async_trait]
impl Bus for Fragile {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.bus.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        1
    }

    fn partition(&self, topic: &Topic) -> u16 {
        assert!(!self.partition.load(Ordering::Relaxed), "the test asked for it");
        if matches!(topic.scope, Scope::User(_)) {
            let less = |left: usize| left.checked_sub(1);
            let left = self.user.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            assert_ne!(left, Ok(1), "the test asked for it");
        }
        0
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        self.bus.connect(partition).await
    }

    fn history(&self) -> Option<&dyn History> {
        self.bus.history()
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.bus.presence()
    }
}

/// Counts panics.
#[derive(Debug, Default)]
struct Panics(AtomicUsize);

impl Observer for Panics {
    fn on_event(&self, event: &Event<'_>) {
        if matches!(event, Event::Panicked) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn fragile() -> (Arc<Fragile>, Hub, Arc<Panics>) {
    let (bus, panics) = (Arc::<Fragile>::default(), Arc::<Panics>::default());
    let builder = Hub::builder(bus.clone(), Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.observer(panics.clone()).shards(2);
    (bus, builder.start().await.expect("the bus is there"), panics)
}

#[tokio::test]
async fn a_dropped_hub_leaves_nothing_on_its_bus() {
    let (bus, hub, _) = fragile().await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    drop(hub);
    // Its connections keep a node alive.
    assert_eq!(links(&bus.bus, &room("r")).await, Some(1));
    client.next("news").await;
    drop(client);
    // Each task of a node holds its bus, and a link is held by a task.
    until(|| async { Arc::strong_count(&bus) == 1 }).await;
    assert_eq!(links(&bus.bus, &room("r")).await, Some(0));
}

#[tokio::test]
async fn a_node_whose_dispatcher_panics_says_so() {
    let (bus, hub, panics) = fragile().await;
    let mut clients = [Client::connect(&hub, "u").await, Client::connect(&hub, "v").await];
    assert!(hub.is_ready() && !hub.has_failed());
    bus.partition.store(true, Ordering::Relaxed);
    clients[0].say("{\"type\":\"join:room\",\"payload\":{\"roomId\":\"r\"}}").await;
    for client in &mut clients {
        in_time(async { while client.pipe.next().await.is_some() {} }).await;
        assert_eq!(client.pipe.closed().map(|reason| reason.code), Some(1011));
    }
    assert!(!hub.is_ready() && hub.has_failed());
    assert_eq!(panics.0.load(Ordering::Relaxed), 1);
    assert!(matches!(attach(&hub, "w").await, Err(AttachError::Internal)));
    assert!(hub.rooms().await.is_empty(), "what there is to see of it is still answered");
}

#[tokio::test]
async fn a_panic_while_a_client_is_taken_in_is_the_servers_fault_and_leaves_nothing() {
    let (bus, hub, panics) = fragile().await;
    let client = Client::connect(&hub, "u").await;
    // The first question is the dispatcher's, the second one that of the task that takes the client in and counts it.
    bus.user.store(2, Ordering::Relaxed);
    let refused = attach(&hub, "v").await.expect_err("it panicked");
    assert_eq!(refused.close_reason().code, 1011);
    assert_eq!(panics.0.load(Ordering::Relaxed), 1);
    let links = || async { links(&bus.bus, &user("v")).await };
    until(|| async { links().await == Some(0) }).await;
    assert_eq!(hub.count_present(&user("v")).await.ok(), Some(0));
    assert!(hub.is_ready());
    drop(client);
}

/// A connection whose transport cannot frame what holds the word `poison`.
struct Picky(MemoryPipe);

impl Picky {
    fn info() -> TransportInfo {
        fn encode(message: &Outgoing) -> Bytes {
            let frame = (MemoryPipe::info().framing.encode)(message);
            let is_poison = |part: &[u8]| part == b"poison";
            assert!(!frame.windows(6).any(is_poison), "the test asked for it");
            frame
        }
        let framing = Framing { id: "picky", encode, ..MemoryPipe::info().framing };
        TransportInfo { framing, ..MemoryPipe::info() }
    }

    async fn connect(hub: &Hub, name: &str, options: ConnectOptions) -> PipeClient {
        let who = Identity::user(UserId::new(name).expect("it is a name"));
        let attachment = hub.attach(who, options, Self::info()).await.expect("it is taken in");
        let (server, pipe) = MemoryPipe::new(PIPE);
        tokio::spawn(attachment.serve(Self(server)));
        pipe
    }
}

impl Transport for Picky {
    type Reader = PipeReader;
    type Writer = PipeWriter;

    fn info(&self) -> TransportInfo {
        Self::info()
    }

    fn split(self) -> (PipeReader, PipeWriter) {
        self.0.split()
    }
}

fn in_room() -> ConnectOptions {
    ConnectOptions { rooms: vec!["r".to_owned()], ..ConnectOptions::default() }
}

async fn hears(pipe: &mut PipeClient, word: &str) -> serde_json::Value {
    let text = in_time(pipe.next()).await.unwrap_or_else(|| panic!("ended: {:?}", pipe.closed()));
    assert!(text.contains(word), "{word} in {text}");
    serde_json::from_str(&text).expect("it is JSON")
}

#[tokio::test]
async fn a_message_that_a_transport_cannot_frame_is_a_gap_on_it_and_nothing_else() {
    let (_, hub, panics) = fragile().await;
    let mut picky = Picky::connect(&hub, "picky", in_room()).await;
    hears(&mut picky, "connected").await;
    let cursor = hears(&mut picky, "room:joined").await["cursor"].as_str().map(str::to_owned);
    let mut other = Client::connect_with(&hub, "other", in_room()).await.0;
    other.next("room:joined").await;
    for n in 0..3 {
        let poison = tidings_core::Message::of("poison", &n).expect("JSON");
        publish(&hub, Publication::new(room("r"), poison)).await;
        publish(&hub, news(&room("r"), n)).await;
        hears(&mut picky, "\"reason\":\"outage\"").await;
        hears(&mut picky, "news").await;
        other.next("poison").await;
        other.hears(n).await;
    }
    // Once for all receivers, and once for each who gets it replayed.
    assert_eq!(panics.0.load(Ordering::Relaxed), 3);
    let mut back = Picky::connect(&hub, "picky", ConnectOptions { cursor, ..in_room() }).await;
    hears(&mut back, "connected").await;
    hears(&mut back, "room:joined").await;
    for _ in 0..3 {
        hears(&mut back, "\"reason\":\"outage\"").await;
        hears(&mut back, "news").await;
    }
    assert!(hub.is_ready());
}

#[tokio::test]
async fn who_cannot_be_told_that_it_is_connected_is_ended_alone() {
    let (_, hub, panics) = fragile().await;
    let mut other = Client::connect(&hub, "other").await;
    let mut poisoned = Picky::connect(&hub, "poison", ConnectOptions::default()).await;
    assert_eq!(in_time(poisoned.next()).await, None);
    assert_eq!(poisoned.closed().map(|reason| reason.code), Some(CloseReason::INTERNAL.code));
    assert_eq!(panics.0.load(Ordering::Relaxed), 1);
    publish(&hub, news(&user("other"), 1)).await;
    other.hears(1).await;
}
