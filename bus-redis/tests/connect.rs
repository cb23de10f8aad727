//! Which Redis a bus takes, and what it says of those that it does not.

use std::fs;
use std::time::Duration;

use futures_util::StreamExt;
use tidings_bus_redis::{ConnectError, RedisBus, RedisConfig};
use tidings_core::{Bus, BusError, Message, Publication, RoomId, TenantId, Topic};
use tidings_redis_testing::{Options, Redis, in_time, until};

/// Publishes and hears it.
async fn serves(url: &str, config: RedisConfig) {
    let bus = in_time("a bus", RedisBus::connect(url, config)).await.expect("Redis is there");
    let mut link = in_time("a link", bus.connect(0)).await.expect("Redis is there");
    let topic = Topic::room(TenantId::default(), RoomId::new("lobby").expect("a name"));
    link.interest.subscribe(std::slice::from_ref(&topic)).await.expect("Redis is there");
    let publication = Publication::new(topic, Message::empty("news").expect("a type"));
    let answers = in_time("a publish", bus.publish(vec![publication])).await;
    assert!(answers[0].is_ok(), "{answers:?}");
    let heard = in_time("the message", link.deliveries.next()).await.expect("no end");
    assert_eq!(heard.expect("no error").message.kind.as_str(), "news");
}

