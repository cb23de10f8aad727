//! What nodes on one bus do for each other: a client is reached and disconnected from any of them.

use std::sync::Arc;
use std::time::Duration;

use super::lossy::Lossy;
use super::scene::{in_time, until};
use crate::testing::bus_laws::BusFixture;
use crate::testing::script::in_background;
use crate::testing::{MemoryPipe, PipeClient};
use crate::{
    AllowAll, Anonymous, Bus, ClientId, CloseReason, ConnectOptions, Hub, Identity, Limits,
    Mailbox, Message, NodeId, Publication, PublishError, SubmitError, TenantId, Topic, Transport,
    TransportInfo, UserId,
};
use bytes::Bytes;
use serde_json::Value;

/// A connection that is written to by `Hub::submit` alone, as an event stream is.
struct Stream {
    mailbox: Mailbox,
    pipe: MemoryPipe,
}

impl Transport for Stream {
    type Reader = Mailbox;
    type Writer = <MemoryPipe as Transport>::Writer;

    fn info(&self) -> TransportInfo {
        self.pipe.info()
    }

    fn split(self) -> (Self::Reader, Self::Writer) {
        (self.mailbox, self.pipe.split().1)
    }
}

struct Client {
    pipe: PipeClient,
    id: ClientId,
}

impl Client {
    async fn connect(hub: &Hub, who: Identity) -> Self {
        let attached = hub.attach(who, ConnectOptions::default(), MemoryPipe::info());
        let attachment = in_time(attached).await.expect("it is taken in");
        let (pipe, client) = MemoryPipe::new(64 * 1024);
        let id = attachment.client_id();
        let stream = Stream { mailbox: attachment.mailbox(), pipe };
        in_background(attachment.serve(stream));
        let mut client = Self { pipe: client, id };
        assert_eq!(client.next().await["type"], "connected");
        client
    }

