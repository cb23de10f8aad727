//! A bus of which one part is away for a node: the others go on, and nothing is lost in silence.

#![cfg(feature = "testing")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::Value;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusLink, ConnectOptions, History, HistoryPage, Hub,
    Presence, Publication, Receipt, Scope, Topic, Tops,
};
use tokio::sync::watch;

use support::*;

/// Buses in memory, each of which is one partition; and one node's view of them, from which one may be cut off.
#[derive(Debug, Clone)]
struct Parts {
    buses: Arc<[MemoryBus]>,
    cut: watch::Sender<Option<u16>>,
}

impl Parts {
    fn new() -> Self {
        Self {
            buses: (0..PARTS).map(|_| MemoryBus::default()).collect(),
            cut: watch::channel(None).0,
        }
    }

    /// Another node's view.
    fn beside(&self) -> Self {
        Self { buses: self.buses.clone(), cut: watch::channel(None).0 }
    }

    fn cut(&self, partition: Option<u16>) {
        self.cut.send_replace(partition);
    }

    fn reach(&self, partition: u16) -> Result<&MemoryBus, BusError> {
        match *self.cut.borrow() == Some(partition) {
            true => Err(BusError::Unavailable("cut off".to_owned())),
            false => Ok(&self.buses[usize::from(partition)]),
        }
    }

