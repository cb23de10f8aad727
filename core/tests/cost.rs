//! What a message costs is what its receivers cost, however many others are connected.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::{MemoryPipe, PipeClient, PipeReader, PipeWriter};
use tidings_core::{
    AllowAll, Anonymous, CloseReason, ConnectOptions, Event, FrameWriter, Framing, Hub, Identity,
    Observer, Outgoing, Transport, TransportInfo, UserId,
};

use support::*;

/// Messages that were framed, and writes that sockets were asked for.
static FRAMED: AtomicUsize = AtomicUsize::new(0);
static WRITES: AtomicUsize = AtomicUsize::new(0);

/// A connection in memory that counts both.
struct Counted(MemoryPipe);

impl Counted {
    fn info() -> TransportInfo {
        fn encode(message: &Outgoing) -> Bytes {
            FRAMED.fetch_add(1, Ordering::Relaxed);
            (MemoryPipe::info().framing.encode)(message)
        }
        let framing = Framing { id: "counted", encode, ..MemoryPipe::info().framing };
        TransportInfo { framing, ..MemoryPipe::info() }
    }

    async fn connect(hub: &Hub, name: &str) -> PipeClient {
        let who = Identity::user(UserId::new(name).expect("it is a name"));
        let options = ConnectOptions { rooms: vec!["r".to_owned()], ..ConnectOptions::default() };
        let attachment = hub.attach(who, options, Self::info()).await.expect("it is taken in");
        let (server, mut pipe) = MemoryPipe::new(PIPE);
        tokio::spawn(attachment.serve(Self(server)));
        for kind in ["connected", "room:joined"] {
            assert!(in_time(pipe.next()).await.expect("a message").contains(kind));
        }
        pipe
    }
}

impl Transport for Counted {
    type Reader = PipeReader;
    type Writer = CountedWriter;

    fn info(&self) -> TransportInfo {
        Self::info()
    }

    fn split(self) -> (PipeReader, CountedWriter) {
        let (reader, writer) = self.0.split();
        (reader, CountedWriter(writer))
    }
}

struct CountedWriter(PipeWriter);

impl FrameWriter for CountedWriter {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        WRITES.fetch_add(1, Ordering::Relaxed);
        self.0.try_write(frames)
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        WRITES.fetch_add(1, Ordering::Relaxed);
        self.0.write(frames).await
    }

    async fn close(&mut self, reason: &CloseReason) {
        self.0.close(reason).await;
    }
}

/// Receivers that passes have handed messages to, added up, and connections that they looked at.
#[derive(Debug, Default)]
struct Passes {
    receivers: AtomicUsize,
    looked_at: AtomicUsize,
}

impl Observer for Passes {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Delivered { receivers, looked_at, .. } = event {
            self.looked_at.fetch_add(*looked_at, Ordering::Relaxed);
            self.receivers.fetch_add(*receivers, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn sending_to_a_user_costs_what_its_connections_cost() {
    let passes = Arc::new(Passes::default());
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll))
        .observer(passes.clone())
        .shards(2)
        .start()
        .await
        .expect("the bus is there");
    let mut others = Vec::new();
    for n in 0..OTHERS {
        others.push(Counted::connect(&hub, &format!("other-{n}")).await);
    }
    let mut own = [Counted::connect(&hub, "u").await, Counted::connect(&hub, "u").await];
    let counts = [&FRAMED, &WRITES, &passes.receivers, &passes.looked_at];
    let counted = || counts.map(|count| count.load(Ordering::Relaxed));
    let before = counted();
    for n in 0..MESSAGES {
        publish(&hub, news(&user("u"), n)).await;
        for pipe in &mut own {
            let heard = in_time(pipe.next()).await.expect("a message");
            assert!(heard.contains(&format!("\"payload\":{n}")), "{heard}");
        }
    }
    // The last pass is told after it has written.
    until(async || counted()[2] - before[2] >= 2 * MESSAGES as usize).await;
    let after = counted();
    let [framed, writes, handed, looked_at] = [0, 1, 2, 3].map(|n| after[n] - before[n]);
    let messages = MESSAGES as usize;
    assert_eq!(framed, messages, "a message is framed once");
    assert_eq!(handed, 2 * messages, "only its connections are handed anything");
    // Messages that go in one pass look twice at a receiver.
    assert!(looked_at >= handed && looked_at <= 2 * handed, "{looked_at} looks for {handed}");
    // A socket may be asked twice for a message, by the shard and by the connection's task.
    assert!(writes <= 4 * messages, "{writes} writes for {messages} messages to 2 of {OTHERS}");

    // What goes to the room in which they all are costs them all, so the counters count.
    publish(&hub, news(&room("r"), 7)).await;
    for pipe in others.iter_mut().chain(&mut own) {
        assert!(in_time(pipe.next()).await.expect("a message").contains("\"payload\":7"));
    }
    let [room_framed, room_writes, ..] = counted();
    assert_eq!(room_framed - after[0], 1);
    assert!(room_writes - after[1] >= OTHERS + 2);
    until(async || counted()[2] - after[2] == OTHERS + 2).await;
    assert!(counted()[3] - after[3] >= OTHERS + 2);
}

const OTHERS: usize = 1000;
const MESSAGES: u32 = 50;
