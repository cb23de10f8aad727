//! A hub that goes away, on a clock that the tests move: connections in memory and the in-process bus.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test reads the clock and serves its connections")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::{MemoryPipe, PipeClient};
use tidings_core::{
    AllowAll, Anonymous, AttachError, CloseReason, ConnectOptions, Hub, Identity, Limits, Message,
    Publication, TenantId, Topic, UserId,
};
use tokio::time::Instant;

async fn hub(change: impl FnOnce(&mut Limits)) -> Hub {
    let mut limits = Limits::default();
    change(&mut limits);
    let bus = Arc::new(MemoryBus::default());
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll));
    builder.limits(limits).shards(2).start().await.expect("the bus is there")
}

/// A client that is served, and has read nothing yet.
async fn connect(hub: &Hub, n: usize) -> PipeClient {
    let who = Identity::user(UserId::new(format!("u{n}")).expect("it is a name"));
    let options = ConnectOptions::default();
    let attachment = hub.attach(who, options, MemoryPipe::info()).await.expect("it is taken in");
    let (server, client) = MemoryPipe::new(64 * 1024);
    tokio::spawn(attachment.serve(server));
    client
}

/// What a client was sent until its end, and when that was.
struct Stay {
    messages: Vec<Value>,
    closed: CloseReason,
    left: Duration,
}

async fn until_closed(mut client: PipeClient, start: Instant) -> Stay {
    let mut messages = Vec::new();
    while let Some(text) = client.next().await {
        messages.push(serde_json::from_str(&text).expect("it is JSON"));
    }
    Stay { messages, closed: client.closed().expect("it was told"), left: start.elapsed() }
}

async fn publish(hub: &Hub, n: usize) {
    let message = Message::of("news", &n).expect("a number is JSON");
    let everyone = Topic::everyone(TenantId::default());
    hub.publish(Publication::new(everyone, message)).await.expect("the bus takes it");
}