    async fn next(&mut self) -> Value {
        let text = in_time(self.pipe.next()).await;
        let text = text.unwrap_or_else(|| panic!("ended: {:?}", self.pipe.closed()));
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// Why the server ended it, after nothing else.
    async fn ended(&mut self) -> Option<CloseReason> {
        assert_eq!(in_time(self.pipe.next()).await, None);
        self.pipe.closed()
    }
}

async fn node(bus: &Arc<dyn Bus>) -> Hub {
    patient_node(bus, Limits::default().bus_deadline).await
}

/// A node that waits so long for the others.
async fn patient_node(bus: &Arc<dyn Bus>, bus_deadline: Duration) -> Hub {
    let builder = Hub::builder(Arc::clone(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    let mut limits = Limits::default();
    (limits.message_bytes, limits.message_burst, limits.message_rate) = (1000, 6, 1);
    limits.bus_deadline = bus_deadline;
    builder.limits(limits).shards(2).start().await.expect("the bus is there")
}

fn user(name: &str) -> Identity {
    Identity::user(UserId::new(name).expect("a name"))
}

fn of_tenant(tenant: &str, name: &str) -> Identity {
    let mut who = user(name);
    who.tenant = TenantId::new(tenant).expect("a name");
    who
}

/// A message for a connection is taken at any node, is checked there, and counts on one budget.
pub async fn a_message_is_submitted_at_any_node<F: BusFixture>() {
    let fixture = F::start().await;
    let (holder, other) = (node(&fixture.bus()).await, node(&fixture.bus()).await);
    let ada = of_tenant("t", "ada");
    let mut client = Client::connect(&holder, ada.clone()).await;
    let id = client.id;
    for hub in [&holder, &other] {
        let submit = |who: Identity, message: &'static [u8]| {
            in_time(async move { hub.submit(id, &who, Bytes::from_static(message)).await })
        };
        assert_eq!(submit(ada.clone(), br#"{"type":"ping","id":1}"#).await, Ok(()));
        let pong = client.next().await;
        assert_eq!((&pong["type"], &pong["id"]), (&"pong".into(), &1.into()), "{pong}");
        assert_eq!(submit(ada.clone(), b"{}").await, Err(SubmitError::Invalid));
        assert_eq!(submit(ada.clone(), b"\xff").await, Err(SubmitError::Invalid));
        let ping = br#"{"type":"ping"}"#;
        assert_eq!(submit(of_tenant("t", "bob"), ping).await, Err(SubmitError::Forbidden));
        assert_eq!(submit(of_tenant("u", "ada"), ping).await, Err(SubmitError::NotFound));
        assert_eq!(submit(user("ada"), ping).await, Err(SubmitError::NotFound));
        assert_eq!(submit(ada.clone(), &[b' '; 1001]).await, Err(SubmitError::TooLarge));
    }
    // What was refused before it reached the connection did not count; its budget is the same on all nodes.
    let ping = Bytes::from_static(br#"{"type":"ping"}"#);
    in_time(async {
        while other.submit(id, &ada, ping.clone()).await != Err(SubmitError::RateLimited) {}
    })
    .await;
}

/// A client that no node has, or has no more, is not found.
pub async fn whom_no_node_has_is_not_found<F: BusFixture>() {
    let fixture = F::start().await;
    let (holder, other) = (node(&fixture.bus()).await, node(&fixture.bus()).await);
    let nobody = ClientId::from_bits(7);
    let ping = Bytes::from_static(br#"{"type":"ping"}"#);
    let answer = in_time(other.submit(nobody, &user("ada"), ping.clone())).await;
    assert_eq!(answer, Err(SubmitError::NotFound));
    // Its node still has the topic for a while after the client has gone.
    let client = Client::connect(&holder, user("ada")).await;
    let id = client.id;
    drop(client);
    let hers = Topic::client(TenantId::default(), id);
    in_time(holder.disconnect(hers, CloseReason::DISCONNECTED)).await.expect("all answer");
    in_time(async {
        while other.submit(id, &user("ada"), ping.clone()).await != Err(SubmitError::NotFound) {}
    })
    .await;
}

/// A disconnect ends the connections of a user or a client on all nodes, and counts them.
pub async fn a_disconnect_reaches_all_nodes<F: BusFixture>() {
    let fixture = F::start().await;
    let (one, two) = (node(&fixture.bus()).await, node(&fixture.bus()).await);
    let mut hers =
        [Client::connect(&one, user("ada")).await, Client::connect(&two, user("ada")).await];
    let mut his = Client::connect(&two, user("bob")).await;
    let mut namesake = Client::connect(&two, of_tenant("t", "ada")).await;
    let topic = Topic::user(TenantId::default(), user("ada").user);
    let mut reason = CloseReason::DISCONNECTED.with_text("enough");
    reason.reconnect_after = Some(Duration::from_secs(7));
    assert_eq!(in_time(one.disconnect(topic, reason.clone())).await, Ok(2));
    for client in &mut hers {
        assert_eq!(client.ended().await, Some(reason.clone()));
    }
    let topic = Topic::client(TenantId::default(), his.id);
    assert_eq!(in_time(one.disconnect(topic.clone(), reason.clone())).await, Ok(1));
    assert_eq!(his.ended().await, Some(reason));
    let ping = Bytes::from_static(br#"{"type":"ping"}"#);
    let answer = in_time(one.submit(namesake.id, &of_tenant("t", "ada"), ping)).await;
    assert_eq!((answer, &namesake.next().await["type"]), (Ok(()), &"pong".into()));
}

/// A node ends its own connections also while the bus is away, and does not hide that others may have more.
pub async fn what_is_near_is_disconnected_without_the_bus<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = patient_node(&fixture.bus(), Duration::from_secs(1)).await;
    let mut client = Client::connect(&hub, user("ada")).await;
    fixture.set_available(false).await;
    let topic = Topic::user(TenantId::default(), user("ada").user);
    let told = in_time(hub.disconnect(topic, CloseReason::DISCONNECTED)).await;
    assert_eq!(told.map_err(|error| error.ended), Err(1));
    let mut ended = in_time(client.pipe.next()).await;
    while ended.is_some() {
        ended = in_time(client.pipe.next()).await;
    }
    assert_eq!(client.pipe.closed(), Some(CloseReason::DISCONNECTED));
}

/// A user that is disconnected while the bus is away is disconnected once it is back, on every node.
pub async fn a_disconnect_outlives_an_outage<F: BusFixture>() {
    let fixture = F::start().await;
    let (one, two) = (patient_node(&fixture.bus(), LONG).await, node(&fixture.bus()).await);
    let mut client = Client::connect(&two, user("ada")).await;
    fixture.set_available(false).await;
    let topic = Topic::user(TenantId::default(), user("ada").user);
    let told = in_background(async move { one.disconnect(topic, CloseReason::DISCONNECTED).await });
    fixture.set_available(true).await;
    assert_eq!(in_time(told).await.expect("no panic"), Ok(1));
    let mut ended = in_time(client.pipe.next()).await;
    while ended.is_some() {
        ended = in_time(client.pipe.next()).await;
    }
    assert_eq!(client.pipe.closed(), Some(CloseReason::DISCONNECTED));
}

/// A node that has lost its links may have connections of a user: that is an error and never a smaller number, until it
/// is there again.
pub async fn a_node_that_cannot_be_reached_is_an_error<F: BusFixture>() {
    let fixture = F::start().await;
    let lossy = Arc::new(Lossy::over(fixture.bus()));
    let far: Arc<dyn Bus> = lossy.clone();
    let near = patient_node(&fixture.bus(), Duration::from_secs(1)).await;
    let far = node(&far).await;
    let mut client = Client::connect(&far, user("ada")).await;
    lossy.cut(true);
    until(async || !far.is_bus_up()).await;
    let topic = Topic::user(TenantId::default(), user("ada").user);
    let told = in_time(near.disconnect(topic.clone(), CloseReason::DISCONNECTED)).await;
    assert_eq!(told.map_err(|error| error.ended), Err(0));
    lossy.cut(false);
    let patient = patient_node(&fixture.bus(), LONG).await;
    assert_eq!(in_time(patient.disconnect(topic, CloseReason::DISCONNECTED)).await, Ok(1));
    while in_time(client.pipe.next()).await.is_some() {}
    assert_eq!(client.pipe.closed(), Some(CloseReason::DISCONNECTED));
}

/// A node that has ended in order is not waited for.
pub async fn a_node_that_has_ended_is_not_waited_for<F: BusFixture>() {
    let fixture = F::start().await;
    let (near, gone) = (node(&fixture.bus()).await, node(&fixture.bus()).await);
    in_time(gone.drain(Duration::ZERO)).await;
    drop(gone);
    let topic = Topic::user(TenantId::default(), user("ada").user);
    assert_eq!(in_time(near.disconnect(topic, CloseReason::DISCONNECTED)).await, Ok(0));
}

/// A node that listens and does not answer is not waited for without end.
pub async fn a_node_that_does_not_answer_is_waited_for_in_bounded_time<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = node(&fixture.bus()).await;
    let client = Client::connect(&hub, user("ada")).await;
    let elsewhere = Topic::client(TenantId::default(), ClientId::from_bits(7));
    let hers = Topic::client(TenantId::default(), client.id);
    let (bus, mut mute) = (fixture.bus(), Vec::new());
    for topic in [&elsewhere, &hers] {
        let mut link = bus.connect(bus.partition(topic)).await.expect("the bus is there");
        link.interest.subscribe(std::slice::from_ref(topic)).await.expect("it is subscribed");
        mute.push(link);
    }
    let ping = Bytes::from_static(br#"{"type":"ping"}"#);
    let answer = in_time(hub.submit(ClientId::from_bits(7), &user("ada"), ping)).await;
    assert_eq!(answer, Err(SubmitError::Unavailable));
    // A stranger that listens to clients is no node, and holds a disconnect up by nothing.
    assert_eq!(in_time(hub.disconnect(hers, CloseReason::DISCONNECTED)).await, Ok(1));
}

/// Clients neither cause nor see the messages of nodes to each other.
pub async fn clients_neither_cause_nor_see_what_nodes_say<F: BusFixture>() {
    let fixture = F::start().await;
    let (holder, other) = (node(&fixture.bus()).await, node(&fixture.bus()).await);
    let mut client = Client::connect(&holder, user("ada")).await;
    let hers = Topic::client(TenantId::default(), client.id);
    for kind in ["server:command", "server:answer"] {
        let message = Message::of(kind, &1).expect("a message");
        let refused = in_time(other.publish(Publication::new(hers.clone(), message))).await;
        assert!(matches!(refused, Err(PublishError::Reserved)), "{kind}: {refused:?}");
        let message = Bytes::from(format!(r#"{{"type":"{kind}"}}"#));
        let told = in_time(other.submit(client.id, &user("ada"), message)).await;
        assert_eq!(told, Ok(()), "{kind}");
        // The command that carried it came by her topic; all she sees is the answer.
        assert_eq!(client.next().await["payload"]["code"], "reserved_type", "{kind}");
        // One that a stranger put on the bus is read by nobody and shown to nobody.
        let message = Message::of(kind, &"nonsense").expect("a message");
        fixture.bus().publish(vec![Publication::new(hers.clone(), message)]).await;
    }
    let mark = Message::of("mark", &1).expect("a message");
    in_time(other.publish(Publication::new(hers, mark))).await.expect("the bus takes it");
    assert_eq!(client.next().await["type"], "mark");
}

/// A node has the name that it was given, or one that no other has.
pub async fn a_node_has_a_name<F: BusFixture>() {
    let fixture = F::start().await;
    let name = NodeId::new("node-1").expect("a name");
    let builder = Hub::builder(fixture.bus(), Arc::new(Anonymous), Arc::new(AllowAll));
    let named = builder.node(name.clone()).start().await.expect("the bus is there");
    assert_eq!(named.node_id(), &name);
    assert_ne!(node(&fixture.bus()).await.node_id(), node(&fixture.bus()).await.node_id());
}

/// Longer than any outage of a law.
const LONG: Duration = Duration::from_secs(60);
