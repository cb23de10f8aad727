//! A Redis that is full: it keeps nothing more, and nodes start, stay and read all the same.

use std::sync::Arc;
use std::time::Duration;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, Claim, History, Hub, LeaseId, Message, Presence,
    Publication, Receipt, Retention, RoomId, Tally, TenantId, Topic, UserId,
};
use tidings_redis_testing::{
    Cluster, Options, Redis, SENTINEL_MASTER, SentinelTrio, in_time, until,
};

async fn node(url: &str) -> RedisBus {
    in_time("a bus", RedisBus::connect(url, RedisConfig::default())).await.expect("Redis is there")
}

fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("a name"))
}

async fn one(bus: &RedisBus, publication: Publication) -> Result<Receipt, BusError> {
    in_time("an answer", bus.publish(vec![publication])).await.remove(0)
}

fn passing() -> Publication {
    Publication::new(room("lobby"), Message::empty("news").expect("a type"))
}

fn kept() -> Publication {
    passing().retention(Retention { count: 10, age: Duration::from_secs(600) })
}

async fn fill(servers: &[Redis]) {
    for server in servers {
        server.config_set("maxmemory", "1mb").await;
    }
}

async fn hub(url: &str) -> Hub {
    let bus = Arc::new(node(url).await);
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll));
    in_time("a node to start", builder.start()).await.expect("the bus is there")
}

async fn claimed(bus: &RedisBus, lease: &LeaseId, connections: u32) -> Tally {
    let topic = room("lobby");
    let partition = bus.partition(&topic);
    let claim = [Claim { topic, user: UserId::new("ann").expect("a name"), connections }];
    let tallies = bus.claim(partition, lease, &claim).await.expect("it may be claimed");
    tallies.expect("the lease lives").remove(0)
}

/// All of it but what a failover does.
async fn serves_though_full(url: &str, servers: &[Redis]) {
    let first = hub(url).await;
    let bus = node(url).await;
    one(&bus, kept()).await.expect("there is room");
    let [stays, dies] = ["stays", "dies"].map(|name| LeaseId::new(name).expect("a name"));
    let lobby = bus.partition(&room("lobby"));
    for lease in [&stays, &dies] {
        bus.begin(lobby, lease, LONG).await.expect("there is room");
        claimed(&bus, lease, 1).await;
    }
    assert_eq!(bus.renew(lobby, &dies, Duration::from_millis(1)).await.ok(), Some(true));
    fill(servers).await;
    let refused = one(&bus, kept()).await;
    assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
    one(&bus, passing()).await.expect("what is not kept passes");

    let second = hub(url).await;
    assert!(first.is_ready() && second.is_ready());
    assert_eq!(bus.renew(lobby, &stays, LONG).await.ok(), Some(true), "its lease goes on");
    // Who is on one node still is not gone with the other, whose lease has run out.
    until("the claims of the other to be ended", async || {
        let gone = bus.expire(lobby).await.expect("it may be ended");
        assert_eq!(gone, []);
        claimed(&bus, &stays, 1).await.before == 1
    })
    .await;
    assert_eq!(bus.members(&room("lobby")).await.expect("it may be read").len(), 1);
    assert_eq!(claimed(&bus, &stays, 0).await, Tally { before: 1, after: 0 });
    let late = LeaseId::new("late").expect("a name");
    bus.begin(lobby, &late, LONG).await.expect("a lease begins");
    assert_eq!(claimed(&bus, &late, 1).await, Tally { before: 0, after: 1 });
}

#[tokio::test]
async fn one_redis() {
    let redis = [Redis::start(Options::default()).await];
    serves_though_full(&redis[0].url(), &redis).await;
}

#[tokio::test]
async fn a_cluster() {
    let cluster = Cluster::start(Options::default()).await;
    let hosts: Vec<_> = cluster.addresses().iter().map(ToString::to_string).collect();
    serves_though_full(&format!("redis+cluster://{}", hosts.join(",")), &cluster.nodes).await;
}

/// Another server, as full as the one whose place it takes, may lack the tail: that is told, and the rest is read.
#[tokio::test]
async fn a_failover() {
    let trio = SentinelTrio::start(Options::default()).await;
    let hosts = trio.addresses().map(|address| address.to_string());
    let url = format!("redis+sentinel://{}/{SENTINEL_MASTER}", hosts.join(","));
    serves_though_full(&url, &trio.servers).await;
    let bus = node(&url).await;
    let before = bus.tops(0, &[]).await.expect("it may be read");
    trio.sentinels[0].cli(&["SENTINEL", "FAILOVER", SENTINEL_MASTER]).await.ok();
    trio.promoted(1).await;
    until("the new primary to be read", async || {
        let tops = in_time("an answer", bus.tops(0, &[])).await;
        tops.is_ok_and(|tops| tops.epoch != before.epoch)
    })
    .await;
    let page = in_time("a page", bus.after(&room("lobby"), 0, 10)).await.expect("it may be read");
    assert_eq!(page.deliveries.len(), 1);
}

const LONG: Duration = Duration::from_secs(600);
