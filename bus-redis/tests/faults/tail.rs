//! A Redis that is killed and comes back as of its last save: clients are told what they may have missed, whoever speaks
//! to it first.

use std::sync::Arc;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::testing::hub_laws::scene::{Client, hub, news, publish, room};
use tidings_core::{Bus, Hub};
use tidings_redis_testing::{Cluster, Options, Redis, SentinelTrio, in_time, until};

use crate::failover::{cluster_url, sentinel_url};

/// Servers that lose what they have not saved.
trait Store {
    fn url(&self) -> String;
    fn servers(&mut self) -> &mut [Redis];
    async fn settled(&self) {}

    async fn save(&mut self) {
        for server in self.servers() {
            server.cli(&["SAVE"]).await.ok();
        }
    }

    async fn dies_and_comes_back(&mut self) {
        self.servers().iter_mut().for_each(Redis::kill9);
        for server in self.servers() {
            server.restart().await;
        }
        self.settled().await;
    }
}

impl Store for [Redis; 1] {
    fn url(&self) -> String {
        self[0].url()
    }

    fn servers(&mut self) -> &mut [Redis] {
        self
    }
}

impl Store for [Redis; 3] {
    fn url(&self) -> String {
        let hosts: Vec<_> = self.iter().map(|redis| redis.address().to_string()).collect();
        format!("redis://{}", hosts.join(","))
    }

    fn servers(&mut self) -> &mut [Redis] {
        self
    }
}

impl Store for SentinelTrio {
    fn url(&self) -> String {
        sentinel_url(self)
    }

    fn servers(&mut self) -> &mut [Redis] {
        &mut self.servers
    }

    async fn settled(&self) {
        Self::settled(self).await;
    }
}

impl Store for Cluster {
    fn url(&self) -> String {
        cluster_url(self)
    }

    fn servers(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    async fn settled(&self) {
        Self::settled(self).await;
    }
}

async fn node(url: &str) -> Hub {
    let bus = in_time("a bus", RedisBus::connect(url, RedisConfig::default())).await;
    hub(&(Arc::new(bus.expect("Redis is there")) as Arc<dyn Bus>)).await
}

/// Insists that a client hears all of these before the last, or of a gap in the room.
async fn hears_or_is_told(client: &mut Client, numbers: &[u32], last: u32) {
    let mut heard = Vec::new();
    while heard.last() != Some(&u64::from(last)) {
        let text = in_time("the last message", client.pipe.next()).await.expect("it goes on");
        let message: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        match (message["type"].as_str(), message["payload"]["roomId"].as_str()) {
            (Some("gap"), Some("r")) => return,
            (Some("news"), _) => heard.extend(message["payload"].as_u64()),
            _ => {}
        }
    }
    let all = numbers.iter().all(|number| heard.contains(&u64::from(*number)));
    assert!(all, "of {numbers:?} it heard {heard:?}, and no gap was told");
}

/// Everything goes down at once, nodes too. Others publish before the client is back with its cursor.
async fn a_tail_is_lost_with_all_nodes(mut store: impl Store) {
    let topic = room("r");
    let first = node(&store.url()).await;
    let mut client = Client::connect(&first, "u").await;
    client.join("r").await;
    publish(&first, news(&topic, 1)).await;
    client.hears(1).await;
    store.save().await;
    for number in 2..=4 {
        publish(&first, news(&topic, number)).await;
        client.hears(number).await;
    }
    let back = client.back(&["r"]);
    drop((client, first));
    store.dies_and_comes_back().await;
    let second = node(&store.url()).await;
    for number in 11..=14 {
        publish(&second, news(&topic, number)).await;
    }
    let (mut client, _) = Client::connect_with(&second, "u", back).await;
    publish(&second, news(&topic, 15)).await;
    hears_or_is_told(&mut client, &[11, 12, 13, 14], 15).await;
}

/// A node and its client stay up. Before it may speak to Redis again, another that has seen nothing publishes.
async fn a_tail_is_lost_and_another_node_is_first(mut store: impl Store) {
    let topic = room("r");
    lets_in(&mut store).await;
    let late = node(&store.url().replacen("://", "://late:secret@", 1)).await;
    let mut client = Client::connect(&late, "u").await;
    client.join("r").await;
    publish(&late, news(&topic, 1)).await;
    client.hears(1).await;
    store.save().await;
    for number in 2..=4 {
        publish(&late, news(&topic, number)).await;
        client.hears(number).await;
    }
    // The user is lost with the tail, and the node shut out.
    store.dies_and_comes_back().await;
    let first = node(&store.url()).await;
    for number in 11..=14 {
        publish(&first, news(&topic, number)).await;
    }
    lets_in(&mut store).await;
    until("the node to be back", async || late.is_ready()).await;
    publish(&first, news(&topic, 15)).await;
    hears_or_is_told(&mut client, &[11, 12, 13, 14], 15).await;
}

async fn lets_in(store: &mut impl Store) {
    for server in store.servers() {
        let user = ["ACL", "SETUSER", "late", "on", ">secret", "~*", "&*", "+@all"];
        server.cli(&user).await.ok();
    }
}

async fn redis() -> Redis {
    Redis::start(Options::default()).await
}

macro_rules! tails {
    ($($name:ident: $store:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn a_tail_is_lost_with_all_nodes() {
                super::a_tail_is_lost_with_all_nodes($store).await;
            }

            #[tokio::test]
            async fn a_tail_is_lost_and_another_node_is_first() {
                super::a_tail_is_lost_and_another_node_is_first($store).await;
            }
        }
    )*};
}

tails! {
    standalone: [redis().await];
    shards: [redis().await, redis().await, redis().await];
    sentinel: SentinelTrio::start(Options::default()).await;
    cluster: Cluster::start(Options::default()).await;
}
