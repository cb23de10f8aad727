//! Who is where, when the store forgets it.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections and reads the clock")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use tidings_bus_memory::{Config, MemoryBus};
use tidings_core::{AllowAll, Anonymous, Hub, Limits, TopicOptions, TopicRules};

use support::*;

/// A bus on the test's clock, and a node on it that shows who is in its rooms.
async fn showing(linger: Duration) -> (MemoryBus, Hub) {
    let started = tokio::time::Instant::now();
    let mut config = Config::default();
    config.clock = Arc::new(move || started.elapsed());
    let bus = MemoryBus::new(config);
    let mut limits = Limits::default();
    limits.presence_linger = linger;
    let mut options = TopicOptions::default();
    options.presence = true;
    let builder = Hub::builder(Arc::new(bus.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.topics(TopicRules::all(options)).limits(limits);
    (bus, builder.start().await.expect("the bus is there"))
}

async fn present(hub: &Hub, count: u64) {
    until(async || hub.count_present(&room("r")).await.is_ok_and(|n| n == count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_noticed_although_somebody_comes_right_after_it() {
    let (bus, hub) = showing(Duration::from_secs(1)).await;
    let mut ann = Client::connect(&hub, "ann").await;
    ann.join("r").await;
    present(&hub, 1).await;
    for round in 2..5 {
        bus.flush();
        let mut late = Client::connect(&hub, &format!("late {round}")).await;
        late.join("r").await;
        present(&hub, 2).await;
        drop(late);
        present(&hub, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_claims_knows_nobody_until_the_next_renewal() {
    let (bus, hub) = showing(Duration::from_secs(1)).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    present(&hub, 1).await;
    bus.flush();
    assert_eq!(hub.count_present(&room("r")).await.expect("it is there"), 0);
    present(&hub, 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_lingers_is_there_although_the_store_forgot_it() {
    let (bus, hub) = showing(Duration::from_secs(30)).await;
    let mut ann = Client::connect(&hub, "ann").await;
    ann.join("r").await;
    present(&hub, 1).await;
    drop(ann);
    until(async || hub.users().await.is_empty()).await;
    bus.flush();
    assert_eq!(hub.count_present(&room("r")).await.expect("it is there"), 0);
    present(&hub, 1).await;
    present(&hub, 0).await;
}
