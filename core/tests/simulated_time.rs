//! Hubs on clocks that tests move: each runtime of a process has its own, and everything follows it.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test reads the clock and serves its connections")]

mod support;

use std::time::{Duration, SystemTime};

use tidings_bus_memory::MemoryBus;
use tidings_core::testing::{MemoryPipe, PipeClient};
use tidings_core::{ConnectOptions, Hub, Identity, UserId};
use tokio::time::sleep;

use support::*;

/// Runs a test on a clock of its own that stands until it is moved.
fn on_its_own_clock(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(test);
}

async fn connect(hub: &Hub, expires_at: Option<u64>) -> PipeClient {
    let mut who = Identity::user(UserId::new("u").expect("it is a name"));
    who.expires_at = expires_at;
    let options = ConnectOptions::default();
    let attachment = hub.attach(who, options, MemoryPipe::info()).await.expect("it is taken in");
    let (server, mut client) = MemoryPipe::new(1 << 20);
    tokio::spawn(attachment.serve(server));
    assert!(client.next().await.is_some_and(|text| text.contains("connected")));
    client
}

/// Sends as many messages as may come at once; answers how many were too many.
async fn refused(client: &mut PipeClient, burst: u32) -> usize {
    let mut refused = 0;
    for _ in 0..burst {
        assert!(client.send("{\"type\":\"ping\"}").await);
        refused += usize::from(!client.next().await.expect("an answer").contains("pong"));
    }
    refused
}

#[test]
fn a_clock_that_was_moved_far_moves_no_other() {
    on_its_own_clock(async {
        let hub = hub(&MemoryBus::default()).await;
        let _client = connect(&hub, None).await;
        sleep(Duration::from_secs(24 * 3600)).await;
    });
    on_its_own_clock(async {
        let hub = hub(&MemoryBus::default()).await;
        let burst = hub.limits().message_burst;
        let mut client = connect(&hub, None).await;
        for _ in 0..3 {
            assert_eq!(refused(&mut client, burst).await, 0, "the rate limit follows the clock");
            sleep(Duration::from_secs(10)).await;
        }
    });
}

#[test]
fn a_token_expires_by_the_clock_that_everything_follows() {
    on_its_own_clock(async {
        let hub = hub(&MemoryBus::default()).await;
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let mut client = connect(&hub, Some(now + 600)).await;
        sleep(Duration::from_secs(598)).await;
        // It has heard nothing for so long that it is sent a newer cursor before.
        assert!(client.next().await.is_some_and(|text| text.contains(r#""type":"cursor""#)));
        assert!(client.next().await.is_some_and(|text| text.contains("token:expiring")));
        assert_eq!(client.closed(), None);
        // The leeway, and the time until its shard looks at it.
        sleep(Duration::from_secs(2) + hub.limits().token_leeway + Duration::from_secs(3)).await;
        while let Some(text) = client.next().await {
            assert!(text.contains(r#""type":"cursor""#), "{text}");
        }
        assert_eq!(client.closed().map(|reason| reason.code), Some(4001));
    });
}
