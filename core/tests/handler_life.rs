//! The life of a handler's calls: what is cut, what is told, and what nobody waits for.

#![cfg(feature = "testing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, CloseReason, Context, Handler, HandlerError, Hub, Message, Reply,
};
use tokio::sync::{Mutex, Notify};

use support::*;

/// What a connection's calls do, by the name of its user.
#[derive(Debug, Default)]
struct Calls {
    /// Held by `on_message` for as long as it waits, and taken by `on_disconnect`.
    pool: Mutex<()>,
    /// A call waits for good.
    waiting: Notify,
    connected: AtomicUsize,
    disconnected: AtomicUsize,
}

impl Calls {
    async fn wait(&self) {
        self.waiting.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl Handler for Calls {
    async fn on_connect(&self, context: &Context) -> Result<(), CloseReason> {
        match context.identity().user.as_str() {
            "refused" => return Err(CloseReason::UNAUTHORIZED),
            "slow to come" => self.wait().await,
            _ => {}
        }
        self.connected.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn on_message(&self, _: &Context, _: &Message) -> Result<Reply, HandlerError> {
        let _held = self.pool.lock().await;
        self.wait().await;
        Ok(Reply::None)
    }

    async fn on_disconnect(&self, context: &Context) {
        self.disconnected.fetch_add(1, SeqCst);
        if context.identity().user.as_str() == "slow to go" {
            self.wait().await;
        }
        drop(self.pool.lock().await);
    }
}

async fn start() -> (Hub, Arc<Calls>) {
    let calls = Arc::new(Calls::default());
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).handler(calls.clone());
    (hub.start().await.expect("the bus is there"), calls)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_holds_nothing_when_its_client_is_said_to_be_gone() {
    let (hub, calls) = start().await;
    let mut client = Client::connect(&hub, "u").await;
    client.say(r#"{"type":"app","payload":{}}"#).await;
    calls.waiting.notified().await;
    hub.disconnect(user("u"), CloseReason::DISCONNECTED).await.expect("all answer");
    assert_eq!(client.ended().await, Some(4002));
    until(async || hub.users().await.is_empty()).await;
    drop(in_time(calls.pool.lock()).await);
    assert_eq!(calls.disconnected.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_farewell_that_never_ends_holds_nobody_back() {
    let (hub, calls) = start().await;
    let mut client = Client::connect(&hub, "slow to go").await;
    hub.disconnect(user("slow to go"), CloseReason::DISCONNECTED).await.expect("all answer");
    assert_eq!(client.ended().await, Some(4002), "told while the handler still waits");
    calls.waiting.notified().await;
    until(async || hub.users().await.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_accepted_is_said_to_be_gone_once_and_nobody_else() {
    let (hub, calls) = start().await;
    let mut client = Client::connect(&hub, "refused").await;
    assert_eq!(client.ended().await, Some(1008));
    let mut client = Client::connect(&hub, "slow to come").await;
    calls.waiting.notified().await;
    hub.disconnect(user("slow to come"), CloseReason::DISCONNECTED).await.expect("all answer");
    assert_eq!(client.ended().await, Some(4002));
    let mut client = Client::connect(&hub, "u").await;
    until(async || calls.connected.load(SeqCst) == 1).await;
    hub.disconnect(user("u"), CloseReason::DISCONNECTED).await.expect("all answer");
    assert_eq!(client.ended().await, Some(4002));
    until(async || hub.users().await.is_empty()).await;
    assert_eq!((calls.connected.load(SeqCst), calls.disconnected.load(SeqCst)), (1, 1));
}
