//! What a bus with history promises of repeats under the same key.

use super::bus_laws::BusFixture;
use super::bus_node::{Node, publish, room, say};
use super::history_node::{Keeper, all_at_once, kept};
use super::script::{HOSTILE, hostile_topics};
use crate::Publication;

/// A repeat is not delivered again, whoever repeats it and with whatever message; it gets the receipt of the first.
pub async fn a_repeat_gets_the_first_receipt<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let topic = room("once");
    node.subscribe(std::slice::from_ref(&topic)).await;
    let (mut all, mut last) = (Vec::new(), None);
    for retained in [true, false, true] {
        let make = if retained { |t: &_, text: &str| kept(t, text, 100) } else { say };
        for n in 0..5 {
            let key = format!("{retained} {n} {}", all.len());
            let first = make(&topic, &key).idempotency_key(&key);
            let again = make(&topic, "again").idempotency_key(&key);
            let receipts = publish(&keeper.bus, vec![first.clone(), again.clone()]).await;
            let heard = node.hears(&first).await;
            assert_eq!(receipts[0].position, heard.position);
            assert_eq!(receipts[1], receipts[0], "a repeat in the same batch");
            for _ in 0..2 {
                let receipt = publish(&keeper.fixture.bus(), vec![again.clone()]).await.remove(0);
                assert_eq!(receipt, receipts[0], "a repeat through another node");
            }
            node.hears_nothing_more().await;
            all.extend(retained.then_some(heard));
            last = Some((again, receipts[0]));
        }
    }
    let plain = kept(&topic, "no key", 100);
    for _ in 0..2 {
        node.publish(plain.clone()).await;
        all.push(node.hears(&plain).await);
    }
    let (again, receipt) = last.expect("there were some");
    assert_eq!(publish(&keeper.bus, vec![again]).await, [receipt], "still known");
    keeper.keeps(&topic, &all, 0).await;
}

/// A key counts in its topic alone, however topic and key are called.
pub async fn idempotency_keys_never_leak<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let topics: Vec<_> = hostile_topics().into_iter().step_by(5).collect();
    let long = "k".repeat(300);
    let keys: Vec<_> = HOSTILE.into_iter().chain(["", "\0", "\r\n", &long]).collect();
    let publication = |topic, key: &str| kept(topic, key, 100).idempotency_key(key);
    let of_topic = |topic| keys.iter().map(move |key| publication(topic, key));
    let batch: Vec<Publication> = topics.iter().flat_map(of_topic).collect();
    let all = keeper.keep(batch.clone()).await;
    let again = publish(&keeper.bus, batch).await;
    for (delivery, receipt) in all.iter().zip(again) {
        assert_eq!(receipt.position, delivery.position, "{delivery:?}");
    }
    for (topic, all) in topics.iter().zip(all.chunks(keys.len())) {
        keeper.keeps(topic, all, 0).await;
    }
}

/// Of repeats at the same time one is delivered, and all get its receipt.
pub async fn concurrent_repeats_deliver_once<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let topic = room("race");
    node.subscribe(std::slice::from_ref(&topic)).await;
    let mut all = Vec::new();
    for round in 0..30 {
        let publication = kept(&topic, "once", 100).idempotency_key(format!("round {round}"));
        let publishers = (0..8).map(|_| {
            let (bus, publication) = (keeper.fixture.bus(), publication.clone());
            async move { publish(&bus, vec![publication]).await.remove(0) }
        });
        let receipts = all_at_once(publishers).await;
        assert!(receipts.iter().all(|receipt| *receipt == receipts[0]), "{receipts:?}");
        let heard = node.hears(&publication).await;
        assert_eq!(heard.position, receipts[0].position);
        all.push(heard);
        node.hears_nothing_more().await;
    }
    keeper.keeps(&topic, &all, 0).await;
}
