//! Planned failovers under Sentinels: for a while two servers call themselves the primary. Nodes that were started apart
//! publish all the while, and what was acknowledged reaches every client, or a gap is told after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::testing::hub_laws::scene::Client;
use tidings_core::{AllowAll, Anonymous, Bus, Hub, Limits, Retention, TopicOptions, TopicRules};
use tidings_redis_testing::{
    Options, Redis, Reply, SENTINEL_MASTER, SentinelTrio, in_time, tell, until,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::failover::{sentinel_url, sentinels_url};
use crate::network::with_a_replica;
use crate::scene::{ROOMS, publication, room_name};

/// What a client heard: numbers, and by room when it was last told of a gap.
#[derive(Default)]
struct Heard {
    news: HashMap<u64, u32>,
    gaps: HashMap<String, Vec<Instant>>,
    ended: bool,
}

type Record = Arc<Mutex<Heard>>;

struct Node {
    hub: Hub,
    heard: Record,
    /// What was acknowledged, and when it was begun.
    publishing: JoinHandle<Vec<(u64, Instant)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn start_hub(url: &str, retention: Option<Retention>) -> Hub {
    let bus = in_time("a bus", RedisBus::connect(url, RedisConfig::default())).await;
    let bus: Arc<dyn Bus> = Arc::new(bus.expect("Redis is there"));
    let mut options = TopicOptions::default();
    options.retention = retention;
    let mut limits = Limits::default();
    (limits.rooms_per_connection, limits.message_rate) = (0, 0);
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).limits(limits);
    builder.topics(TopicRules::all(options)).shards(1).start().await.expect("the bus is there")
}

/// A client in all rooms, which writes down what it hears.
async fn listens(hub: &Hub) -> Record {
    let mut client = Client::connect(hub, "user").await;
    for room in 0..ROOMS {
        client.join(&room_name(room)).await;
    }
    let heard = Record::default();
    let record = heard.clone();
    tokio::spawn(async move {
        while let Some(text) = client.pipe.next().await {
            let at = Instant::now();
            let message: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            let mut heard = lock(&record);
            match (message["type"].as_str(), message["payload"]["roomId"].as_str()) {
                (Some("gap"), Some(room)) => {
                    heard.gaps.entry(room.to_owned()).or_default().push(at);
                }
                (Some("news"), _) => {
                    let number = message["payload"].as_u64().expect("a number");
                    *heard.news.entry(number).or_default() += 1;
                }
                _ => {}
            }
        }
        lock(&record).ended = true;
    });
    heard
}

/// Publishes one after the other until it is told to stop.
async fn publishes(hub: Hub, next: Arc<AtomicU64>, stop: Arc<AtomicU64>) -> Vec<(u64, Instant)> {
    let mut acknowledged = Vec::new();
    while stop.load(Ordering::Relaxed) == 0 {
        let (number, at) = (next.fetch_add(1, Ordering::Relaxed), Instant::now());
        if hub.publish(publication(number % ROOMS, number)).await.is_ok() {
            acknowledged.push((number, at));
        }
        sleep(Duration::from_millis(4)).await;
    }
    acknowledged
}

async fn fails_over(trio: &SentinelTrio, turn: usize) {
    let other = 1 - trio.primary().await;
    until("the Sentinel to begin", async || {
        let begin = ["SENTINEL", "FAILOVER", SENTINEL_MASTER];
        matches!(trio.sentinels[turn % 3].cli(&begin).await, Reply::Text(_))
    })
    .await;
    trio.promoted(other).await;
    // The old primary takes what is published for some seconds more.
    trio.settled().await;
}

async fn nothing_is_lost_in_silence(failovers: usize, retention: Option<Retention>) {
    let trio = SentinelTrio::start(Options::default()).await;
    let [next, stop] = [0, 0].map(|n| Arc::new(AtomicU64::new(n)));
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let hub = start_hub(&sentinel_url(&trio), retention).await;
        let heard = listens(&hub).await;
        nodes.push((hub, heard));
        // So that what nodes do now and then they do at different times.
        sleep(Duration::from_millis(1700)).await;
    }
    let publish = |(hub, heard): (Hub, Record)| {
        let publishing = tokio::spawn(publishes(hub.clone(), next.clone(), stop.clone()));
        Node { hub, heard, publishing }
    };
    let mut nodes: Vec<_> = nodes.into_iter().map(publish).collect();
    for turn in 0..failovers {
        fails_over(&trio, turn).await;
    }
    for node in &nodes {
        until("the node to be ready", async || node.hub.is_ready()).await;
    }
    stop.store(1, Ordering::Relaxed);
    let (mut acknowledged, mut records) = (Vec::new(), Vec::new());
    for node in &mut nodes {
        acknowledged.extend((&mut node.publishing).await.expect("it publishes"));
        records.push(node.heard.clone());
    }
    // Nothing comes behind the last of each room.
    for room in 0..ROOMS {
        let last = (1 << 40) + room;
        let hub = &nodes[0].hub;
        until("a publish", async || hub.publish(publication(room, last)).await.is_ok()).await;
        until("the last to be heard", async || {
            records.iter().all(|heard| lock(heard).news.contains_key(&last))
        })
        .await;
    }
    for (n, heard) in records.iter().enumerate() {
        let heard = lock(heard);
        assert!(!heard.ended, "a client lost its connection");
        let silent = |(number, at): &&(u64, Instant)| {
            let told = heard.gaps.get(&room_name(number % ROOMS));
            !heard.news.contains_key(number) && !told.is_some_and(|t| t.iter().any(|gap| gap >= at))
        };
        let lost = acknowledged.iter().filter(silent).count();
        let gaps: usize = heard.gaps.values().map(Vec::len).sum();
        let twice = heard.news.values().filter(|times| **times > 1).count();
        let of = acknowledged.len();
        tell(&format!("node {n}: of {of} lost in silence {lost}, twice {twice}, gaps {gaps}"));
        assert_eq!((lost, twice), (0, 0));
    }
}

