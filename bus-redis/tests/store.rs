//! What the store remembers, and when it admits that it may have lost something.

use std::time::Duration;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{
    Bus, BusError, History, HistoryPage, Message, Position, Publication, Retention, RoomId,
    TenantId, Topic,
};
use tidings_redis_testing::{Options, Redis, Reply, in_time, until};

async fn node(redis: &Redis, config: RedisConfig) -> RedisBus {
    in_time("a bus", RedisBus::connect(&redis.url(), config)).await.expect("Redis is there")
}

fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("a name"))
}

async fn keep(bus: &RedisBus, topic: &Topic, age: Duration) -> Position {
    let publication = Publication::new(topic.clone(), Message::empty("news").expect("a type"));
    let publication = publication.retention(Retention { count: 10, age });
    let answers = in_time("a publish", bus.publish(vec![publication])).await;
    let receipt = answers.into_iter().next().expect("an answer").expect("it is accepted");
    receipt.position.expect("it is kept")
}

async fn after(bus: &RedisBus, topic: &Topic, clock: u64) -> HistoryPage {
    in_time("a page", bus.after(topic, clock, 100)).await.expect("Redis is there")
}

async fn epoch(bus: &RedisBus) -> u64 {
    in_time("tops", bus.tops(0, &[])).await.expect("Redis is there").epoch
}

#[tokio::test]
async fn a_topic_that_was_forgotten_never_goes_back_and_admits_it() {
    let redis = Redis::start(Options::default()).await;
    let mut config = RedisConfig::default();
    config.record_lifetime = Duration::from_secs(1);
    let bus = node(&redis, config).await;
    let (brief, other) = (room("brief"), room("other"));
    let age = Duration::from_millis(100);
    let mut last = keep(&bus, &brief, age).await;
    for _ in 0..2 {
        last = keep(&bus, &brief, age).await;
    }
    let record = "tidings:{0}:record:r::brief";
    until("the record to be forgotten", async || {
        redis.cli(&["EXISTS", record]).await == Reply::Int(0)
    })
    .await;
    let between = keep(&bus, &other, LONG).await;
    assert!(!after(&bus, &brief, last.clock - 1).await.whole, "it may have had more");
    let again = keep(&bus, &brief, LONG).await;
    assert!(again.offset > last.offset, "{again:?} after {last:?}");
    assert!(again.offset <= again.clock);
    assert_eq!(again.epoch, last.epoch);
    assert!(!after(&bus, &brief, last.clock - 1).await.whole, "it had the last");
    let page = after(&bus, &brief, between.clock).await;
    assert!(page.whole && page.deliveries.len() == 1, "{page:?}");
}

#[tokio::test]
async fn a_topic_that_never_was_is_whole_for_a_cursor_of_its_time() {
    let redis = Redis::start(Options::default()).await;
    let bus = node(&redis, RedisConfig::default()).await;
    for _ in 0..3 {
        keep(&bus, &room("busy"), LONG).await;
    }
    assert!(after(&bus, &room("never"), 0).await.whole);
    assert!(after(&bus, &room("never"), 2).await.whole);
}

#[tokio::test]
async fn positions_survive_a_restart_with_persistence() {
    let mut redis = Redis::start(Options::default().persistent()).await;
    let bus = node(&redis, RedisConfig::default()).await;
    let topic = room("lobby");
    let before = keep(&bus, &topic, LONG).await;
    redis.kill9();
    redis.restart().await;
    until("the bus to be back", async || bus.tops(0, &[]).await.is_ok()).await;
    let next = keep(&bus, &topic, LONG).await;
    assert_eq!((next.epoch, next.offset), (before.epoch, before.offset + 1));
    assert!(after(&bus, &topic, before.clock).await.whole);
}

/// The epoch before a restart, and after it.
async fn over_a_restart(options: Options, says: &str) -> (u64, u64) {
    let mut redis = Redis::start(options).await;
    let url = format!("{}?durable={says}", redis.url());
    let connect = RedisBus::connect(&url, RedisConfig::default());
    let bus = in_time("a bus", connect).await.expect("Redis is there");
    let before = keep(&bus, &room("lobby"), LONG).await;
    redis.cli(&["SAVE"]).await.ok();
    redis.kill9();
    redis.restart().await;
    until("the bus to be back", async || bus.tops(0, &[]).await.is_ok()).await;
    (before.epoch, epoch(&bus).await)
}

#[tokio::test]
async fn the_url_goes_before_what_redis_says_of_its_disk() {
    let (before, after) = over_a_restart(Options::default().persistent(), "0").await;
    assert_ne!(before, after);
    let (before, after) = over_a_restart(Options::default(), "1").await;
    assert_eq!(before, after);
}

/// What a failover or a restart with old data does: the clock is behind what nodes have seen.
async fn lose_the_tail(redis: &Redis, clock: u64) {
    redis.cli(&["HSET", "tidings:{0}:clock", "clock", &clock.to_string()]).await.ok();
}

