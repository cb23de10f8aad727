//! Hubs, clients in memory and what they say to each other, for the tests beside.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::{MemoryPipe, PipeClient};
use tidings_core::{
    AllowAll, Anonymous, AttachError, Attachment, CloseReason, ConnectOptions, Context, Handler,
    HandlerError, Hub, Identity, Limits, Message, Publication, Reply, RoomId, TenantId, Topic,
    UserId,
};

/// Panics at `panic`, answers `echo`, knows nothing else.
#[derive(Debug)]
pub(crate) struct App;

#[async_trait]
impl Handler for App {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }

    async fn on_message(&self, _: &Context, message: &Message) -> Result<Reply, HandlerError> {
        match message.kind.as_str() {
            "panic" => panic!("the test asked for it"),
            "echo" => Ok(Reply::Message(message.clone())),
            _ => Ok(Reply::Unknown),
        }
    }

    async fn on_disconnect(&self, _: &Context) {}
}

pub(crate) async fn hub_with(bus: &MemoryBus, change: impl FnOnce(&mut Limits)) -> Hub {
    let mut limits = Limits::default();
    change(&mut limits);
    let builder = Hub::builder(Arc::new(bus.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
    builder.handler(Arc::new(App)).limits(limits).shards(2).start().await.expect("the bus is there")
}

pub(crate) async fn hub(bus: &MemoryBus) -> Hub {
    hub_with(bus, |_| {}).await
}

pub(crate) async fn attach(hub: &Hub, user: &str) -> Result<Attachment, AttachError> {
    attach_with(hub, user, ConnectOptions::default()).await
}

pub(crate) async fn attach_with(
    hub: &Hub,
    user: &str,
    options: ConnectOptions,
) -> Result<Attachment, AttachError> {
    let identity = Identity::user(UserId::new(user).expect("it is a name"));
    in_time(hub.attach(identity, options, MemoryPipe::info())).await
}

pub(crate) struct Client {
    pub(crate) pipe: PipeClient,
    pub(crate) id: tidings_core::ClientId,
    /// The newest that came.
    pub(crate) cursor: Option<String>,
}

impl Client {
    /// Connects, and insists that `connected` is first.
    pub(crate) async fn connect(hub: &Hub, user: &str) -> Self {
        Self::connect_with(hub, user, ConnectOptions::default()).await.0
    }

    /// The same with options; answers `connected` too.
    pub(crate) async fn connect_with(
        hub: &Hub,
        user: &str,
        options: ConnectOptions,
    ) -> (Self, Value) {
        let attachment = attach_with(hub, user, options).await.expect("it is taken in");
        let (server, pipe) = MemoryPipe::new(PIPE);
        let id = attachment.client_id();
        tokio::spawn(attachment.serve(server));
        let mut client = Self { pipe, id, cursor: None };
        let connected = client.next("connected").await;
        assert_eq!(connected["payload"]["clientId"], id.to_string());
        (client, connected)
    }

    pub(crate) async fn say(&self, json: &str) {
        assert!(self.pipe.send(json.to_owned()).await, "the server listens");
    }

    /// The next message, which is of this type.
    pub(crate) async fn next(&mut self, kind: &str) -> Value {
        let text = in_time(self.pipe.next()).await;
        let text =
            text.unwrap_or_else(|| panic!("ended instead of {kind}: {:?}", self.pipe.closed()));
        let message: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(message["type"], kind, "{text}");
        if let Some(cursor) = message["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        message
    }

    pub(crate) async fn join(&mut self, room: &str) {
        self.say(&format!("{{\"type\":\"join:room\",\"payload\":{{\"roomId\":\"{room}\"}}}}"))
            .await;
        assert_eq!(self.next("room:joined").await["payload"]["roomId"], room);
    }

    pub(crate) async fn leave(&mut self, room: &str) {
        self.say(&format!("{{\"type\":\"leave:room\",\"payload\":{{\"roomId\":\"{room}\"}}}}"))
            .await;
        assert_eq!(self.next("room:left").await["payload"]["roomId"], room);
    }

    pub(crate) async fn hears(&mut self, n: u32) {
        assert_eq!(self.next("news").await["payload"], n);
    }

    /// What the server said at the end, after nothing else.
    pub(crate) async fn ended(&mut self) -> Option<u16> {
        let message = in_time(self.pipe.next()).await;
        assert_eq!(message, None);
        self.pipe.closed().map(|reason| reason.code)
    }
}

pub(crate) fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("it is a name"))
}

pub(crate) fn user(name: &str) -> Topic {
    Topic::user(TenantId::default(), UserId::new(name).expect("it is a name"))
}

pub(crate) fn news(topic: &Topic, n: u32) -> Publication {
    Publication::new(topic.clone(), Message::of("news", &n).expect("a number is JSON"))
}

pub(crate) async fn publish(hub: &Hub, publication: Publication) {
    in_time(hub.publish(publication)).await.expect("the bus takes it");
}

pub(crate) async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("it comes in time")
}

/// Asks until it is so: for what a test can only see from outside.
pub(crate) async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    in_time(async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Bytes under way to a client of these tests.
pub(crate) const PIPE: usize = 4096;
/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