fn kept() -> Option<Retention> {
    Some(Retention { count: 100_000, age: Duration::from_secs(3600) })
}

#[tokio::test]
async fn planned_failovers_lose_nothing_in_silence() {
    nothing_is_lost_in_silence(2, kept()).await;
}

#[tokio::test]
async fn planned_failovers_lose_nothing_in_silence_of_what_is_not_kept() {
    nothing_is_lost_in_silence(2, None).await;
}

#[tokio::test]
#[ignore = "it takes about five minutes"]
async fn twenty_planned_failovers_lose_nothing_in_silence() {
    nothing_is_lost_in_silence(20, kept()).await;
}

/// Two servers call themselves the primary. A node has moved to the new one; the other publishes in the old one, and
/// moves then.
async fn a_node_moves_late(retention: Option<Retention>) {
    let (old, new, ..) = with_a_replica().await;
    let sentinels = [Redis::sentinel_of(&old).await, Redis::sentinel_of(&old).await];
    let early = start_hub(&sentinels_url(&[&sentinels[0]]), retention).await;
    let late = start_hub(&sentinels_url(&[&sentinels[1]]), retention).await;
    let heard = listens(&early).await;
    let _late = listens(&late).await;
    new.cli(&["REPLICAOF", "NO", "ONE"]).await.ok();
    sentinels[0].take_for_primary(&new).await;
    // Until its rooms are listened to there, and it has told its client.
    until("the early node to move", async || {
        let channels = new.cli(&["PUBSUB", "CHANNELS", "tidings:*:r:*"]).await.list();
        channels.len() == ROOMS as usize && lock(&heard).gaps.len() == ROOMS as usize
    })
    .await;
    let at = Instant::now();
    late.publish(publication(0, 1)).await.expect("the old one takes it");
    sentinels[1].take_for_primary(&new).await;
    until("a gap in each room", async || {
        let heard = lock(&heard);
        let told =
            |room| heard.gaps.get(&room_name(room)).is_some_and(|t| t.iter().any(|g| *g >= at));
        (0..ROOMS).all(told)
    })
    .await;
    assert!(!lock(&heard).news.contains_key(&1), "it was published in the old one alone");
}

#[tokio::test]
async fn all_are_told_when_a_node_moves_late() {
    a_node_moves_late(kept()).await;
}

#[tokio::test]
async fn all_are_told_when_a_node_moves_late_of_what_is_not_kept() {
    a_node_moves_late(None).await;
}

/// Two Sentinels call one primary differently; nodes that ask the one or the other agree on the epoch.
#[tokio::test]
async fn a_primary_with_two_names_has_one_epoch() {
    let redis = Redis::start(Options::default()).await;
    let [by_address, by_name] =
        [Redis::sentinel_of(&redis).await, Redis::sentinel_of(&redis).await];
    let port = redis.address().port().to_string();
    by_name.cli(&["SENTINEL", "REMOVE", SENTINEL_MASTER]).await.ok();
    for setting in ["resolve-hostnames", "announce-hostnames"] {
        by_name.cli(&["SENTINEL", "CONFIG", "SET", setting, "yes"]).await.ok();
    }
    let monitor = ["SENTINEL", "MONITOR", SENTINEL_MASTER, "localhost", &port, "100"];
    by_name.cli(&monitor).await.ok();
    let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_MASTER];
    assert_eq!(by_name.cli(&ask).await.list()[0], Reply::Text("localhost".to_owned()));
    let epoch = async || redis.cli(&["HGET", "tidings:{0}:clock", "epoch"]).await.text();
    let mut hubs = Vec::new();
    for sentinel in [&by_address, &by_name] {
        hubs.push(start_hub(&sentinels_url(&[sentinel]), kept()).await);
    }
    let records = [listens(&hubs[0]).await, listens(&hubs[1]).await];
    let first = epoch().await;
    for number in 0..100 {
        hubs[number as usize % 2].publish(publication(0, number)).await.expect("Redis is there");
    }
    for heard in &records {
        until("all to be heard", async || lock(heard).news.len() == 100).await;
        assert!(lock(heard).gaps.is_empty(), "no gap is told");
    }
    assert_eq!(epoch().await, first);
}
