//! Who is where, when the store forgets it.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections and reads the clock")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use tidings_bus_memory::{Config, MemoryBus};
use tidings_core::{AllowAll, Anonymous, Hub, Limits, TopicOptions, TopicRules};

use support::*;

async fn showing(bus: &MemoryBus) -> Hub {
    let mut options = TopicOptions::default();
    options.presence = true;
    let builder = Hub::builder(Arc::new(bus.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
    builder.topics(TopicRules::all(options)).start().await.expect("the bus is there")
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_noticed_although_somebody_comes_right_after_it() {
    let started = tokio::time::Instant::now();
    let mut config = Config::default();
    config.clock = Arc::new(move || started.elapsed());
    let bus = MemoryBus::new(config);
    let hub = showing(&bus).await;
    let present = async |count| {
        until(|| async { hub.count_present(&room("r")).await.is_ok_and(|n| n == count) }).await;
    };
    let mut ann = Client::connect(&hub, "ann").await;
    ann.join("r").await;
    present(1).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    for round in 2..5 {
        bus.flush();
        let mut late = Client::connect(&hub, &format!("late {round}")).await;
        late.join("r").await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        present(2).await;
        drop(late);
        tokio::time::sleep(Duration::from_secs(25)).await;
        present(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_claims_knows_nobody_until_the_next_renewal() {
    let started = tokio::time::Instant::now();
    let mut config = Config::default();
    config.clock = Arc::new(move || started.elapsed());
    let bus = MemoryBus::new(config);
    let hub = showing(&bus).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    until(|| async { hub.count_present(&room("r")).await.is_ok_and(|n| n == 1) }).await;
    bus.flush();
    assert_eq!(hub.count_present(&room("r")).await.expect("it is there"), 0);
    tokio::time::sleep(Duration::from_secs(11)).await;
    until(|| async { hub.count_present(&room("r")).await.is_ok_and(|n| n == 1) }).await;
}

#[tokio::test(start_paused = true)]
async fn who_lingers_is_there_although_the_store_forgot_it() {
    let started = tokio::time::Instant::now();
    let mut config = Config::default();
    config.clock = Arc::new(move || started.elapsed());
    let bus = MemoryBus::new(config);
    let mut limits = Limits::default();
    limits.presence_linger = Duration::from_secs(600);
    let mut options = TopicOptions::default();
    options.presence = true;
    let builder = Hub::builder(Arc::new(bus.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.topics(TopicRules::all(options)).limits(limits);
    let hub = builder.start().await.expect("the bus is there");
    let present = async |count| {
        until(|| async { hub.count_present(&room("r")).await.is_ok_and(|n| n == count) }).await;
    };
    let mut ann = Client::connect(&hub, "ann").await;
    ann.join("r").await;
    present(1).await;
    drop(ann);
    bus.flush();
    tokio::time::sleep(Duration::from_secs(60)).await;
    present(1).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    present(0).await;
}
