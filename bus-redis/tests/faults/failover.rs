//! Sentinel and Cluster: primaries that die or hang, and slots that move, under topics that are kept. (The twins do the
//! same to topics that are not.)

use std::time::Duration;

use tidings_redis_testing::{Cluster, Options, Redis, Reply, SENTINEL_MASTER, SentinelTrio, until};
use tokio::time::sleep;

use crate::buses::nodes;
use crate::scene::Scene;

pub(crate) fn sentinel_url(trio: &SentinelTrio) -> String {
    sentinels_url(&trio.sentinels.each_ref())
}

pub(crate) fn sentinels_url(sentinels: &[&Redis]) -> String {
    let addresses: Vec<_> = sentinels.iter().map(|s| s.address().to_string()).collect();
    format!("redis+sentinel://{}/{SENTINEL_MASTER}", addresses.join(","))
}

pub(crate) fn cluster_url(cluster: &Cluster) -> String {
    let addresses: Vec<_> = cluster.addresses().iter().map(ToString::to_string).collect();
    format!("redis+cluster://{}", addresses.join(","))
}

#[tokio::test]
async fn a_primary_is_killed() {
    let mut trio = SentinelTrio::start(Options::default()).await;
    let mut scene = Scene::start_kept_or_gap(nodes(&sentinel_url(&trio)).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            trio.servers[0].kill9();
            trio.promoted(1).await;
            watch.say_ready().await;
            // It calls itself a primary for some seconds.
            trio.servers[0].restart().await;
            trio.settled().await;
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn a_primary_is_killed_and_nobody_asks_the_sentinels() {
    let mut trio = SentinelTrio::start(Options::default()).await;
    let scene = Scene::start(nodes(&trio.servers[0].url()).await).await;
    trio.servers[0].kill9();
    trio.promoted(1).await;
    scene.stays_broken().await;
}

#[tokio::test]
async fn a_primary_hangs_and_wakes_as_a_stale_one() {
    let trio = SentinelTrio::start(Options::default()).await;
    let mut scene = Scene::start_kept_or_gap(nodes(&sentinel_url(&trio)).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            trio.servers[0].sigstop();
            watch.say_away().await;
            trio.promoted(1).await;
            watch.say_ready().await;
            trio.servers[0].sigcont();
            trio.settled().await;
        })
        .await;
    scene.serves_again().await;
}

/// The primary with the most listeners, and a slot in which there are some.
pub(crate) async fn busiest(cluster: &Cluster) -> (usize, u16) {
    let mut most = (0, 0, String::new());
    for (n, node) in cluster.nodes.iter().enumerate() {
        let channels = node.cli(&["PUBSUB", "SHARDCHANNELS"]).await.list();
        let mut rooms = channels.into_iter().map(Reply::text).filter(|name| name.contains(":r:"));
        if let Some(room) = rooms.next() {
            most = most.max((1 + rooms.count(), n, room));
        }
    }
    assert!(most.0 > 0, "somebody listens");
    (most.1, cluster.slot(&most.2).await)
}

#[tokio::test]
async fn a_primary_of_the_cluster_is_killed() {
    let mut cluster = Cluster::start(Options::default()).await;
    let mut scene = Scene::start_kept_or_gap(nodes(&cluster_url(&cluster)).await).await;
    let (busiest, slot) = busiest(&cluster).await;
    scene
        .during(async {
            cluster.nodes[busiest].kill9();
            until("the promotion", async || cluster.owner(slot).await == busiest + 3).await;
            sleep(Duration::from_secs(1)).await;
            cluster.nodes[busiest].restart().await;
        })
        .await;
    scene.serves_again().await;
}

/// Moves every slot in which somebody listens to the next primary.
pub(crate) async fn moves_slots(cluster: &Cluster) {
    let mut slots = Vec::new();
    for node in &cluster.nodes {
        for channel in node.cli(&["PUBSUB", "SHARDCHANNELS"]).await.list() {
            slots.push(cluster.slot(&channel.text()).await);
        }
    }
    slots.sort_unstable();
    slots.dedup();
    assert!(!slots.is_empty(), "somebody listens");
    for slot in slots {
        let to = (cluster.owner(slot).await + 1) % 3;
        cluster.move_slot(slot, to).await;
    }
}

#[tokio::test]
async fn slots_move_under_listeners() {
    let cluster = Cluster::start(Options::default()).await;
    let mut scene = Scene::start_kept_or_gap(nodes(&cluster_url(&cluster)).await).await;
    scene.during(moves_slots(&cluster)).await;
    scene.serves_again().await;
}
