//! Whoever decides about a client may hang: the client is told in time, on a clock that does not wait.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::MemoryPipe;
use tidings_core::{
    Action, AllowAll, Anonymous, AttachError, AuthError, Authenticator, Authorizer, CloseReason,
    ConnectError, ConnectOptions, ConnectRequest, Denied, Hub, Identity, Limits, UserId,
};
use tokio::time::{Instant, sleep};

use support::*;

/// Answers after a time, or never.
#[derive(Debug)]
struct After(Option<Duration>);

impl After {
    async fn wait(&self) {
        match self.0 {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Authenticator for After {
    async fn authenticate(&self, _: &ConnectRequest) -> Result<Identity, AuthError> {
        self.wait().await;
        Ok(Identity::user(UserId::new("u").expect("it is a name")))
    }
}

#[async_trait]
impl Authorizer for After {
    async fn authorize(&self, _: &Identity, _: Action<'_>) -> Result<(), Denied> {
        self.wait().await;
        Ok(())
    }
}

async fn hub(authenticator: Arc<dyn Authenticator>, authorizer: Arc<dyn Authorizer>) -> Hub {
    let bus = Arc::new(MemoryBus::default());
    Hub::builder(bus, authenticator, authorizer).start().await.expect("the bus is there")
}

fn deadline() -> Duration {
    Limits::default().handshake_deadline
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_hangs_is_told_as_1013() {
    let hub = hub(Arc::new(After(None)), Arc::new(AllowAll)).await;
    let start = Instant::now();
    let error = hub.connect(&ConnectRequest::default(), MemoryPipe::info()).await;
    let error = error.expect_err("nobody knows who it is");
    assert_eq!(error.close_reason(), CloseReason::TRY_AGAIN_LATER);
    assert_eq!(start.elapsed().as_secs(), deadline().as_secs());
}

#[tokio::test(start_paused = true)]
async fn both_steps_have_one_deadline() {
    let hub = hub(Arc::new(After(Some(deadline() * 9 / 10))), Arc::new(AllowAll)).await;
    let connect = ConnectRequest::default();
    let attached = hub.connect(&connect, MemoryPipe::info()).await;
    drop(attached.expect("it is in time"));
    assert!(
        matches!(hub.authenticate(&connect).await, Ok(identity) if identity.user.as_str() == "u")
    );
}

#[tokio::test(start_paused = true)]
async fn rooms_that_nobody_decides_about_are_told_as_1013() {
    let hub = hub(Arc::new(Anonymous), Arc::new(After(None))).await;
    let seen = Client::connect_with(&hub, "u", ConnectOptions::default()).await.1;
    let cursor = seen["cursor"].as_str().map(str::to_owned);
    assert!(cursor.is_some());
    for cursor in [None, cursor] {
        let rooms = (0..100).map(|n| format!("r{n}")).collect();
        let options = ConnectOptions { rooms, cursor, ..ConnectOptions::default() };
        let start = Instant::now();
        let attachment = attach_with(&hub, "u", options).await.expect("it is taken in");
        let (server, mut pipe) = MemoryPipe::new(PIPE);
        tokio::spawn(attachment.serve(server));
        while pipe.next().await.is_some() {}
        assert_eq!(pipe.closed(), Some(CloseReason::TRY_AGAIN_LATER));
        assert_eq!(start.elapsed().as_secs(), deadline().as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_nobody_decides_about_is_unavailable() {
    let hub = hub(Arc::new(Anonymous), Arc::new(After(None))).await;
    let mut client = Client::connect(&hub, "u").await;
    client.say("{\"type\":\"join:room\",\"payload\":{\"roomId\":\"r\"},\"id\":1}").await;
    let error = client.next("error").await;
    assert_eq!((&error["id"], &error["payload"]["code"]), (&1.into(), &"unavailable".into()));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_and_a_drain_end_when_the_last_is_gone() {
    for drain in [true, false] {
        let hub = hub(Arc::new(Anonymous), Arc::new(AllowAll)).await;
        let client = Client::connect(&hub, "u").await;
        let start = Instant::now();
        match drain {
            true => hub.drain(Duration::ZERO).await,
            false => hub.shutdown(CloseReason::GOING_AWAY).await,
        }
        assert_eq!(hub.stats().connections.values().sum::<usize>(), 0);
        assert!(start.elapsed() < Limits::default().close_deadline * 2, "{:?}", start.elapsed());
        let refused = hub.connect(&ConnectRequest::default(), MemoryPipe::info()).await;
        assert!(matches!(refused, Err(ConnectError::Attach(AttachError::Draining))));
        drop(client);
    }
}
