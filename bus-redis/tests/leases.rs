//! Leases over what takes the place of a server: it may have a lease and lack what was claimed under it.

use std::sync::Arc;
use std::time::Duration;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::testing::hub_laws::scene::{Client, room};
use tidings_core::{
    AllowAll, Anonymous, Claim, Hub, LeaseId, Presence, TopicOptions, TopicRules, UserId,
};
use tidings_redis_testing::{Options, Redis, Reply, SENTINEL_MASTER, SentinelTrio, in_time, until};

async fn node(url: &str) -> RedisBus {
    in_time("a bus", RedisBus::connect(url, RedisConfig::default())).await.expect("Redis is there")
}

fn claim(user: &str) -> [Claim; 1] {
    [Claim { topic: room("lobby"), user: UserId::new(user).expect("a name"), connections: 1 }]
}

/// Redis comes back as of its last save: with the lease, and without a claim that was made later.
#[tokio::test]
async fn a_lease_does_not_outlive_a_server_that_lost_the_tail() {
    let mut redis = Redis::start(Options::default()).await;
    let bus = node(&redis.url()).await;
    let [first, second] = ["first", "second"].map(|name| LeaseId::new(name).expect("a name"));
    bus.begin(0, &first, LONG).await.expect("Redis is there");
    for user in ["ann", "bob"] {
        let claimed = bus.claim(0, &first, &claim(user)).await;
        assert!(claimed.expect("Redis is there").is_some());
        if user == "ann" {
            redis.cli(&["SAVE"]).await.ok();
        }
    }
    assert!(bus.renew(0, &first, LONG).await.expect("Redis is there"));
    redis.kill9();
    redis.restart().await;
    assert_eq!(redis.cli(&["ZCARD", "tidings:{0}:leases"]).await, Reply::Int(1));
    until("Redis to be asked", async || bus.renew(0, &first, LONG).await.is_ok()).await;
    for _ in 0..2 {
        assert!(!bus.renew(0, &first, LONG).await.expect("Redis is there"), "it lacks a claim");
        let claimed = bus.claim(0, &first, &claim("bob")).await;
        assert_eq!(claimed.expect("Redis is there"), None);
    }
    bus.begin(0, &second, LONG).await.expect("Redis is there");
    let claimed = bus.claim(0, &second, &claim("bob")).await.expect("Redis is there");
    assert_eq!(claimed.expect("the lease lives")[0].before, 0);
}

/// A primary that was a replica has the lease and lacks all claims: the node makes them again.
#[tokio::test]
async fn a_failover_that_lost_the_claims_is_mended() {
    let trio = SentinelTrio::start(Options::default()).await;
    let hosts = trio.addresses().map(|address| address.to_string());
    let bus = node(&format!("redis+sentinel://{}/{SENTINEL_MASTER}", hosts.join(","))).await;
    let mut options = TopicOptions::default();
    options.presence = true;
    let builder = Hub::builder(Arc::new(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    let hub = builder.topics(TopicRules::all(options)).start().await.expect("Redis is there");
    let mut client = Client::connect(&hub, "ann").await;
    client.join("lobby").await;
    let present = async |count| hub.count_present(&room("lobby")).await.is_ok_and(|n| n == count);
    until("the claim", async || present(1).await).await;
    let [primary, replica] = &trio.servers;
    let offset = async |server: &Redis, field: &str| {
        let info = server.cli(&["INFO", "replication"]).await.text();
        info.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
    };
    until("the replica to have the lease", async || {
        let theirs = offset(replica, "slave_repl_offset:").await;
        theirs.is_some() && theirs == offset(primary, "master_repl_offset:").await
    })
    .await;
    replica.config_set("replica-read-only", "no").await;
    let lost = replica.cli(&["KEYS", "tidings:*:users:*lobby"]).await.list();
    let lost: Vec<_> = lost.into_iter().map(Reply::text).collect();
    assert_eq!(lost.len(), 1, "the users of the room: {lost:?}");
    replica.cli(&["DEL", &lost[0]]).await.ok();
    for claims in replica.cli(&["KEYS", "tidings:*:claims:*"]).await.list() {
        replica.cli(&["DEL", &claims.text()]).await.ok();
    }
    trio.sentinels[0].cli(&["SENTINEL", "FAILOVER", SENTINEL_MASTER]).await.ok();
    trio.promoted(1).await;
    assert_ne!(replica.cli(&["ZCARD", "tidings:{0}:leases"]).await, Reply::Int(0), "it is there");
    until("the claim to be made again", async || {
        replica.cli(&["EXISTS", &lost[0]]).await == Reply::Int(1)
    })
    .await;
    until("the node to see it", async || present(1).await).await;
    drop(client);
}

const LONG: Duration = Duration::from_secs(600);
