//! A test of an application's own handler, on the memory bus and without a network.
//!
//! Run with: cargo run -p tidings-examples --example test_your_app
//!
//! In an application `a_bid_reaches_the_others_in_the_room` has `#[tokio::test]` above it.
#![expect(clippy::disallowed_methods, reason = "a program may spawn where it likes")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, CloseReason, ConnectOptions, Context, Handler, HandlerError, Hub,
    Identity, Message, Publication, Reply, RoomId, Transport, UserId,
};
use tidings_transport_ws::WsTransport;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The application: a `bid` is a whole number, and everyone in `auction` gets it with its bidder.
#[derive(Debug)]
struct Auction;

#[async_trait]
impl Handler for Auction {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }

    async fn on_message(&self, context: &Context, bid: &Message) -> Result<Reply, HandlerError> {
        if bid.kind.as_str() != "bid" {
            return Ok(Reply::Unknown);
        }
        let payload = bid.payload.as_ref().ok_or(HandlerError::Invalid)?;
        let amount: u64 =
            serde_json::from_slice(payload.bytes()).map_err(|_| HandlerError::Invalid)?;
        let value = json!({"amount": amount, "by": context.identity().user.as_str()});
        let message = Message::of("bid", &value).map_err(|_| HandlerError::Internal)?;
        let room = RoomId::new("auction").map_err(|_| HandlerError::Internal)?;
        context.publish(Publication::new(context.room(room), message)).await?;
        Ok(Reply::None)
    }

    async fn on_disconnect(&self, _: &Context) {}
}

/// A client whose connection never leaves the process.
struct Client(WebSocketStream<DuplexStream>);

impl Client {
    /// Connects as a user and waits until it is in the room.
    async fn connect(hub: &Hub, user: &str, room: &str) -> Self {
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let (read, write) = tokio::io::split(theirs);
        let transport = WsTransport::new(read, write, hub.limits().message_bytes);
        let identity = Identity::user(UserId::new(user).expect("a name"));
        let options = ConnectOptions { rooms: vec![room.to_owned()], ..ConnectOptions::default() };
        let attached = hub.attach(identity, options, transport.info()).await;
        tokio::spawn(attached.expect("the hub takes it in").serve(transport));
        let mut client = Self(WebSocketStream::from_raw_socket(ours, Role::Client, None).await);
        client.receive("connected").await;
        client.receive("room:joined").await;
        client
    }

    async fn send(&mut self, message: &Value) {
        self.0.send(message.to_string().into()).await.expect("the connection lives");
    }

    /// The next message, which must be of this type.
    async fn receive(&mut self, kind: &str) -> Value {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        let next = next.expect("a message in time").expect("no end").expect("no error");
        let message: Value = serde_json::from_slice(&next.into_data()).expect("JSON");
        assert_eq!(message["type"], kind, "{message}");
        message
    }
}

async fn hub() -> Hub {
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll));
    hub.handler(Arc::new(Auction)).start().await.expect("the memory bus is there")
}

async fn a_bid_reaches_the_others_in_the_room() {
    let hub = hub().await;
    let mut ada = Client::connect(&hub, "ada", "auction").await;
    let mut bob = Client::connect(&hub, "bob", "auction").await;
    ada.send(&json!({"type": "bid", "payload": 7})).await;
    assert_eq!(bob.receive("bid").await["payload"], json!({"amount": 7, "by": "ada"}));
}

async fn a_bid_that_is_no_number_is_refused() {
    let hub = hub().await;
    let mut ada = Client::connect(&hub, "ada", "auction").await;
    ada.send(&json!({"type": "bid", "payload": "much", "id": 1})).await;
    let error = ada.receive("error").await;
    assert_eq!((&error["id"], &error["payload"]["code"]), (&json!(1), &json!("invalid_message")));
}

#[tokio::main]
async fn main() {
    a_bid_reaches_the_others_in_the_room().await;
    a_bid_that_is_no_number_is_refused().await;
    println!("2 tests passed");
}

/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much either side may write ahead of the other.
const BUFFER_BYTES: usize = 64 * 1024;
