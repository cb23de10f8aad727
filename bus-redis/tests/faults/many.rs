//! Ten thousand topics on one node come back after a restart of Redis.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    AllowAll, Anonymous, Bus, Hub, Limits, Message, Publication, RoomId, TenantId, Topic,
};
use tidings_redis_testing::{Options, Redis, until};
use tokio::time::{Instant, sleep, timeout};

use crate::buses::{config, deaf, two};
use crate::client::Client;

async fn node(bus: Arc<dyn Bus>) -> (Hub, Client) {
    let mut limits = Limits::default();
    (limits.rooms_per_connection, limits.message_rate) = (0, 0);
    let hub = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).limits(limits);
    let hub = hub.shards(1).start().await.expect("the bus is there");
    let start = Instant::now();
    let client = Client::in_rooms(&hub, (0..TOPICS).map(|n| format!("topic {n}"))).await;
    println!("{TOPICS} topics joined and subscribed in {} ms", start.elapsed().as_millis());
    (hub, client)
}

/// Publishes in a topic, again while the bus is away.
async fn publish(hub: &Hub, topic: u64, number: u64) {
    let room = RoomId::new(format!("topic {topic}")).expect("it is a name");
    let message = Message::of("news", &number).expect("a number is JSON");
    let publication = Publication::new(Topic::room(TenantId::default(), room), message);
    while hub.publish(publication.clone()).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes once in each topic; the client hears all of them.
async fn every_topic_is_heard(hub: &Hub, client: &Client, first: u64) {
    for n in 0..TOPICS {
        publish(hub, n, first + n).await;
    }
    client.hears(&(first..first + TOPICS).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn ten_thousand_topics_are_subscribed_again() {
    let mut redis = Redis::start(Options::default()).await;
    let [bus, _] = two(&redis.url(), config()).await;
    let (hub, client) = node(Arc::new(bus.clone())).await;
    every_topic_is_heard(&hub, &client, 0).await;
    redis.kill9();
    until("the node to notice", async || !hub.is_ready()).await;
    redis.restart().await;
    let start = Instant::now();
    until("every topic to be subscribed", async || bus.stats().subscriptions > TOPICS).await;
    until("the node to be ready", async || hub.is_ready()).await;
    println!(
        "{TOPICS} topics subscribed again {} ms after the restart",
        start.elapsed().as_millis()
    );
    every_topic_is_heard(&hub, &client, TOPICS).await;
}

#[tokio::test]
async fn ten_thousand_topics_while_nobody_watches() {
    let mut redis = Redis::start(Options::default()).await;
    let [bus, _] = deaf(&redis.url()).await;
    let (hub, client) = node(bus).await;
    redis.kill9();
    redis.restart().await;
    publish(&hub, 0, 0).await;
    assert!(timeout(Duration::from_secs(15), client.hears(&[0])).await.is_err());
}

const TOPICS: u64 = 10_000;
