//! What becomes of a client that takes nothing more: the hub still does everything else for it, in bounded time.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::scene::{PATIENCE, in_time, until};
use crate::testing::MemoryPipe;
use crate::testing::bus_laws::BusFixture;
use crate::testing::script::in_background;
use crate::{
    AllowAll, Anonymous, Bus, CloseReason, ConnectOptions, Event, Frame, FrameReader, FrameWriter,
    Hub, Identity, Limits, Message, Observer, Publication, ReadError, TenantId, Topic, Transport,
    TransportInfo, UserId,
};

/// A socket of which the test says how many bytes it takes still.
#[derive(Clone)]
struct Socket {
    room: watch::Sender<usize>,
    written: Arc<Mutex<Vec<u8>>>,
    closed: Arc<Mutex<Option<CloseReason>>>,
}

impl Socket {
    fn new(room: usize) -> Self {
        let (room, _) = watch::channel(room);
        Self { room, written: Arc::default(), closed: Arc::default() }
    }

    fn take(&self, frames: &[Bytes]) -> usize {
        let mut taken = 0;
        self.room.send_modify(|room| {
            for frame in frames {
                let part = frame.len().min(*room);
                self.written.lock().expect("not poisoned").extend_from_slice(&frame[..part]);
                (*room, taken) = (*room - part, taken + part);
            }
        });
        taken
    }

    fn closed(&self) -> Option<CloseReason> {
        self.closed.lock().expect("not poisoned").clone()
    }
}

impl Transport for Socket {
    type Reader = Silent;
    type Writer = Self;

    fn info(&self) -> TransportInfo {
        MemoryPipe::info()
    }

    fn split(self) -> (Silent, Self) {
        (Silent, self)
    }
}

/// A client that says nothing.
struct Silent;

impl FrameReader for Silent {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        std::future::pending().await
    }
}

impl FrameWriter for Socket {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        Ok(self.take(frames))
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        let mut room = self.room.subscribe();
        room.wait_for(|room| *room > 0).await.map_err(io::Error::other)?;
        Ok(self.take(frames))
    }

    async fn close(&mut self, reason: &CloseReason) {
        *self.closed.lock().expect("not poisoned") = Some(reason.clone());
    }
}

/// Remembers with which codes connections ended, and how many were too slow.
#[derive(Debug, Clone, Default)]
struct Ends(Arc<Mutex<Vec<Option<u16>>>>, Arc<AtomicUsize>);

