//! What publishers are told: who was refused, what was not done, and what may have been.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{
    Bus, BusError, Message, Publication, Receipt, Retention, RoomId, TenantId, Topic,
};
use tidings_redis_testing::{Cluster, Options, Proxy, Redis, in_time, until};
use tokio::time::sleep;

fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("a name"))
}

fn publication(topic: &Topic, number: usize) -> Publication {
    Publication::new(topic.clone(), Message::of("number", &number).expect("a message"))
}

fn kept(topic: &Topic) -> Publication {
    let mut kept = publication(topic, 0);
    kept.retention = Some(Retention { count: 9, age: Duration::from_secs(9) });
    kept
}

async fn one(bus: &RedisBus, publication: Publication) -> Result<Receipt, BusError> {
    in_time("an answer", bus.publish(vec![publication])).await.remove(0)
}

fn quiet() -> RedisConfig {
    let mut config = RedisConfig::default();
    config.deadline = Duration::from_secs(2);
    // Nothing but publications is sent.
    config.probe_interval = Duration::ZERO;
    config
}

async fn bus(url: &str, config: RedisConfig) -> RedisBus {
    in_time("a bus", RedisBus::connect(url, config)).await.expect("Redis is there")
}

#[tokio::test]
async fn who_lacks_a_right_is_refused_alone() {
    let redis = Redis::start(Options::default()).await;
    let user = ["ACL", "SETUSER", "bus", "on", ">secret", "~*", "+@all", "resetchannels"];
    redis.cli(&[&user[..], &["&tidings:{0}:r::open"]].concat()).await.ok();
    let bus = bus(&redis.url().replace("redis://", "redis://bus:secret@"), quiet()).await;
    let (open, shut) = (room("open"), room("shut"));
    for _ in 0..20 {
        // They share calls, since all of them publish at once.
        let all = (0..100).map(|n| one(&bus, publication([&open, &shut][n % 2], n)));
        for (n, answer) in join_all(all).await.into_iter().enumerate() {
            match answer {
                Ok(_) => assert_eq!(n % 2, 0),
                Err(BusError::Refused(text)) => assert!(n % 2 == 1 && text.contains("NOPERM")),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(bus.stats().publish_errors.no_permission, 20 * 50);
}

#[tokio::test]
async fn too_few_replicas_make_it_unavailable_until_they_are_back() {
    let redis = Redis::start(Options::default()).await;
    let bus = bus(&redis.url(), quiet()).await;
    redis.config_set("min-replicas-to-write", "1").await;
    for publication in [publication(&room("passing"), 1), kept(&room("kept"))] {
        let answer = one(&bus, publication).await;
        let Err(BusError::Unavailable(text)) = answer else { panic!("{answer:?}") };
        assert!(text.contains("min-replicas-to-write"), "{text}");
    }
    assert_eq!(bus.stats().publish_errors.no_replicas, 2);
    redis.config_set("min-replicas-to-write", "0").await;
    assert!(one(&bus, kept(&room("kept"))).await.is_ok());
}

/// Who is told `Unavailable` can publish again without a repeat: it was not done, and never will be.
#[tokio::test]
async fn what_is_unavailable_was_not_done_and_what_was_sent_may_be() {
    let redis = Redis::start(Options::default()).await;
    let listening = bus(&redis.url(), quiet()).await;
    let publishing = bus(&redis.url(), quiet()).await;
    let topic = room("lobby");
    let mut link = in_time("a link", listening.connect(0)).await.expect("Redis is there");
    link.interest.subscribe(std::slice::from_ref(&topic)).await.expect("Redis is there");

    redis.sigstop();
    let answers = join_all((0..3000).map(|n| one(&publishing, publication(&topic, n)))).await;
    redis.sigcont();
    let told = |wanted: fn(&BusError) -> bool| {
        let all = answers.iter().enumerate();
        let some = all.filter(|(_, answer)| answer.as_ref().is_err_and(wanted));
        some.map(|(n, _)| n).collect::<BTreeSet<_>>()
    };
    let not_done = told(|error| matches!(error, BusError::Unavailable(_)));
    let perhaps = told(|error| matches!(error, BusError::TimedOut));
    assert_eq!(not_done.len() + perhaps.len(), 3000, "nothing was answered by Redis");
    assert!(!not_done.is_empty() && !perhaps.is_empty(), "{} may be done", perhaps.len());
    // What nobody waits for any more is dropped when its turn comes.
    until("nothing to wait", async || publishing.stats().publish_bytes == 0).await;
    until("Redis to be commanded again", async || {
        one(&publishing, publication(&topic, 3000)).await.is_ok()
    })
    .await;
    loop {
        let heard = in_time("the last message", link.deliveries.next()).await.expect("no end");
        let payload = heard.expect("no error").message.payload.expect("a number");
        let number: usize = serde_json::from_slice(payload.bytes()).expect("a number");
        if number == 3000 {
            break;
        }
        assert!(perhaps.contains(&number), "{number} was told to be unavailable");
    }
}

/// A call of its own.
fn long(topic: &Topic, number: usize) -> Publication {
    let text = "x".repeat(300 << 10);
    Publication::new(topic.clone(), Message::of("number", &(number, text)).expect("a message"))
}

#[tokio::test]
async fn what_ends_while_a_connection_is_opened_is_not_sent_on_it() {
    let redis = Redis::start(Options::default()).await;
    let proxy = Proxy::to(redis.address()).await;
    let listening = bus(&redis.url(), quiet()).await;
    let publishing = bus(&format!("redis://{}", proxy.address()), quiet()).await;
    let topic = room("lobby");
    let mut link = in_time("a link", listening.connect(0)).await.expect("Redis is there");
    link.interest.subscribe(std::slice::from_ref(&topic)).await.expect("Redis is there");

    redis.sigstop();
    // As many as are sent before one is answered; the last waits for its turn.
    let calls = join_all((0..4).map(|n| one(&publishing, long(&topic, n))));
    let last = async {
        let last = one(&publishing, long(&topic, 4));
        // Its turn comes when the connection breaks, and its time ends before the next one is there.
        let breaks = async {
            sleep(quiet().deadline / 2).await;
            proxy.reset();
        };
        tokio::join!(last, breaks).0
    };
    let (_, last) = tokio::join!(calls, last);
    redis.sigcont();
    assert!(matches!(last, Err(BusError::Unavailable(_))), "{last:?}");
    until("Redis to be commanded again", async || {
        one(&publishing, publication(&topic, 5)).await.is_ok()
    })
    .await;
    loop {
        let heard = in_time("the last message", link.deliveries.next()).await.expect("no end");
        let payload = heard.expect("no error").message.payload.expect("a number");
        assert!(!payload.bytes().starts_with(b"[4,"), "it was told to be unavailable");
        if payload.bytes().as_ref() == b"5" {
            break;
        }
    }
}

/// Topics of two servers.
fn apart(bus: &RedisBus) -> [Topic; 2] {
    let of = |partition| {
        let mut rooms = (0..).map(|n| room(&format!("room{n}")));
        rooms.find(|topic| bus.partition(topic) == partition).expect("there are many")
    };
    [of(0), of(1)]
}

#[tokio::test]
async fn a_partition_that_hangs_has_no_other_refused() {
    let servers = [Redis::start(Options::default()).await, Redis::start(Options::default()).await];
    let mut addresses: Vec<_> = servers.iter().map(|redis| redis.address().to_string()).collect();
    addresses.sort();
    let mut config = quiet();
    config.publish_bytes = 64 << 10;
    let bus = bus(&format!("redis://{}", addresses.join(",")), config).await;
    let [hangs, serves] = apart(&bus);
    let first = servers.iter().find(|redis| redis.address().to_string() == addresses[0]);
    first.expect("it is one of them").sigstop();
    let flood = join_all((0..1000).map(|n| one(&bus, publication(&hangs, n))));
    let others = async {
        until("its share to be full", async || bus.stats().publish_errors.away > 0).await;
        let waiting = bus.stats().publish_bytes;
        assert!(waiting > 16 << 10 && waiting <= 32 << 10, "half of it, not {waiting}");
        join_all((0..20).map(|n| one(&bus, publication(&serves, n)))).await
    };
    let (flood, others) = tokio::join!(flood, others);
    assert!(flood.iter().all(Result::is_err));
    assert!(others.iter().all(Result::is_ok), "{others:?}");
}

/// The key that ends so.
async fn record(cluster: &Cluster, end: &str) -> String {
    for node in &cluster.nodes {
        let keys = node.cli(&["KEYS", &format!("*{end}")]).await.list();
        if let Some(key) = keys.into_iter().next() {
            return key.text();
        }
    }
    panic!("nobody has a key for {end}");
}

#[tokio::test]
async fn a_slot_that_moves_for_long_is_unavailable_and_costs_nobody_else() {
    let cluster = Cluster::start(Options::default()).await;
    let addresses: Vec<_> = cluster.addresses().iter().map(ToString::to_string).collect();
    let bus = bus(&format!("redis+cluster://{}", addresses.join(",")), quiet()).await;
    let names: Vec<_> = (0..50).map(|n| room(&format!("room{n}"))).collect();
    let mut places = Vec::new();
    for (n, topic) in names.iter().enumerate() {
        assert!(one(&bus, kept(topic)).await.is_ok());
        let slot = cluster.slot(&record(&cluster, &format!("record:r::room{n}")).await).await;
        places.push((slot, cluster.owner(slot).await));
    }
    // A key that is not there is, for all that Redis knows, at the target already.
    for node in &cluster.nodes[..3] {
        node.cli(&["FLUSHALL"]).await.ok();
    }
    let partition = bus.partition(&names[0]);
    let mut link = in_time("a link", bus.connect(partition)).await.expect("the slot is there");
    link.interest.subscribe(&names[..1]).await.expect("the slot is there");
    // Two topics in two partitions of one server.
    let (slot, from) = places[0];
    let other = places.iter().position(|(s, owner)| *s != slot && *owner == from);
    let other = &names[other.expect("a server has several partitions")];

    let to = (0..3).find(|n| *n != from).expect("there are three");
    let (source, target) = (cluster.id(from).await, cluster.id(to).await);
    let slot = slot.to_string();
    cluster.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await.ok();
    cluster.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await.ok();
    let late = one(&bus, publication(&names[0], 1));
    let mut late = std::pin::pin!(late);
    let late = loop {
        tokio::select! {
            biased;
            late = &mut late => break late,
            meanwhile = one(&bus, publication(other, 1)) => assert!(meanwhile.is_ok(), "{meanwhile:?}"),
        }
    };
    assert!(matches!(late, Err(BusError::Unavailable(_))), "{late:?}");
    let stats = bus.stats();
    assert_eq!((stats.publish_errors.moved, stats.reconnects), (1, 0));
    cluster.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "STABLE"]).await.ok();
    cluster.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "STABLE"]).await.ok();
    until("the slot to be served", async || one(&bus, publication(&names[0], 2)).await.is_ok())
        .await;
    let heard = in_time("a message", link.deliveries.next()).await.expect("no end");
    let payload = heard.expect("no error").message.payload.expect("a number");
    assert_eq!(payload.bytes().as_ref(), b"2", "what was unavailable is not sent later");
}
