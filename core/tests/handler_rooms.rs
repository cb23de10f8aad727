//! A handler puts its client into rooms and takes it out again.

#![cfg(feature = "testing")]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    Action, Anonymous, Authorizer, CloseReason, ConnectOptions, Context, Denied, Handler,
    HandlerError, Hub, Identity, Limits, Message, Reply, RoomId,
};

use support::*;

/// Everyone begins in the lobby; `enter` and `exit` name a room.
#[derive(Debug, Default)]
struct Rooms {
    /// The context of the last message.
    last: Mutex<Option<Context>>,
}

fn name(room: &str) -> RoomId {
    RoomId::new(room).expect("it is a name")
}

#[async_trait]
impl Handler for Rooms {
    async fn on_connect(&self, context: &Context) -> Result<(), CloseReason> {
        context.join(name("lobby")).await.map_err(|_| CloseReason::TRY_AGAIN_LATER)
    }

    async fn on_message(
        &self,
        context: &Context,
        message: &Message,
    ) -> Result<Reply, HandlerError> {
        *self.last.lock().expect("not poisoned") = Some(context.clone());
        let payload = message.payload.as_ref().ok_or(HandlerError::Invalid)?;
        let room: String =
            serde_json::from_slice(payload.bytes()).map_err(|_| HandlerError::Invalid)?;
        match message.kind.as_str() {
            "enter" => context.join(name(&room)).await?,
            "exit" => context.leave(name(&room)).await?,
            _ => return Ok(Reply::Unknown),
        }
        Ok(Reply::None)
    }

    async fn on_disconnect(&self, context: &Context) {
        let late = context.join(name("late")).await;
        assert_eq!(late, Err(HandlerError::Internal));
    }
}

/// Opens all rooms but one, and panics at another.
#[derive(Debug)]
struct Door;

#[async_trait]
impl Authorizer for Door {
    async fn authorize(&self, _: &Identity, action: Action<'_>) -> Result<(), Denied> {
        match action {
            Action::Join(room) if room.as_str() == "secret" => Err(Denied::Forbidden),
            Action::Join(room) if room.as_str() == "trap" => panic!("the test asked for it"),
            _ => Ok(()),
        }
    }
}

async fn hub() -> (Hub, Arc<Rooms>) {
    let (bus, rooms) = (Arc::new(MemoryBus::default()), Arc::<Rooms>::default());
    let mut limits = Limits::default();
    limits.rooms_per_connection = 3;
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(Door)).limits(limits);
    let builder = builder.handler(rooms.clone()).shards(2);
    (builder.start().await.expect("the bus is there"), rooms)
}

async fn say(client: &Client, what: &str, room: &str) {
    client.say(&format!("{{\"type\":\"{what}\",\"payload\":\"{room}\",\"id\":7}}")).await;
}

#[tokio::test]
async fn a_handler_joins_and_leaves_for_its_client() {
    let (hub, rooms) = hub().await;
    let mut client = Client::connect(&hub, "u").await;
    assert_eq!(client.next("room:joined").await["payload"]["roomId"], "lobby");
    publish(&hub, news(&room("lobby"), 1)).await;
    client.hears(1).await;

    say(&client, "enter", "game").await;
    assert_eq!(client.next("room:joined").await["payload"]["roomId"], "game");
    assert_eq!(client.next("ok").await["id"], 7);
    publish(&hub, news(&room("game"), 2)).await;
    client.hears(2).await;

    say(&client, "exit", "lobby").await;
    assert_eq!(client.next("room:left").await["payload"]["roomId"], "lobby");
    client.next("ok").await;
    publish(&hub, news(&room("lobby"), 3)).await;
    publish(&hub, news(&room("game"), 4)).await;
    client.hears(4).await;

    let last = rooms.last.lock().expect("not poisoned").take().expect("it was called");
    assert_eq!(last.join(name("late")).await, Err(HandlerError::Internal));
    assert_eq!(last.leave(name("game")).await, Err(HandlerError::Internal));
}

#[tokio::test]
async fn what_a_handler_may_not_join_is_told_by_what_it_returns() {
    let (hub, _) = hub().await;
    let mut client = Client::connect(&hub, "u").await;
    client.next("room:joined").await;
    say(&client, "enter", "secret").await;
    let error = client.next("error").await;
    assert_eq!((&error["payload"]["code"], &error["id"]), (&"forbidden".into(), &7.into()));
    for room in ["a", "b"] {
        say(&client, "enter", room).await;
        client.next("room:joined").await;
        client.next("ok").await;
    }
    say(&client, "enter", "c").await;
    assert_eq!(client.next("error").await["payload"]["code"], "too_many_rooms");
    say(&client, "exit", "a").await;
    client.next("room:left").await;
    client.next("ok").await;
    say(&client, "enter", "trap").await;
    assert_eq!(client.ended().await, Some(1011));
}

#[tokio::test]
async fn a_room_joined_while_a_client_comes_back_misses_nothing() {
    let (hub, _) = hub().await;
    let mut client = Client::connect(&hub, "u").await;
    client.next("room:joined").await;
    publish(&hub, news(&room("lobby"), 0)).await;
    client.hears(0).await;
    let cursor = client.cursor.clone();
    drop(client);
    for n in 1..=300 {
        publish(&hub, news(&room(if n % 2 == 0 { "lobby" } else { "mine" }), n)).await;
    }
    let rooms = vec!["mine".to_owned()];
    let options = ConnectOptions { cursor, rooms, ..ConnectOptions::default() };
    let (mut back, connected) = Client::connect_with(&hub, "u", options).await;
    assert_eq!(connected["payload"]["recovered"], true);
    assert_eq!(back.next("room:joined").await["payload"]["roomId"], "lobby");
    assert_eq!(back.next("room:joined").await["payload"]["roomId"], "mine");
    for n in 301..=310 {
        publish(&hub, news(&room(if n % 2 == 0 { "lobby" } else { "mine" }), n)).await;
    }
    // Of its own room all there was; of the lobby, which it did not name, what came since it was put there.
    let mut heard = Vec::new();
    while heard.last() != Some(&310) {
        heard.push(back.next("news").await["payload"].as_u64().expect("a number"));
    }
    let expected: Vec<_> = (1..=310).filter(|n| n % 2 == 1 || *n > 300).collect();
    assert_eq!(heard, expected);
}
