//! What a message costs Redis, and how long it takes from node to node. Times are printed, never judged.

#![expect(clippy::disallowed_methods, reason = "it tells how long things took")]

use std::time::Duration;

use futures_util::StreamExt;
use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{Bus, BusLink, Message, Publication, RoomId, TenantId, Topic};
use tidings_redis_testing::{Options, Redis, in_time, tell};
use tokio::time::Instant;

/// A node without probes, so that its idle hours cost nothing.
async fn node(redis: &Redis, topic: &Topic) -> (RedisBus, BusLink) {
    let mut config = RedisConfig::default();
    config.probe_interval = Duration::ZERO;
    let bus = RedisBus::connect(&redis.url(), config).await.expect("Redis is there");
    let mut link = in_time("a link", bus.connect(0)).await.expect("Redis is there");
    let subscribe = link.interest.subscribe(std::slice::from_ref(topic));
    in_time("a subscribe", subscribe).await.expect("Redis is there");
    (bus, link)
}

fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("it is a name"))
}

/// Publishes so many messages, one after another; each is heard. How long each took.
async fn publish(bus: &RedisBus, link: &mut BusLink, topic: &Topic) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..MESSAGES {
        let message = Message::of("news", &n).expect("a number is JSON");
        let start = Instant::now();
        let answers = bus.publish(vec![Publication::new(topic.clone(), message)]).await;
        answers.into_iter().next().expect("an answer").expect("Redis is there");
        in_time("the message", link.deliveries.next()).await.expect("no end").expect("no error");
        times.push(start.elapsed());
    }
    times
}

/// Commands that Redis executed and bytes that it read and wrote for the messages, with so many more nodes that
/// listen to something else.
async fn work(others: usize) -> [u64; 3] {
    let redis = Redis::start(Options::default()).await;
    let topic = room("heard");
    let (bus, mut link) = node(&redis, &topic).await;
    let mut idle = Vec::new();
    for n in 0..others {
        idle.push(node(&redis, &room(&format!("other {n}"))).await);
    }
    redis.cli(&["CONFIG", "RESETSTAT"]).await.ok();
    publish(&bus, &mut link, &topic).await;
    let calls = redis.info("commandstats").await;
    let calls = calls
        .values()
        .filter_map(|line| line.strip_prefix("calls=")?.split(',').next()?.parse::<u64>().ok());
    let calls = calls.sum();
    let bytes = redis.info("stats").await;
    let bytes = |way: &str| bytes[&format!("total_net_{way}_bytes")].parse().expect("a number");
    [calls, bytes("input"), bytes("output")]
}

#[tokio::test]
async fn nodes_that_do_not_listen_cost_nothing() {
    let (alone, of_four) = (work(0).await, work(3).await);
    let names = ["commands", "bytes in", "bytes out"];
    for ((name, alone), of_four) in names.iter().zip(alone).zip(of_four) {
        let each = |total: u64| total as f64 / f64::from(MESSAGES);
        let (one, four) = (each(alone), each(of_four));
        tell(&format!("{name} per message: {one:.2} with one node, {four:.2} with four"));
        // Idle nodes could only add a whole answer each; the rest is the length of numbers.
        assert!(of_four <= alone + alone / 100, "{name}: {alone} grew to {of_four}");
    }
}

#[tokio::test]
async fn from_node_to_node() {
    let redis = Redis::start(Options::default()).await;
    let topic = room("far");
    let (bus, _link) = node(&redis, &room("near")).await;
    let (_far, mut link) = node(&redis, &topic).await;
    let mut times = publish(&bus, &mut link, &topic).await;
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    tell(&format!("from node to node: p50 {} µs, p99 {} µs", at(50), at(99)));
}

#[tokio::test]
async fn ten_thousand_topics_are_subscribed() {
    let redis = Redis::start(Options::default()).await;
    let (_bus, mut link) = node(&redis, &room("first")).await;
    let topics: Vec<_> = (0..10_000).map(|n| room(&format!("topic {n}"))).collect();
    let start = Instant::now();
    for batch in topics.chunks(512) {
        in_time("a batch", link.interest.subscribe(batch)).await.expect("Redis is there");
    }
    tell(&format!("10,000 topics subscribed in {} ms", start.elapsed().as_millis()));
    // Besides them the first topic, the probe of the link, and word of a move.
    assert_eq!(redis.cli(&["PUBSUB", "CHANNELS"]).await.list().len(), 10_000 + 3);
}

const MESSAGES: u32 = 2000;
