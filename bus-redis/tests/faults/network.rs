//! What networks do between a node and Redis, by a proxy.

use std::time::Duration;

use tidings_redis_testing::{Options, Proxy, Redis, Traffic, until};
use tokio::time::sleep;

use crate::buses::{nodes, trusting};
use crate::scene::Scene;

pub(crate) async fn behind_a_proxy() -> (Redis, Proxy, String) {
    let redis = Redis::start(Options::default()).await;
    let proxy = Proxy::to(redis.address()).await;
    let url = format!("redis://{}", proxy.address());
    (redis, proxy, url)
}

/// Bytes vanish without a reset until the nodes say so; the connections of that time stay dead.
async fn half_open(traffic: Traffic) {
    let (_redis, proxy, url) = behind_a_proxy().await;
    let mut scene = Scene::start_kept(nodes(&url).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            proxy.set(traffic);
            watch.say_away().await;
            proxy.set(Traffic::Pass);
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn half_open_both_ways() {
    half_open(Traffic::Drop).await;
}

#[tokio::test]
async fn half_open_towards_the_node() {
    half_open(Traffic::DropAnswers).await;
}

#[tokio::test]
async fn half_open_towards_redis() {
    half_open(Traffic::DropRequests).await;
}

#[tokio::test]
async fn half_open_without_a_probe() {
    let (_redis, proxy, url) = behind_a_proxy().await;
    let mut scene = Scene::start(trusting(&url).await).await;
    scene
        .during(async {
            proxy.set(Traffic::Drop);
            sleep(Duration::from_secs(1)).await;
            proxy.set(Traffic::Pass);
        })
        .await;
    scene.stays_broken().await;
}

#[tokio::test]
async fn connections_are_reset_and_finished() {
    let (_redis, proxy, url) = behind_a_proxy().await;
    let mut scene = Scene::start_kept(nodes(&url).await).await;
    scene
        .during(async {
            for n in 0..6 {
                if n % 2 == 0 {
                    proxy.reset()
                } else {
                    proxy.finish()
                }
                sleep(Duration::from_millis(700)).await;
            }
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn connections_are_refused() {
    let (_redis, mut proxy, url) = behind_a_proxy().await;
    let mut scene = Scene::start_kept(nodes(&url).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            proxy.refuse().await;
            proxy.reset();
            watch.say_away().await;
            sleep(Duration::from_secs(2)).await;
            proxy.accept().await;
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn a_slow_network_breaks_nothing() {
    let (_redis, proxy, url) = behind_a_proxy().await;
    let mut scene = Scene::start(nodes(&url).await).await;
    proxy.set(Traffic::Delay(Duration::from_millis(80)));
    scene.goes_well().await;
    scene.serves_again().await;
}

/// An address moves to the replica, which was promoted; the old primary stays up, detached from everything, and
/// keeps those who are there. It answers every PING and delivers nothing.
pub(crate) async fn moves_to_the_replica(proxy: &Proxy, old: &Redis, new: &Redis) {
    new.cli(&["REPLICAOF", "NO", "ONE"]).await.ok();
    // A port where nobody is.
    old.cli(&["REPLICAOF", "127.0.0.1", "1"]).await.ok();
    proxy.point_to(new.address());
}

/// The same for those who listen; those who command go with the address.
async fn leaves_its_listeners(proxy: &Proxy, old: &Redis, new: &Redis) {
    moves_to_the_replica(proxy, old, new).await;
    old.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.ok();
}

pub(crate) async fn with_a_replica() -> (Redis, Redis, Proxy, String) {
    let (redis, proxy, url) = behind_a_proxy().await;
    let replica =
        Options::default().set("replicaof", &format!("127.0.0.1 {}", redis.address().port()));
    let replica = Redis::start(replica).await;
    until("the replica's copy", async || replica.is_linked().await).await;
    (redis, replica, proxy, url)
}

#[tokio::test]
async fn a_listener_on_a_detached_replica() {
    let (old, new, proxy, url) = with_a_replica().await;
    let mut scene = Scene::start_kept_or_gap(nodes(&url).await).await;
    scene.during(leaves_its_listeners(&proxy, &old, &new)).await;
    scene.serves_again().await;
}

#[tokio::test]
async fn a_listener_on_a_detached_replica_without_a_probe() {
    let (old, new, proxy, url) = with_a_replica().await;
    let mut scene = Scene::start(trusting(&url).await).await;
    scene.during(leaves_its_listeners(&proxy, &old, &new)).await;
    scene.stays_broken().await;
}
