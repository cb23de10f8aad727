//! A Redis that dies, hangs, pauses, or cuts its listeners off.

use std::time::Duration;

use tidings_redis_testing::{Options, Redis, until};
use tokio::time::sleep;

use crate::buses::{nodes, patient};
use crate::scene::Scene;

/// Kills it, waits until the nodes say so, and starts it again after a while.
async fn killed_for(seconds: u64, mut redis: Redis, mut scene: Scene) {
    let watch = scene.nodes();
    scene
        .during(async {
            redis.kill9();
            watch.say_away().await;
            sleep(Duration::from_secs(seconds)).await;
            redis.restart().await;
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn killed_and_back_after_a_second() {
    let redis = Redis::start(Options::default()).await;
    let scene = Scene::start(nodes(&redis.url()).await).await;
    killed_for(1, redis, scene).await;
}

#[tokio::test]
async fn killed_and_back_with_all_it_kept() {
    let redis = Redis::start(Options::default().persistent()).await;
    let scene = Scene::start_kept(nodes(&redis.url()).await).await;
    killed_for(1, redis, scene).await;
}

#[tokio::test]
async fn killed_and_back_after_40_seconds() {
    let redis = Redis::start(Options::default()).await;
    let scene = Scene::start(nodes(&redis.url()).await).await;
    killed_for(40, redis, scene).await;
}

#[tokio::test]
async fn killed_and_back_after_40_seconds_with_all_it_kept() {
    let redis = Redis::start(Options::default().persistent()).await;
    let scene = Scene::start_kept(nodes(&redis.url()).await).await;
    killed_for(40, redis, scene).await;
}

#[tokio::test]
async fn hangs_for_15_seconds() {
    let redis = Redis::start(Options::default()).await;
    let mut scene = Scene::start_kept(nodes(&redis.url()).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            redis.sigstop();
            watch.say_away().await;
            sleep(Duration::from_secs(15)).await;
            redis.sigcont();
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn hangs_while_nobody_has_a_deadline() {
    let redis = Redis::start(Options::default()).await;
    let scene = Scene::start(patient(&redis.url()).await).await;
    redis.sigstop();
    scene.hangs().await;
}

#[tokio::test]
async fn cuts_its_listeners() {
    let redis = Redis::start(Options::default()).await;
    let mut scene = Scene::start_kept(nodes(&redis.url()).await).await;
    scene
        .during(async {
            for _ in 0..5 {
                redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.ok();
                sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn pauses() {
    let redis = Redis::start(Options::default()).await;
    let mut scene = Scene::start_kept(nodes(&redis.url()).await).await;
    scene
        .during(async {
            for kind in ["WRITE", "ALL"] {
                redis.cli(&["CLIENT", "PAUSE", "6000", kind]).await.ok();
                sleep(Duration::from_secs(8)).await;
            }
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn pauses_while_nobody_has_a_deadline() {
    let redis = Redis::start(Options::default()).await;
    let scene = Scene::start(patient(&redis.url()).await).await;
    redis.cli(&["CLIENT", "PAUSE", "60000", "ALL"]).await.ok();
    scene.hangs().await;
}

/// Redis cuts off whoever has not read more than a limit; a message that alone is over it is enough.
pub(crate) async fn overflow(redis: &Redis) {
    redis.config_set("client-output-buffer-limit", "pubsub 65536 65536 1").await;
    for channel in redis.cli(&["PUBSUB", "CHANNELS"]).await.list() {
        let message = "no message of a bus ".repeat(10_000);
        redis.cli(&["PUBLISH", &channel.text(), &message]).await.ok();
    }
    until("the limit to be met", async || redis.log().contains("output buffer limits")).await;
    redis.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60").await;
}

#[tokio::test]
async fn cuts_a_listener_whose_buffer_is_full() {
    let redis = Redis::start(Options::default()).await;
    let mut scene = Scene::start_kept(nodes(&redis.url()).await).await;
    scene.during(overflow(&redis)).await;
    scene.serves_again().await;
}
