//! Who is where, when the store forgets it or is away in part.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections and reads the clock")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use tidings_bus_memory::{Config, MemoryBus};
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusLink, Claim, History, Hub, LeaseId, Limits, Presence,
    Publication, Receipt, Scope, Tally, Topic, TopicOptions, TopicRules, UserId,
};

use support::*;

/// A bus on the test's clock, and a node on it that shows who is in its rooms.
async fn showing(linger: Duration) -> (MemoryBus, Hub) {
    let started = tokio::time::Instant::now();
    let mut config = Config::default();
    config.clock = Arc::new(move || started.elapsed());
    let bus = MemoryBus::new(config);
    let mut limits = Limits::default();
    limits.presence_linger = linger;
    let mut options = TopicOptions::default();
    options.presence = true;
    let builder = Hub::builder(Arc::new(bus.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.topics(TopicRules::all(options)).limits(limits);
    (bus, builder.start().await.expect("the bus is there"))
}

async fn present(hub: &Hub, count: u64) {
    until(async || hub.count_present(&room("r")).await.is_ok_and(|n| n == count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_noticed_although_somebody_comes_right_after_it() {
    let (bus, hub) = showing(Duration::from_secs(1)).await;
    let mut ann = Client::connect(&hub, "ann").await;
    ann.join("r").await;
    present(&hub, 1).await;
    for round in 2..5 {
        bus.flush();
        let mut late = Client::connect(&hub, &format!("late {round}")).await;
        late.join("r").await;
        present(&hub, 2).await;
        drop(late);
        present(&hub, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_claims_knows_nobody_until_the_next_renewal() {
    let (bus, hub) = showing(Duration::from_secs(1)).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    present(&hub, 1).await;
    bus.flush();
    assert_eq!(hub.count_present(&room("r")).await.expect("it is there"), 0);
    present(&hub, 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_lingers_is_there_although_the_store_forgot_it() {
    let (bus, hub) = showing(Duration::from_secs(30)).await;
    let mut ann = Client::connect(&hub, "ann").await;
    ann.join("r").await;
    present(&hub, 1).await;
    drop(ann);
    until(async || hub.users().await.is_empty()).await;
    bus.flush();
    assert_eq!(hub.count_present(&room("r")).await.expect("it is there"), 0);
    present(&hub, 1).await;
    present(&hub, 0).await;
}

/// A memory bus cut into partitions, whose presence is away in one of them when the test says so.
#[derive(Debug)]
struct Parted {
    bus: MemoryBus,
    /// Presence in the partition 0 is away.
    is_away: AtomicBool,
    calls: [AtomicUsize; PARTITIONS],
    claims: [AtomicUsize; PARTITIONS],
}

impl Parted {
    fn here(&self, partition: u16) -> Result<&dyn Presence, BusError> {
        match partition == 0 && self.is_away.load(SeqCst) {
            true => Err(BusError::Unavailable("this partition is away".to_owned())),
            false => Ok(self.bus.presence().expect("it has")),
        }
    }

    /// How many claims were made, and asked for in vain, since the last question: by partition.
    fn claimed(&self) -> [usize; PARTITIONS] {
        self.claims.each_ref().map(|claims| claims.swap(0, SeqCst))
    }

    /// A user whose own topic is in a partition.
    fn user_in(&self, partition: u16, n: usize) -> String {
        let names = (0..).map(|more| format!("user {n}.{more}"));
        names
            .into_iter()
            .find(|name| self.partition(&user(name)) == partition)
            .expect("one of them")
    }

    /// A room in a partition.
    fn room_in(&self, partition: u16) -> String {
        let mut names = (0..).map(|n| format!("room {n}"));
        names.find(|name| self.partition(&room(name)) == partition).expect("one of them")
    }
}

#[async_trait]
impl Presence for Parted {
    async fn begin(&self, partition: u16, lease: &LeaseId, time: Duration) -> Result<(), BusError> {
        self.here(partition)?.begin(0, lease, time).await
    }

    async fn renew(
        &self,
        partition: u16,
        lease: &LeaseId,
        time: Duration,
    ) -> Result<bool, BusError> {
        self.here(partition)?.renew(0, lease, time).await
    }

    async fn claim(
        &self,
        partition: u16,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Result<Option<Vec<Tally>>, BusError> {
        self.calls[usize::from(partition)].fetch_add(1, SeqCst);
        self.claims[usize::from(partition)].fetch_add(claims.len(), SeqCst);
        self.here(partition)?.claim(0, lease, claims).await
    }

    async fn expire(&self, partition: u16) -> Result<Vec<(Topic, UserId)>, BusError> {
        self.here(partition)?.expire(0).await
    }

    async fn members(&self, topic: &Topic) -> Result<Vec<UserId>, BusError> {
        self.here(self.partition(topic))?.members(topic).await
    }

    async fn count(&self, topic: &Topic) -> Result<u64, BusError> {
        self.here(self.partition(topic))?.count(topic).await
    }
}

#[async_trait]
impl Bus for Parted {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.bus.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        PARTITIONS as u16
    }

    fn partition(&self, topic: &Topic) -> u16 {
        let name = match &topic.scope {
            Scope::Room(room) => room.as_str(),
            Scope::User(user) => user.as_str(),
            _ => "",
        };
        (name.bytes().map(u32::from).sum::<u32>() % PARTITIONS as u32) as u16
    }

    async fn connect(&self, _: u16) -> Result<BusLink, BusError> {
        self.bus.connect(0).await
    }

    fn history(&self) -> Option<&dyn History> {
        None
    }

    fn presence(&self) -> Option<&dyn Presence> {
        Some(self)
    }
}

const PARTITIONS: usize = 3;

async fn parted() -> (Arc<Parted>, Hub) {
    let started = tokio::time::Instant::now();
    let mut config = Config::default();
    config.clock = Arc::new(move || started.elapsed());
    let bus = Arc::new(Parted {
        bus: MemoryBus::new(config),
        is_away: AtomicBool::new(false),
        calls: Default::default(),
        claims: Default::default(),
    });
    let mut options = TopicOptions::default();
    options.presence = true;
    let builder = Hub::builder(bus.clone(), Arc::new(Anonymous), Arc::new(AllowAll));
    let hub = builder.topics(TopicRules::all(options)).start().await.expect("the bus is there");
    (bus, hub)
}

/// So many renewals of every lease have been tried.
async fn renewals() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_away_costs_its_own_claims_alone() {
    let (bus, hub) = parted().await;
    let mut clients = Vec::new();
    for n in 0..30 {
        let name = bus.user_in(n % 3, usize::from(n));
        let mut client = Client::connect(&hub, &name).await;
        client.join(&bus.room_in(n % 3)).await;
        clients.push(client);
    }
    renewals().await;
    bus.claimed();
    renewals().await;
    assert_eq!(bus.claimed(), [0, 0, 0], "what is sure is claimed once");
    bus.is_away.store(true, SeqCst);
    renewals().await;
    assert_eq!(bus.claimed(), [0, 0, 0], "what is sure stays so while a partition is away");
    // One in each partition leaves, and one comes.
    clients.drain(..3).for_each(drop);
    for partition in 1..3 {
        let client = Client::connect(&hub, &bus.user_in(partition, 100)).await;
        clients.push(client);
    }
    renewals().await;
    let [away, one, two] = bus.claimed();
    assert!(away > 2, "it is tried again and again: {away}");
    for claims in [one, two] {
        assert!((3..=4).contains(&claims), "one left a room, one came and was asked for: {claims}");
    }
    bus.is_away.store(false, SeqCst);
    until(async || hub.count_present(&room(&bus.room_in(0))).await.is_ok_and(|n| n == 9)).await;
    renewals().await;
    let [back, one, two] = bus.claimed();
    assert!(back >= 2, "what failed is claimed");
    assert_eq!((one, two), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_goes_before_thousands_that_failed() {
    let (bus, hub) = parted().await;
    let room = bus.room_in(0);
    let mut clients = Vec::new();
    for n in 0..1200 {
        let mut client = Client::connect(&hub, &bus.user_in(1, n)).await;
        client.join(&room).await;
        clients.push(client);
    }
    bus.is_away.store(true, SeqCst);
    clients.clear();
    until(async || hub.users().await.is_empty()).await;
    until(async || {
        bus.claimed();
        tokio::time::sleep(Duration::from_secs(1)).await;
        bus.claimed()[0] > 1000
    })
    .await;
    bus.calls[0].store(0, SeqCst);
    let late = bus.user_in(0, 1);
    assert!(attach(&hub, &late).await.is_ok(), "it cannot be counted and is taken in");
    let calls = bus.calls[0].load(SeqCst);
    assert!(calls <= 2, "one under way and its own: {calls}");
}