/// Why there is no bus.
async fn refuses(url: &str, config: RedisConfig) -> String {
    let answer = in_time("an answer", RedisBus::connect(url, config)).await;
    match answer.expect_err("it must be refused") {
        ConnectError::Bus(error) => error.to_string(),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn tls_with_a_certificate_of_ones_own() {
    let redis = Redis::start(Options::default().tls().password("p:s/w@?")).await;
    let (url, certificates) = redis.tls_url();
    let url = url.replace("p:s/w@?", "p%3As%2Fw%40%3F").replace("127.0.0.1", "localhost");
    let mut config = RedisConfig::default();
    let error = refuses(&url, config.clone()).await;
    assert!(error.contains("certificate"), "{error}");
    config.tls_ca = Some(fs::read(&certificates.authority).expect("it is there"));
    serves(&url, config).await;
}

#[tokio::test]
async fn a_unix_socket() {
    let folder = std::env::temp_dir().join(format!("tidings-socket-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let socket = folder.join("redis.sock");
    let path = socket.to_str().expect("a plain path");
    let redis = Redis::start(Options::default().set("unixsocket", path)).await;
    serves(&format!("redis+unix://{path}?db=3"), RedisConfig::default()).await;
    drop(redis);
    fs::remove_dir_all(folder).expect("it is ours");
}

#[tokio::test]
async fn a_user_with_the_documented_rights() {
    let redis = Redis::start(Options::default()).await;
    let readme = include_str!("../README.md");
    let line = readme.lines().find_map(|line| line.trim().strip_prefix("ACL SETUSER tidings "));
    let rights: Vec<_> = line.expect("the README tells the rights").split(' ').collect();
    redis.cli(&[&["ACL", "SETUSER", "tidings"], &rights[..]].concat()).await.ok();
    let url = redis.url().replace("redis://", "redis://tidings:secret@");
    serves(&url, RedisConfig::default()).await;
}

#[tokio::test]
async fn a_user_without_transactions_is_told_what_to_grant() {
    let redis = Redis::start(Options::default()).await;
    let rights = ["on", ">secret", "~*", "&*", "+@all", "-@transaction"];
    redis.cli(&[&["ACL", "SETUSER", "poor"], &rights[..]].concat()).await.ok();
    let url = redis.url().replace("redis://", "redis://poor:secret@");
    let error = refuses(&url, RedisConfig::default()).await;
    assert!(error.contains("MULTI") && error.contains("+@transaction"), "{error}");
    redis.cli(&["ACL", "SETUSER", "poor", "+@transaction"]).await.ok();
    serves(&url, RedisConfig::default()).await;
}

#[tokio::test]
async fn a_replica_is_refused() {
    let primary = Redis::start(Options::default()).await;
    let of = format!("127.0.0.1 {}", primary.address().port());
    let replica = Redis::start(Options::default().set("replicaof", &of)).await;
    until("the copy", async || replica.is_linked().await).await;
    let error = refuses(&replica.url(), RedisConfig::default()).await;
    assert!(error.contains("is a replica: give the address of its primary"), "{error}");
}

#[tokio::test]
async fn a_redis_that_evicts_is_refused() {
    let options = Options::default().set("maxmemory", "100mb");
    let redis = Redis::start(options.set("maxmemory-policy", "allkeys-lru")).await;
    let error = refuses(&redis.url(), RedisConfig::default()).await;
    assert!(error.contains("maxmemory-policy allkeys-lru"), "{error}");
    let mut config = RedisConfig::default();
    config.allow_eviction = true;
    serves(&redis.url(), config).await;
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let mut config = RedisConfig::default();
    config.connect_timeout = Duration::from_millis(500);
    for url in
        ["redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/x", "redis+cluster://127.0.0.1:1"]
    {
        let error = refuses(url, config.clone()).await;
        assert!(error.contains("127.0.0.1:1"), "{error}");
    }
    // A listener that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", silent.local_addr().expect("it has one"));
    let error = refuses(&url, config).await;
    assert!(error.contains("does not answer"), "{error}");
}

#[tokio::test]
async fn a_sentinel_that_knows_no_such_primary_says_so() {
    let redis = Redis::start(Options::default()).await;
    // Not even a Sentinel, which is the likelier mistake.
    let url = redis.url().replace("redis://", "redis+sentinel://") + "/nobody";
    let answer = RedisBus::connect(&url, RedisConfig::default()).await;
    assert!(matches!(answer, Err(ConnectError::Bus(BusError::Refused(_)))), "{answer:?}");
}

#[tokio::test]
async fn nothing_shows_the_password() {
    let redis = Redis::start(Options::default().password("hushhush")).await;
    let bus = RedisBus::connect(&redis.url(), RedisConfig::default()).await;
    let bus = bus.expect("Redis is there");
    let shown = format!("{bus:?} {:?}", bus.stats());
    assert!(!shown.contains("hushhush") && shown.contains("127.0.0.1"), "{shown}");
}

#[tokio::test]
async fn a_server_that_repeats_what_it_does_not_know_is_not_quoted() {
    let options = Options::default().set("rename-command", "HELLO \"\"").password("hushhush");
    let redis = Redis::start(options).await;
    let error = refuses(&redis.url(), RedisConfig::default()).await;
    assert!(error.contains("HELLO") && !error.contains("hushhush"), "{error}");
}

#[tokio::test]
async fn a_wrong_configuration_is_told() {
    let mut config = RedisConfig::default();
    config.prefix = "a{b}".to_owned();
    let answer = RedisBus::connect("redis://127.0.0.1:1", config).await;
    assert!(matches!(answer, Err(ConnectError::Configuration(_))), "{answer:?}");
    let mut config = RedisConfig::default();
    config.durable = Some(true);
    for url in ["redis+sentinel://127.0.0.1:1/x", "redis+cluster://127.0.0.1:1"] {
        let answer = RedisBus::connect(url, config.clone()).await;
        assert!(matches!(answer, Err(ConnectError::Configuration(_))), "{answer:?}");
    }
    for (partitions, taken) in [(0, false), (64, true), (65, false)] {
        let mut config = RedisConfig::default();
        config.partitions = partitions;
        let answer = RedisBus::connect("redis://127.0.0.1:1", config).await;
        assert_eq!(matches!(answer, Err(ConnectError::Bus(_))), taken, "{partitions}: {answer:?}");
    }
    for (servers, taken) in [(64, true), (65, false)] {
        let hosts: Vec<_> = (1..=servers).map(|port| format!("127.0.0.1:{port}")).collect();
        let url = format!("redis://{}", hosts.join(","));
        let answer = RedisBus::connect(&url, RedisConfig::default()).await;
        assert_eq!(matches!(answer, Err(ConnectError::Bus(_))), taken, "{servers}: {answer:?}");
        assert!(taken || format!("{answer:?}").contains("at most 64"), "{answer:?}");
    }
    let twice = RedisBus::connect("redis://127.0.0.1:1,127.0.0.1:1", RedisConfig::default()).await;
    assert!(matches!(twice, Err(ConnectError::Configuration(_))), "{twice:?}");
}