#[tokio::test]
async fn a_store_that_is_behind_a_node_has_a_new_epoch() {
    let redis = Redis::start(Options::default()).await;
    let bus = node(&redis, RedisConfig::default()).await;
    let topic = room("lobby");
    let first = keep(&bus, &topic, LONG).await;
    let second = keep(&bus, &topic, LONG).await;
    assert_eq!(epoch(&bus).await, first.epoch);
    lose_the_tail(&redis, first.clock).await;
    let newcomer = node(&redis, RedisConfig::default()).await;
    assert_eq!(epoch(&newcomer).await, first.epoch, "who has seen nothing cannot know");
    let renewed = epoch(&bus).await;
    assert_ne!(renewed, second.epoch);
    assert_eq!((epoch(&bus).await, epoch(&newcomer).await), (renewed, renewed), "renewed once");
}

fn kept(name: &str) -> Publication {
    let publication = Publication::new(room(name), Message::empty("news").expect("a type"));
    publication.retention(Retention { count: 10, age: LONG })
}

#[tokio::test]
async fn a_stream_that_refuses_what_follows_begins_anew() {
    let redis = Redis::start(Options::default()).await;
    let bus = node(&redis, RedisConfig::default()).await;
    for _ in 0..5 {
        keep(&bus, &room("lobby"), LONG).await;
    }
    redis.cli(&["DEL", "tidings:{0}:clock"]).await.ok();
    let batch = vec![kept("other"), kept("lobby"), kept("third"), kept("lobby")];
    let answers = in_time("a publish", bus.publish(batch)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let page = after(&bus, &room("lobby"), 0).await;
    let clocks: Vec<_> = page.deliveries.iter().map(|d| d.position.map(|p| p.clock)).collect();
    assert_eq!(
        (page.whole, clocks),
        (false, vec![Some(2), Some(4)]),
        "what was before is told to be missing"
    );
    assert!(after(&bus, &room("lobby"), 2).await.whole);
    for name in ["other", "third"] {
        assert_eq!(after(&bus, &room(name), 0).await.deliveries.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_one_topic_meets_is_answered_in_its_place() {
    let redis = Redis::start(Options::default()).await;
    let bus = node(&redis, RedisConfig::default()).await;
    redis.cli(&["SET", "tidings:{0}:record:r::lobby", "another's"]).await.ok();
    let answers =
        in_time("a publish", bus.publish(vec![kept("a"), kept("lobby"), kept("b")])).await;
    let [Ok(a), Err(BusError::Refused(text)), Ok(b)] = &answers[..] else { panic!("{answers:?}") };
    assert!(text.contains("WRONGTYPE"), "{text}");
    for (name, receipt) in [("a", a), ("b", b)] {
        let page = after(&bus, &room(name), 0).await;
        assert_eq!((page.deliveries.len(), page.whole), (1, true));
        assert_eq!(page.deliveries[0].position, receipt.position);
    }
}

#[tokio::test]
async fn the_probe_renews_the_epoch_and_restores_the_secret() {
    let redis = Redis::start(Options::default()).await;
    let mut config = RedisConfig::default();
    config.probe_interval = Duration::from_millis(50);
    let bus = node(&redis, config).await;
    let link = in_time("a link", bus.connect(0)).await.expect("Redis is there");
    let secret = in_time("the key", bus.cursor_key()).await.expect("Redis is there");
    let seen = keep(&bus, &room("lobby"), LONG).await;
    lose_the_tail(&redis, 0).await;
    until("a new epoch", async || {
        redis.cli(&["HGET", "tidings:{0}:clock", "epoch"]).await.text() != seen.epoch.to_string()
    })
    .await;
    redis.cli(&["FLUSHALL"]).await.ok();
    until("the secret", async || !redis.cli(&["GET", "tidings:{0}:secret"]).await.is_nil()).await;
    let newcomer = node(&redis, RedisConfig::default()).await;
    assert_eq!(in_time("the key", newcomer.cursor_key()).await.expect("Redis is there"), secret);
    drop(link);
}

#[tokio::test]
async fn everything_but_the_partition_itself_ends_by_itself() {
    let redis = Redis::start(Options::default()).await;
    let bus = node(&redis, RedisConfig::default()).await;
    let publication = Publication::new(room("lobby"), Message::empty("news").expect("a type"));
    let publication = publication.retention(Retention { count: 10, age: LONG });
    let answers = bus.publish(vec![publication.idempotency_key("once: {*}")]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut keys: Vec<_> =
        redis.cli(&["KEYS", "*"]).await.list().into_iter().map(Reply::text).collect();
    keys.sort();
    let forever = ["tidings:{0}:clock", "tidings:{0}:samples"];
    for key in &keys {
        let ttl = redis.cli(&["PTTL", key]).await.int();
        assert_eq!(forever.contains(&key.as_str()), ttl == -1, "{key}");
    }
    let names = [
        "clock",
        "messages:r::lobby",
        "receipt:r::lobby:once%3A%20%7B%2A%7D",
        "record:r::lobby",
        "samples",
    ];
    assert_eq!(keys, names.map(|name| format!("tidings:{{0}}:{name}")));
}

const LONG: Duration = Duration::from_secs(600);
