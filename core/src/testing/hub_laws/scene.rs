//! Hubs, clients in memory and what they say to each other: for the laws, and for tests of a hub beside them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::testing::script::in_background;
use crate::testing::{MemoryPipe, PipeClient};
use crate::{
    AllowAll, Anonymous, AttachError, Attachment, Bus, ClientId, CloseReason, ConnectOptions,
    Context, Handler, HandlerError, Hub, Identity, Limits, Message, Publication, Reply, RoomId,
    TenantId, Topic, UserId,
};

/// Panics at `panic`, answers `echo`, knows nothing else.
#[derive(Debug)]
pub struct App;

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

/// A node that grants what is changed.
pub async fn hub_with(bus: &Arc<dyn Bus>, change: impl FnOnce(&mut Limits)) -> Hub {
    let mut limits = Limits::default();
    change(&mut limits);
    let builder = Hub::builder(Arc::clone(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    builder.handler(Arc::new(App)).limits(limits).shards(2).start().await.expect("the bus is there")
}

/// A node with everything by default, of two shards.
pub async fn hub(bus: &Arc<dyn Bus>) -> Hub {
    hub_with(bus, |_| {}).await
}

/// Takes a connection in that nobody serves yet.
///
/// # Errors
/// What the hub says.
pub async fn attach(hub: &Hub, user: &str) -> Result<Attachment, AttachError> {
    attach_with(hub, user, ConnectOptions::default()).await
}

/// The same with options.
///
/// # Errors
/// What the hub says.
pub async fn attach_with(
    hub: &Hub,
    user: &str,
    options: ConnectOptions,
) -> Result<Attachment, AttachError> {
    let identity = Identity::user(UserId::new(user).expect("it is a name"));
    in_time(hub.attach(identity, options, MemoryPipe::info())).await
}

/// A client that insists on what it hears.
#[derive(Debug)]
pub struct Client {
    /// Its end of the connection.
    pub pipe: PipeClient,
    /// Its id.
    pub id: ClientId,
    /// The newest that came.
    pub cursor: Option<String>,
}

impl Client {
    /// Connects, and insists that `connected` is first.
    pub async fn connect(hub: &Hub, user: &str) -> Self {
        Self::connect_with(hub, user, ConnectOptions::default()).await.0
    }

    /// The same with options; answers `connected` too.
    pub async fn connect_with(hub: &Hub, user: &str, options: ConnectOptions) -> (Self, Value) {
        let attachment = attach_with(hub, user, options).await.expect("it is taken in");
        let (server, pipe) = MemoryPipe::new(PIPE);
        let id = attachment.client_id();
        in_background(attachment.serve(server));
        let mut client = Self { pipe, id, cursor: None };
        let connected = client.next("connected").await;
        assert_eq!(connected["payload"]["clientId"], id.to_string());
        (client, connected)
    }

    /// How it asks for what it missed, in these rooms.
    pub fn back(&self, rooms: &[&str]) -> ConnectOptions {
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        let (cursor, previous) = (self.cursor.clone(), Some(self.id));
        ConnectOptions { rooms, cursor, previous, ..ConnectOptions::default() }
    }

    /// Sends a message.
    pub async fn say(&self, json: &str) {
        assert!(self.pipe.send(json.to_owned()).await, "the server listens");
    }

    /// The next message, which is of this type.
    pub async fn next(&mut self, kind: &str) -> Value {
        let message = self.any().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The next message, whatever it is.
    pub async fn any(&mut self) -> Value {
        let text = in_time(self.pipe.next()).await;
        let text = text.unwrap_or_else(|| panic!("it ended: {:?}", self.pipe.closed()));
        let message: Value = serde_json::from_str(&text).expect("it is JSON");
        if let Some(cursor) = message["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        message
    }

    /// Joins a room.
    pub async fn join(&mut self, room: &str) {
        self.say(&format!("{{\"type\":\"join:room\",\"payload\":{{\"roomId\":\"{room}\"}}}}"))
            .await;
        assert_eq!(self.next("room:joined").await["payload"]["roomId"], room);
    }

    /// Leaves a room.
    pub async fn leave(&mut self, room: &str) {
        self.say(&format!("{{\"type\":\"leave:room\",\"payload\":{{\"roomId\":\"{room}\"}}}}"))
            .await;
        assert_eq!(self.next("room:left").await["payload"]["roomId"], room);
    }

    /// The next message is this [`news`].
    pub async fn hears(&mut self, n: u32) {
        assert_eq!(self.next("news").await["payload"], n);
    }

    /// What the server said at the end, after nothing else.
    pub async fn ended(&mut self) -> Option<u16> {
        let message = in_time(self.pipe.next()).await;
        assert_eq!(message, None);
        self.pipe.closed().map(|reason| reason.code)
    }
}

/// A room of the default tenant.
pub fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("it is a name"))
}

/// A user of the default tenant.
pub fn user(name: &str) -> Topic {
    Topic::user(TenantId::default(), UserId::new(name).expect("it is a name"))
}

/// Everyone of the default tenant.
pub fn everyone() -> Topic {
    Topic::everyone(TenantId::default())
}

/// A name like this one whose topic is in the same partition as [`everyone`]: between such topics there is an order.
pub fn beside_everyone(bus: &Arc<dyn Bus>, name: &str, topic: impl Fn(&str) -> Topic) -> String {
    let names = (0..).map(|n| if n == 0 { name.to_owned() } else { format!("{name}{n}") });
    let partition = bus.partition(&everyone());
    let mut beside = names.into_iter().filter(|name| bus.partition(&topic(name)) == partition);
    beside.next().expect("there are names without end")
}

/// A message with a number.
pub fn news(topic: &Topic, n: u32) -> Publication {
    Publication::new(topic.clone(), Message::of("news", &n).expect("a number is JSON"))
}

/// Publishes, and insists that it is accepted.
pub async fn publish(hub: &Hub, publication: Publication) {
    in_time(hub.publish(publication)).await.expect("the bus takes it");
}

/// Waits for an answer, and panics when it does not come within [`PATIENCE`].
pub async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("it comes in time")
}

/// Asks until it is so: for what a test can only see from outside.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    in_time(async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Bytes under way to a client of these tests.
pub const PIPE: usize = 4096;
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);
