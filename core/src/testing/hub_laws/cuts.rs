//! A cursor never stands past a hole that its client was not told of: a client is cut after every single frame.

use std::collections::BTreeSet;

use super::history::keeping;
use super::scene::*;
use crate::testing::bus_laws::BusFixture;
use crate::{ConnectOptions, Hub, Topic};

/// The topics whose gaps a client was told: a room, or `None` for all that is no room.
type Told = BTreeSet<Option<String>>;

/// Why something may be missing.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Trimmed,
    Epoch,
    Cursor,
}

/// Whatever the cause of the gaps in a welcome.
pub async fn a_gap_that_was_cut_off_is_told_to_who_comes_back<F: BusFixture>() {
    for cause in [Cause::Trimmed, Cause::Epoch, Cause::Cursor] {
        let fixture = F::start().await;
        let hub = keeping(&fixture.bus(), 5, |_| {}).await;
        let (mut client, topics) = in_two_rooms(&hub).await;
        let mut before = client.back(&["a", "b"]);
        client.pipe.finish();
        match cause {
            Cause::Trimmed => {}
            Cause::Epoch => fixture.lose_store().await,
            Cause::Cursor => before.cursor = Some("nonsense".to_owned()),
        }
        for topic in &topics {
            for n in 1..10 {
                publish(&hub, news(topic, n)).await;
            }
        }
        let mut frames = 1;
        while cut_after(frames, &hub, &before).await {
            frames += 1;
        }
        assert!(frames > 6, "`connected`, two rooms and three gaps precede what is live: {frames}");
    }
}

/// The same of a client that was connected when the store was lost.
pub async fn a_live_gap_that_was_cut_off_is_told_to_who_comes_back<F: BusFixture>() {
    for frames in 1..=6 {
        let fixture = F::start().await;
        let hub = keeping(&fixture.bus(), 5, |_| {}).await;
        let (mut client, topics) = in_two_rooms(&hub).await;
        for topic in &topics {
            publish(&hub, news(topic, 1)).await;
        }
        for _ in &topics {
            client.next("news").await;
        }
        fixture.lose_store().await;
        for topic in topics.iter().chain(&topics) {
            publish(&hub, news(topic, 2)).await;
        }
        let mut told = Told::new();
        for n in 0..frames {
            // A gap may stand for what was published before it was found, so there is always one more to come.
            publish(&hub, news(&everyone(), 3 + n)).await;
            hear(&mut client, &mut told).await;
        }
        back_and_told(&hub, client, told, frames).await;
    }
}

/// A client in two rooms, and its topics that are kept.
async fn in_two_rooms(hub: &Hub) -> (Client, [Topic; 4]) {
    let mut client = Client::connect(hub, "u").await;
    client.join("a").await;
    client.join("b").await;
    (client, [room("a"), room("b"), user("u"), everyone()])
}

/// Cuts a client off after so many frames of its welcome, and has it back. Answers whether there were as many before
/// what is live.
async fn cut_after(frames: u32, hub: &Hub, before: &ConnectOptions) -> bool {
    let (mut client, _) = Client::connect_with(hub, "u", before.clone()).await;
    publish(hub, news(&everyone(), LIVE)).await;
    let mut told = Told::new();
    for _ in 1..frames {
        if hear(&mut client, &mut told).await {
            return false;
        }
    }
    back_and_told(hub, client, told, frames).await;
    true
}

/// The client is cut and comes back: it has been told of each of its topics by then, or is told now.
async fn back_and_told(hub: &Hub, client: Client, mut told: Told, frames: u32) {
    let back = client.back(&["a", "b"]);
    drop(client);
    let (mut client, connected) = Client::connect_with(hub, "u", back).await;
    let recovered = connected["payload"]["recovered"] == true;
    let earlier = told.clone();
    publish(hub, news(&everyone(), LIVE)).await;
    while !hear(&mut client, &mut told).await {}
    let all = Told::from([None, Some("a".to_owned()), Some("b".to_owned())]);
    assert_eq!(told, all, "cut after {frames} frames, told {earlier:?} by then");
    assert!(!recovered || earlier == all, "cut after {frames} frames, told {earlier:?}");
}

/// The next frame, whatever it is. Answers whether it is what was published last.
async fn hear(client: &mut Client, told: &mut Told) -> bool {
    let message = client.any().await;
    if message["type"] == "gap" {
        told.insert(message["payload"]["roomId"].as_str().map(str::to_owned));
    }
    message["type"] == "news" && message["payload"] == LIVE
}

/// The number of what is published when the client is there.
const LIVE: u32 = 1000;
