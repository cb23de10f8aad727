//! Rooms named in a URL, or joined later, beyond what a connection may be in: nobody is asked about them.

#![cfg(feature = "testing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tidings_bus_memory::MemoryBus;
use tidings_core::{Action, Anonymous, Authorizer, ConnectOptions, Denied, Hub, Identity, Limits};

use support::*;

/// Allows every room but `x`, and counts how often it is asked.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Counting {
    /// How often it was asked since the last time.
    fn asked(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

#[async_trait]
impl Authorizer for Counting {
    async fn authorize(&self, _: &Identity, action: Action<'_>) -> Result<(), Denied> {
        self.0.fetch_add(1, Ordering::Relaxed);
        match action {
            Action::Join(room) if room.as_str() == "x" => Err(Denied::Forbidden),
            _ => Ok(()),
        }
    }
}

/// A hub whose connections may be in so many rooms.
async fn hub_of(max: usize) -> (Hub, Arc<Counting>) {
    let asked = Arc::new(Counting::default());
    let bus = Arc::new(MemoryBus::default());
    let mut limits = Limits::default();
    limits.rooms_per_connection = max;
    let builder = Hub::builder(bus, Arc::new(Anonymous), asked.clone()).limits(limits);
    (builder.start().await.expect("the bus is there"), asked)
}

/// Connects with rooms in the URL; the answers as `room`, or `code room` where it is refused.
async fn named(
    hub: &Hub,
    names: &[&str],
    cursor: Option<&str>,
    answers: usize,
) -> (Client, Vec<String>) {
    let rooms = names.iter().map(ToString::to_string).collect();
    let options =
        ConnectOptions { rooms, cursor: cursor.map(str::to_owned), ..ConnectOptions::default() };
    let (mut client, _) = Client::connect_with(hub, "u", options).await;
    let mut heard = Vec::new();
    while heard.len() < answers {
        let text = in_time(client.pipe.next()).await.expect("an answer");
        let message: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let payload = &message["payload"];
        let room = payload["roomId"].as_str().unwrap_or_default();
        heard.push(match message["type"].as_str() {
            Some("room:joined") => room.to_owned(),
            Some("error") => format!("{} {room}", payload["code"].as_str().unwrap_or_default()),
            _ => panic!("{text}"),
        });
    }
    (client, heard)
}

#[tokio::test]
async fn rooms_in_a_url_are_counted_before_anybody_is_asked() {
    let (hub, counting) = hub_of(3).await;
    let cursor = named(&hub, &["c"], None, 1).await.0.cursor;
    assert_eq!((cursor.is_some(), counting.asked()), (true, 1));
    for cursor in [None, cursor.as_deref()] {
        let (mut client, heard) = named(&hub, &["a", "b", "a", "c", "b"], cursor, 3).await;
        assert_eq!((heard, counting.asked()), (["a", "b", "c"].map(String::from).into(), 3));
        // Nothing else was said of them.
        client.say("{\"type\":\"ping\"}").await;
        client.next("pong").await;

        let (_client, heard) = named(&hub, &["a", "b", "x", "d", "a", "e"], cursor, 5).await;
        let told = ["a", "b", "forbidden x", "too_many_rooms d", "too_many_rooms e"];
        // Who comes back is told of refusals in their place, too.
        assert_eq!((heard, counting.asked()), (told.map(String::from).into(), 3));
    }
}

#[tokio::test]
async fn a_room_too_many_is_refused_before_anybody_is_asked() {
    let (hub, counting) = hub_of(2).await;
    let (mut client, _) = named(&hub, &["a"], None, 1).await;
    client.join("b").await;
    // It is in this one already.
    client.join("b").await;
    assert_eq!(counting.asked(), 3);
    client.say(r#"{"type":"join:room","payload":{"roomId":"c"}}"#).await;
    assert_eq!(client.next("error").await["payload"]["code"], "too_many_rooms");
    assert_eq!(counting.asked(), 0);
    client.leave("a").await;
    client.join("c").await;
}

#[tokio::test]
async fn without_a_limit_every_room_is_joined() {
    let (hub, counting) = hub_of(0).await;
    let names: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (_client, heard) = named(&hub, &names, None, 300).await;
    assert_eq!((heard.len(), counting.asked()), (300, 300));
}
