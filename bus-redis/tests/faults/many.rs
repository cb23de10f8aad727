//! Ten thousand topics on one node come back after a restart of Redis.

use std::sync::Arc;

use tidings_bus_redis::RedisBus;
use tidings_core::Bus;
use tidings_redis_testing::{Options, Redis, in_time, tell, until};
use tokio::time::Instant;

use crate::scene::Scene;
use crate::twins::Trial;

/// Whether they are subscribed again. How long that took is told, and not judged.
pub(crate) async fn ten_thousand_topics(trial: Trial) -> bool {
    let mut redis = Redis::start(Options::default()).await;
    let url = redis.url();
    let bus = RedisBus::connect(&url, trial.config.clone());
    let bus = in_time("a bus", bus).await.expect("Redis is there");
    // What the twin lacks does not depend on their number, but its time does.
    let topics = if trial.config.without.is_none() { TOPICS } else { TOPICS / 20 };
    let mut scene = Scene::start_in(topics, [Arc::new(bus.clone()) as Arc<dyn Bus>]).await;
    redis.kill9();
    let mut start = Instant::now();
    scene
        .during(async {
            redis.restart().await;
            start = Instant::now();
        })
        .await;
    let again = || bus.stats().links_ended > 0 && bus.stats().subscriptions > topics;
    if !trial.reached(until("every topic to be subscribed", async || again())).await {
        return false;
    }
    let took = start.elapsed().as_millis();
    tell(&format!("{topics} topics subscribed again {took} ms after the restart"));
    scene.serves_again().await;
    true
}

const TOPICS: u64 = 10_000;