    async fn node(&self) -> Hub {
        let builder = Hub::builder(Arc::new(self.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
        builder.shards(1).start().await.expect("the bus is there")
    }
}

#[async_trait]
impl Bus for Parts {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let mut receipts = Vec::new();
        for one in batch {
            receipts.push(match self.reach(self.partition(&one.topic)) {
                Ok(bus) => bus.publish(vec![one]).await.pop().expect("an answer"),
                Err(error) => Err(error),
            });
        }
        receipts
    }

    fn partitions(&self) -> u16 {
        PARTS
    }

    /// Rooms and users by the digit at the end of their names.
    fn partition(&self, topic: &Topic) -> u16 {
        let name = match &topic.scope {
            Scope::Room(room) => room.to_string(),
            Scope::User(user) => user.to_string(),
            Scope::Client(client) => client.to_string(),
            _ => return 0,
        };
        u16::from(name.as_bytes()[name.len() - 1]) % PARTS
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        let BusLink { interest, deliveries } = self.reach(partition)?.connect(0).await?;
        let mut cut = self.cut.subscribe();
        let ended = async move { drop(cut.wait_for(|cut| *cut == Some(partition)).await) };
        Ok(BusLink { interest, deliveries: deliveries.take_until(Box::pin(ended)).boxed() })
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn presence(&self) -> Option<&dyn Presence> {
        None
    }
}

#[async_trait]
impl History for Parts {
    async fn cursor_key(&self) -> Result<[u8; 16], BusError> {
        self.buses[0].history().expect("it keeps").cursor_key().await
    }

    async fn tops(&self, partition: u16, topics: &[Topic]) -> Result<Tops, BusError> {
        self.reach(partition)?.history().expect("it keeps").tops(0, topics).await
    }

    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError> {
        let bus = self.reach(self.partition(topic))?;
        bus.history().expect("it keeps").after(topic, clock, limit).await
    }
}

async fn cut_off(parts: &Parts, hub: &Hub, partition: u16) {
    parts.cut(Some(partition));
    until(async || hub.partitions_away() == [partition]).await;
}

async fn linked_again(parts: &Parts, hub: &Hub) {
    parts.cut(None);
    until(async || hub.partitions_away().is_empty()).await;
}

/// All that comes until the last message, with the cursor that the client has after each.
async fn heard_until(client: &mut Client, last: u32) -> Vec<(Value, Option<String>)> {
    let mut heard = Vec::new();
    loop {
        let text = in_time(client.pipe.next()).await.expect("it is not ended");
        let message: Value = serde_json::from_str(&text).expect("it is JSON");
        if let Some(cursor) = message["cursor"].as_str() {
            client.cursor = Some(cursor.to_owned());
        }
        let is_last = message["payload"] == last;
        heard.push((message, client.cursor.clone()));
        if is_last {
            return heard;
        }
    }
}

fn is_gap(message: &Value, room: Option<&str>) -> bool {
    message["type"] == "gap" && message["payload"]["roomId"].as_str() == room
}

#[tokio::test(start_paused = true)]
async fn connections_come_in_and_join_rooms_whichever_part_is_away() {
    for away in 0..PARTS {
        let parts = Parts::new();
        let hub = parts.node().await;
        cut_off(&parts, &hub, away).await;
        assert!(hub.is_bus_up() && hub.is_ready());
        for user in 0..9 {
            let mut client = Client::connect(&hub, &format!("u{user}")).await;
            for room in 0..PARTS {
                client.join(&format!("r{room}")).await;
            }
            let there = (away + 1) % PARTS;
            publish(&hub, news(&room(&format!("r{there}")), user)).await;
            client.hears(user).await;
        }
    }
}

/// What is published where a part is away for a client's node alone comes late or is told, and no cursor on the way hides it.
#[tokio::test(start_paused = true)]
async fn what_was_missed_in_a_room_that_was_joined_meanwhile_is_told() {
    let parts = Parts::new();
    let (hub, other) = (parts.node().await, parts.beside().node().await);
    cut_off(&parts, &hub, 1).await;
    let mut client = Client::connect(&hub, "u0").await;
    for name in ["r1", "r4", "r0"] {
        client.join(name).await;
    }
    publish(&other, news(&room("r1"), 1)).await;
    publish(&other, news(&room("r4"), 2)).await;
    publish(&other, news(&room("r0"), 3)).await;
    client.hears(3).await;
    let before = client.cursor.clone();
    linked_again(&parts, &hub).await;
    // When the topics of the part have all been looked at, it follows again.
    publish(&other, news(&room("r4"), 4)).await;
    tokio::time::sleep(hub.limits().history_check * 2).await;
    publish(&other, news(&room("r0"), LAST)).await;
    let heard = heard_until(&mut client, LAST).await;
    for name in ["r1", "r4"] {
        assert!(heard.iter().any(|(message, _)| is_gap(message, Some(name))), "{name}: {heard:?}");
    }
    assert!(heard.iter().any(|(message, _)| message["payload"] == 4), "{heard:?}");
    let mut cuts = vec![(0, before)];
    cuts.extend(heard.iter().enumerate().map(|(n, (_, cursor))| (n + 1, cursor.clone())));
    for (known, cursor) in cuts {
        let rooms = ["r0", "r1", "r4"].map(str::to_owned).to_vec();
        let options = ConnectOptions { rooms, cursor, ..ConnectOptions::default() };
        let (mut back, _) = Client::connect_with(&other, "u0", options).await;
        let mark = LAST + 1 + known as u32;
        publish(&other, news(&room("r0"), mark)).await;
        let after = heard_until(&mut back, mark).await;
        for (name, n) in [("r1", 1), ("r4", 2)] {
            let told = heard[..known].iter().chain(&after);
            let told = told.filter(|(m, _)| is_gap(m, Some(name)) || m["payload"] == n).count();
            assert!(told > 0, "cut after {known}: {name} is told of nothing: {after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_is_told_of_what_is_away_and_gets_the_rest() {
    let parts = Parts::new();
    let (hub, other) = (parts.node().await, parts.beside().node().await);
    let mut client = Client::connect(&hub, "u2").await;
    for name in ["r0", "r1"] {
        client.join(name).await;
    }
    let back = client.back(&["r0", "r1"]);
    drop(client);
    for n in 1..=3 {
        publish(&other, news(&room("r0"), n)).await;
        publish(&other, news(&room("r1"), 10 + n)).await;
    }
    cut_off(&parts, &hub, 1).await;
    let (mut client, connected) = Client::connect_with(&hub, "u2", back).await;
    assert_eq!(connected["payload"]["recovered"], false);
    publish(&other, news(&room("r0"), LAST)).await;
    let heard = heard_until(&mut client, LAST).await;
    let joined = |name: &str| {
        let of = |m: &&Value| m["type"] == "room:joined" && m["payload"]["roomId"] == name;
        heard.iter().map(|(message, _)| message).find(of).map(|m| m["payload"]["recovered"].clone())
    };
    assert_eq!((joined("r0"), joined("r1")), (Some(true.into()), Some(false.into())), "{heard:?}");
    assert!(heard.iter().any(|(message, _)| is_gap(message, Some("r1"))), "{heard:?}");
    let told: Vec<_> =
        heard.iter().filter(|(m, _)| m["type"] == "news").map(|(m, _)| &m["payload"]).collect();
    assert_eq!(told, [1, 2, 3, LAST]);
    linked_again(&parts, &hub).await;
    tokio::time::sleep(hub.limits().history_check * 2).await;
    publish(&other, news(&room("r1"), LAST)).await;
    let heard = heard_until(&mut client, LAST).await;
    assert!(heard.iter().any(|(message, _)| is_gap(message, Some("r1"))), "{heard:?}");
}

const PARTS: u16 = 3;
const LAST: u32 = 99;
