//! What becomes of a client that is too slow, by the policy of the topic.

use std::sync::Arc;

use super::scene::*;
use crate::testing::bus_laws::BusFixture;
use crate::{
    AllowAll, Anonymous, Bus, Hub, Limits, Publication, SlowPolicy, TopicOptions, TopicRules,
};

/// A hub whose clients may have 2 KiB waiting.
async fn hub_of(bus: &Arc<dyn Bus>, policy: SlowPolicy) -> Hub {
    let limits = Limits { outbox_bytes: 2048, ..Limits::default() };
    let mut options = TopicOptions { slow: policy, ..TopicOptions::default() };
    if let Some(retention) = &mut options.retention {
        retention.count = 10_000;
    }
    let builder = Hub::builder(Arc::clone(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    builder
        .topics(TopicRules::all(options))
        .limits(limits)
        .shards(1)
        .start()
        .await
        .expect("the bus is there")
}

/// Publishes far more than the pipe and the outbox take while the client reads nothing.
async fn flood(hub: &Hub, publication: impl Fn(u32) -> Publication) {
    let mut witness = Client::connect(hub, "witness").await;
    witness.join("r").await;
    for n in 0..MANY {
        publish(hub, publication(n)).await;
        witness.hears(n).await;
    }
    // There is one shard: what the witness heard has passed everybody once a question about it is answered.
    hub.users().await;
}

fn to_room(n: u32) -> Publication {
    news(&room("r"), n)
}

/// Without another policy a client that is too slow is disconnected with 4008, and gets everything by its cursor: once
/// and in order over both connections.
pub async fn by_default_it_is_disconnected_and_resumes_with_everything<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub_of(&fixture.bus(), SlowPolicy::Disconnect).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    flood(&hub, to_room).await;
    let mut heard = 0;
    while let Some(text) = in_time(client.pipe.next()).await {
        let message: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!((&message["type"], &message["payload"]), (&"news".into(), &heard.into()));
        client.cursor = message["cursor"].as_str().map(str::to_owned);
        heard += 1;
    }
    assert_eq!(client.pipe.closed().map(|reason| reason.code), Some(4008));
    assert!(heard < MANY, "it was too slow for all of it");
    let (mut client, connected) = Client::connect_with(&hub, "u", client.back(&["r"])).await;
    assert_eq!(connected["payload"]["recovered"], true);
    assert_eq!(client.next("room:joined").await["payload"]["recovered"], true);
    publish(&hub, to_room(MANY)).await;
    for n in heard..=MANY {
        client.hears(n).await;
    }
}

/// Under `DropOldest` a `gap` stands wherever messages were dropped.
pub async fn the_oldest_are_dropped_and_a_gap_stands_in_their_place<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub_of(&fixture.bus(), SlowPolicy::DropOldest).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    flood(&hub, to_room).await;
    let (mut last, mut gaps) = (None, 0);
    while last != Some(u64::from(MANY) - 1) {
        let text = in_time(client.pipe.next()).await.expect("it goes on");
        let message: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        if message["type"] == "gap" {
            assert_eq!(
                (&message["payload"]["reason"], &message["payload"]["roomId"]),
                (&"slow".into(), &"r".into())
            );
            gaps += 1;
            last = None;
            continue;
        }
        let number = message["payload"].as_u64().expect("a number");
        assert!(
            last.is_none_or(|last| last + 1 == number),
            "{number} after {last:?} without a gap"
        );
        last = Some(number);
    }
    assert!(gaps > 0);
}

/// Under `KeepLatest` a slow client gets the latest of each key, in order.
pub async fn only_the_latest_of_a_key_stays<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub_of(&fixture.bus(), SlowPolicy::KeepLatest).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    flood(&hub, |n| {
        let mut publication = to_room(n);
        publication.conflation_key = Some((n % 3).to_string());
        publication
    })
    .await;
    let mut latest = [None; 3];
    while latest != [MANY - 3, MANY - 2, MANY - 1].map(Some).map(|n| n.map(u64::from)) {
        let number = client.next("news").await["payload"].as_u64().expect("a number");
        let of_key = &mut latest[(number % 3) as usize];
        assert!(*of_key < Some(number), "{number} after {of_key:?}");
        *of_key = Some(number);
    }
}

/// A multiple of three, and some 100 KB.
const MANY: u32 = 999;