impl Observer for Ends {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Closed { reason, .. } => {
                self.0.lock().expect("not poisoned").push(reason.map(|reason| reason.code));
            }
            Event::TooSlow { .. } => drop(self.1.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Ends {
    /// Waits for the one end.
    async fn one(&self) -> Option<u16> {
        in_time(async {
            loop {
                if let Some(end) = self.0.lock().expect("not poisoned").first() {
                    return *end;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

async fn hub(bus: Arc<dyn Bus>, change: impl FnOnce(&mut Limits)) -> (Hub, Ends) {
    let (mut limits, ends) = (Limits::default(), Ends::default());
    // Longer than a test waits: what ends before that has not waited for it.
    (limits.write_deadline, limits.close_deadline) = (PATIENCE * 2, Duration::from_millis(100));
    change(&mut limits);
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.limits(limits).observer(Arc::new(ends.clone()));
    (builder.start().await.expect("the bus is there"), ends)
}

/// Connects a client whose socket takes `connected` and `more` bytes.
async fn connect(hub: &Hub, more: usize) -> Socket {
    connect_as(hub, Identity::user(UserId::new("u").expect("a name")), more).await
}

async fn connect_as(hub: &Hub, who: Identity, more: usize) -> Socket {
    let attached = hub.attach(who, ConnectOptions::default(), MemoryPipe::info());
    let attachment = in_time(attached).await.expect("it is taken in");
    let socket = Socket::new(1 << 20);
    in_background(attachment.serve(socket.clone()));
    until(async || !socket.written.lock().expect("not poisoned").is_empty()).await;
    socket.room.send_replace(more);
    socket
}

fn user() -> Topic {
    Topic::user(TenantId::default(), UserId::new("u").expect("a name"))
}

async fn publish(hub: &Hub, bytes: usize) {
    let message = Message::of("bulk", &"x".repeat(bytes)).expect("a text is JSON");
    in_time(hub.publish(Publication::new(user(), message))).await.expect("the bus takes it");
}

/// A full outbox ends the connection at once, also while a write waits, and the reason is told.
pub async fn a_full_outbox_ends_at_once_although_a_write_waits<F: BusFixture>() {
    let fixture = F::start().await;
    let (hub, ends) = hub(fixture.bus(), |limits| limits.outbox_bytes = 4000).await;
    let socket = connect(&hub, 0).await;
    for _ in 0..5 {
        publish(&hub, 1000).await;
    }
    // No byte of a frame has left, so the reason can be told.
    assert_eq!((ends.one().await, socket.closed()), (Some(4008), Some(CloseReason::TOO_SLOW)));
}

/// A frame that has begun is finished, and nothing but the reason comes after it.
pub async fn a_frame_that_has_begun_is_finished_before_the_reason_is_told<F: BusFixture>() {
    let fixture = F::start().await;
    let (hub, ends) = hub(fixture.bus(), |limits| {
        limits.outbox_bytes = 4000;
        limits.close_deadline = PATIENCE;
    })
    .await;
    let socket = connect(&hub, 10).await;
    for _ in 0..6 {
        publish(&hub, 1000).await;
    }
    until(async || ends.1.load(Ordering::Relaxed) > 0).await;
    let before = socket.written.lock().expect("not poisoned").len() - 10;
    assert_eq!(socket.closed(), None);
    socket.room.send_replace(1 << 20);
    until(async || socket.closed() == Some(CloseReason::TOO_SLOW)).await;
    let written = socket.written.lock().expect("not poisoned");
    let length = u32::from_be_bytes(written[before..before + 4].try_into().expect("four bytes"));
    assert_eq!(written.len() - before, 4 + length as usize, "one whole frame and nothing after it");
}

/// Half a frame that nobody takes any further is cut, and observers see 4008.
pub async fn half_a_frame_that_nobody_takes_is_cut_and_seen_as_too_slow<F: BusFixture>() {
    let fixture = F::start().await;
    let (hub, ends) =
        hub(fixture.bus(), |limits| limits.write_deadline = Duration::from_millis(100)).await;
    let socket = connect(&hub, 10).await;
    publish(&hub, 1000).await;
    assert_eq!((ends.one().await, socket.closed()), (Some(4008), None));
}

/// A frame that does not begin within the write deadline ends the connection with 4008.
pub async fn a_frame_whose_turn_does_not_come_ends_the_connection<F: BusFixture>() {
    let fixture = F::start().await;
    let (hub, ends) =
        hub(fixture.bus(), |limits| limits.write_deadline = Duration::from_millis(100)).await;
    let socket = connect(&hub, 0).await;
    publish(&hub, 1000).await;
    assert_eq!((ends.one().await, socket.closed()), (Some(4008), Some(CloseReason::TOO_SLOW)));
}

/// A token expires also while a write waits.
pub async fn a_token_expires_although_a_write_waits<F: BusFixture>() {
    let fixture = F::start().await;
    let (hub, ends) = hub(fixture.bus(), |limits| {
        limits.token_leeway = Duration::ZERO;
        limits.heartbeat = Duration::from_secs(2);
    })
    .await;
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let mut who = Identity::user(UserId::new("u").expect("a name"));
    who.expires_at = Some(since + 1);
    let socket = connect_as(&hub, who, 10).await;
    publish(&hub, 1000).await;
    until(async || hub.stats().queued_bytes > 0).await;
    // Once it has ended, nothing more is queued.
    in_time(async {
        let mut had = 0;
        while had != hub.stats().queued_bytes {
            had = hub.stats().queued_bytes;
            publish(&hub, 1000).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Each shard has done what was before.
            hub.users().await;
        }
    })
    .await;
    // What waited before is still sent.
    socket.room.send_replace(1 << 20);
    assert_eq!((ends.one().await, socket.closed().map(|r| r.code)), (Some(4001), Some(4001)));
}
