//! What a node is started with, and refuses to start with.

#![cfg(feature = "testing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusLink, History, HistoryPage, Hub, Limits, MAX_PARTITIONS,
    Presence, Publication, Receipt, StartError, Topic, Tops,
};

use support::*;

/// A bus that says to have so many partitions, and counts how often one is asked for its tops.
#[derive(Debug)]
struct Counting {
    bus: MemoryBus,
    partitions: u16,
    looks: AtomicUsize,
}

impl Counting {
    fn new(partitions: u16) -> Arc<Self> {
        Arc::new(Self { bus: MemoryBus::default(), partitions, looks: AtomicUsize::new(0) })
    }

    async fn start(self: &Arc<Self>, limits: Limits) -> Result<Hub, StartError> {
        let builder = Hub::builder(self.clone(), Arc::new(Anonymous), Arc::new(AllowAll));
        builder.limits(limits).shards(1).start().await
    }

    fn kept(&self) -> &dyn History {
        self.bus.history().expect("it is there")
    }
}

#[async_trait]
impl Bus for Counting {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.bus.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn partition(&self, _: &Topic) -> u16 {
        0
    }

    async fn connect(&self, _: u16) -> Result<BusLink, BusError> {
        self.bus.connect(0).await
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.bus.presence()
    }
}

#[async_trait]
impl History for Counting {
    async fn cursor_key(&self) -> Result<[u8; 16], BusError> {
        self.kept().cursor_key().await
    }

    async fn tops(&self, _: u16, topics: &[Topic]) -> Result<Tops, BusError> {
        self.looks.fetch_add(1, SeqCst);
        self.kept().tops(0, topics).await
    }

    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError> {
        self.kept().after(topic, clock, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn cursors_of_as_many_partitions_as_a_bus_may_have_resume() {
    let hub = Counting::new(MAX_PARTITIONS).start(Limits::default()).await.expect("it may");
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    publish(&hub, news(&room("r"), 1)).await;
    client.hears(1).await;
    let back = client.back(&["r"]);
    drop(client);
    publish(&hub, news(&room("r"), 2)).await;
    let (mut client, connected) = Client::connect_with(&hub, "u", back).await;
    assert_eq!(connected["payload"]["recovered"], true, "{connected}");
    client.next("room:joined").await;
    client.hears(2).await;
    for partitions in [0, MAX_PARTITIONS + 1] {
        let refused = Counting::new(partitions).start(Limits::default()).await;
        let Err(StartError::Configuration(text)) = refused else { panic!("{partitions}") };
        assert!(text.contains("1 to 64 partitions"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_cannot_be_is_told_at_the_start() {
    let (least, ten_years) = (Duration::from_millis(1), Duration::from_secs(315_360_000));
    type Field = fn(&mut Limits) -> &mut Duration;
    let times: [(&str, Duration, Field); 8] = [
        ("write_deadline", least, |limits| &mut limits.write_deadline),
        ("handshake_deadline", least, |limits| &mut limits.handshake_deadline),
        ("bus_deadline", least, |limits| &mut limits.bus_deadline),
        ("close_deadline", least, |limits| &mut limits.close_deadline),
        ("heartbeat", least, |limits| &mut limits.heartbeat),
        ("token_leeway", Duration::ZERO, |limits| &mut limits.token_leeway),
        ("presence_linger", Duration::ZERO, |limits| &mut limits.presence_linger),
        ("history_check", Duration::ZERO, |limits| &mut limits.history_check),
    ];
    for (name, least, field) in times {
        let tries = [
            (least.checked_sub(Duration::from_nanos(1)), false),
            (Some(least), true),
            (Some(ten_years), true),
            (Some(Duration::MAX), false),
        ];
        for (time, taken) in tries {
            let Some(time) = time else { continue };
            let mut limits = Limits::default();
            *field(&mut limits) = time;
            match Counting::new(1).start(limits).await {
                Ok(_) => assert!(taken, "{name} {time:?}"),
                Err(StartError::Configuration(text)) => {
                    assert!(!taken && text.contains(name), "{name} {time:?}: {text}");
                }
                Err(error) => panic!("{name} {time:?}: {error}"),
            }
        }
    }
    let sizes: [fn(&mut Limits) -> &mut usize; 3] = [
        |limits| &mut limits.message_bytes,
        |limits| &mut limits.outbox_bytes,
        |limits| &mut limits.inbox_bytes,
    ];
    for field in sizes {
        for (size, taken) in [(0, false), (1, true)] {
            let mut limits = Limits::default();
            *field(&mut limits) = size;
            assert_eq!(Counting::new(1).start(limits).await.is_ok(), taken, "{size}");
        }
    }
}

/// How often an idle bus is asked for its tops in an hour.
async fn looks_of_an_hour(history_check: Duration) -> usize {
    let bus = Counting::new(1);
    let mut limits = Limits::default();
    limits.history_check = history_check;
    let hub = bus.start(limits).await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = bus.looks.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    bus.looks.load(SeqCst) - before
}

#[tokio::test(start_paused = true)]
async fn a_history_check_of_zero_is_none() {
    assert_eq!(looks_of_an_hour(Duration::ZERO).await, 0);
    let often = looks_of_an_hour(Limits::default().history_check).await;
    assert!((119..=121).contains(&often), "{often}");
}