#[tokio::test(start_paused = true)]
async fn connections_leave_evenly_and_hear_everything_until_then() {
    let hub = hub(|_| {}).await;
    let start = Instant::now();
    let mut stays = Vec::new();
    for n in 0..200 {
        stays.push(tokio::spawn(until_closed(connect(&hub, n).await, start)));
    }
    let draining = tokio::spawn({
        let hub = hub.clone();
        async move { hub.drain(Duration::from_secs(20)).await }
    });
    // Between the closes: one leaves at each tenth of a second.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(hub.is_draining() && !hub.is_ready());
    for n in 0..20 {
        publish(&hub, n).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    draining.await.expect("it ends");

    let mut left = Vec::new();
    let mut delays = Vec::new();
    for stay in stays {
        let Stay { messages, closed, left: at } = stay.await.expect("it ends");
        assert_eq!(closed.code, 1012);
        let last = messages.last().expect("messages");
        assert_eq!(last["type"], "server:draining");
        let told = last["payload"]["reconnectAfterMs"].as_u64().expect("milliseconds");
        let after = closed.reconnect_after.expect("a delay");
        assert_eq!(u128::from(told), after.as_millis());
        let heard = messages.iter().filter(|m| m["type"] == "news").count();
        // Published at 0.05 s, 1.05 s, …: so many as there were before it left.
        let published = (at + Duration::from_millis(950)).as_secs() as usize;
        assert_eq!(heard, published, "left at {at:?}");
        left.push(at);
        delays.push(after);
    }
    left.sort_unstable();
    for (n, at) in left.iter().enumerate() {
        let due = Duration::from_millis(100) * n as u32;
        assert!((due..due + Duration::from_millis(90)).contains(at), "{n}: {at:?}");
    }
    delays.sort_unstable();
    delays.dedup();
    assert_eq!(delays.len(), 200, "each has its own");
}

#[tokio::test(start_paused = true)]
async fn nobody_new_comes_in_while_it_drains() {
    let hub = hub(|_| {}).await;
    let start = Instant::now();
    let first = tokio::spawn(until_closed(connect(&hub, 0).await, start));
    let second = tokio::spawn(until_closed(connect(&hub, 1).await, start));
    let draining = tokio::spawn({
        let hub = hub.clone();
        async move { hub.drain(Duration::from_secs(10)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = hub.admit(None).expect_err("it drains");
    assert_eq!(refused.code, 1012);
    assert!(refused.reconnect_after.is_some_and(|delay| delay <= Duration::from_secs(1)));
    let who = Identity::user(UserId::new("late").expect("it is a name"));
    let attached = hub.attach(who, ConnectOptions::default(), MemoryPipe::info()).await;
    assert!(matches!(attached, Err(AttachError::Draining)));
    assert_eq!(first.await.expect("it ends").closed.code, 1012);
    assert_eq!(second.await.expect("it ends").closed.code, 1012);
    draining.await.expect("it ends");
    assert!(start.elapsed() < Duration::from_secs(6), "the last of two left half-way");
}

#[tokio::test(start_paused = true)]
async fn without_a_window_all_leave_at_once_and_come_back_spread() {
    let hub = hub(|limits| limits.accept_rate = 100).await;
    let start = Instant::now();
    let mut stays = Vec::new();
    for n in 0..200 {
        stays.push(tokio::spawn(until_closed(connect(&hub, n).await, start)));
    }
    hub.drain(Duration::ZERO).await;
    let mut back = [0; 4];
    for stay in stays {
        let stay = stay.await.expect("it ends");
        assert!(stay.left < Duration::from_secs(1), "{:?}", stay.left);
        let after = stay.closed.reconnect_after.expect("a delay") - Duration::from_millis(100);
        back[after.as_secs() as usize] += 1;
    }
    // At half of what another node takes.
    assert!(back.iter().all(|n| (49..=51).contains(n)), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_does_not_hold_the_end_up() {
    let hub = hub(|limits| {
        limits.write_deadline = Duration::from_secs(30);
        limits.close_deadline = Duration::from_secs(2);
    })
    .await;
    let who = Identity::user(UserId::new("stuck").expect("it is a name"));
    let options = ConnectOptions::default();
    let attachment = hub.attach(who, options, MemoryPipe::info()).await.expect("it is taken in");
    // One byte is under way and never read.
    let (server, _client) = MemoryPipe::new(1);
    tokio::spawn(attachment.serve(server));
    let other = tokio::spawn(until_closed(connect(&hub, 1).await, Instant::now()));
    let start = Instant::now();
    hub.drain(Duration::from_secs(3)).await;
    // The last of two leaves half-way.
    let most = Duration::from_millis(1500) + hub.limits().close_deadline;
    let slack = Duration::from_millis(10);
    assert!((most..most + slack).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(other.await.expect("it ends").closed.code, 1012);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_broken_off_leaves_the_rest_to_a_shutdown() {
    let hub = hub(|_| {}).await;
    let start = Instant::now();
    let (first, second) = (connect(&hub, 0).await, connect(&hub, 1).await);
    let drain = hub.drain(Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_secs(1), drain).await.is_err());
    hub.shutdown(CloseReason::GOING_AWAY).await;
    let codes = [first, second].map(|client| until_closed(client, start));
    let [first, second] = codes;
    let mut codes = [first.await.closed.code, second.await.closed.code];
    codes.sort_unstable();
    assert_eq!(codes, [1001, 1012]);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn the_gate_opens_again_with_time() {
    let hub = hub(|limits| (limits.accept_rate, limits.accept_burst) = (10, 2)).await;
    for _ in 0..100 {
        // What comes to nothing gives its place back.
        drop(hub.admit(None).expect("there are places"));
    }
    for _ in 0..2 {
        hub.admit(None).expect("there are places").keep();
    }
    let refused = hub.admit(None).expect_err("it is full");
    assert_eq!(refused.code, 1013);
    tokio::time::sleep(refused.reconnect_after.expect("a delay")).await;
    assert!(hub.admit(None).is_ok());
}
