//! What every [`Transport`] promises, one function per law.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::join;

use super::bus_node::in_time;
use crate::{CloseReason, Frame, FrameReader, FrameWriter, Framing, Message, Outgoing, Transport};

/// How the laws get a connection.
pub trait TransportFixture: Sized {
    /// The server's half.
    type Transport: Transport;
    /// The client's half. Dropping it cuts the connection.
    type Peer: Peer;

    /// Makes a connection that is open, takes messages of 64 KiB, and holds at most 16 MiB on its way.
    fn open() -> impl Future<Output = (Self::Transport, Self::Peer)>;
}

/// A client as the laws see it.
pub trait Peer {
    /// Sends one client message.
    fn send(&mut self, text: String) -> impl Future<Output = ()>;

    /// The next of what the server said; heartbeats are no part of it.
    fn next(&mut self) -> impl Future<Output = Heard>;
}

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A message, as the JSON text of the whole object.
    Message(String),
    /// The server ends the connection with this code.
    Closed(u16),
    /// Nothing more comes.
    End,
}

/// Makes one `#[test]` of each law of a [`Transport`](crate::Transport), for a
/// [`TransportFixture`](crate::testing::transport_laws::TransportFixture).
#[macro_export]
macro_rules! transport_laws {
    ($fixture:ty) => {
        $crate::transport_laws! { $fixture:
            messages_come_whole_and_in_order
            a_dropped_read_loses_nothing
            frames_leave_whole_and_in_order
            a_dropped_write_has_taken_nothing
            a_peer_that_stops_reading_is_felt
            heartbeats_are_no_messages
            the_reason_comes_last
            a_peer_that_is_gone_ends_both_halves
        }
    };
    ($fixture:ty: $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                $crate::testing::bus_laws::run($crate::testing::transport_laws::$law::<$fixture>());
            }
        )*
    };
}

/// What the peer sends is read, each message once.
pub async fn messages_come_whole_and_in_order<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let (mut reader, _writer) = transport.split();
    let texts: Vec<_> = lengths().map(text).collect();
    let send = async {
        for text in &texts {
            peer.send(text.clone()).await;
        }
    };
    let read = async {
        for text in &texts {
            assert_eq!(message(&mut reader).await, text.as_bytes());
        }
    };
    in_time("messages", async { join!(send, read) }).await;
}

/// Whenever a read is given up, the next one goes on where it was.
pub async fn a_dropped_read_loses_nothing<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let (mut reader, _writer) = transport.split();
    let texts: Vec<_> = lengths().map(text).collect();
    let send = async {
        for text in &texts {
            peer.send(text.clone()).await;
        }
    };
    let read = async {
        for text in &texts {
            let read = loop {
                if let Poll::Ready(frame) = poll_once(reader.next()) {
                    match frame {
                        Some(Ok(Frame::Message(read) | Frame::Submitted(read, _))) => break read,
                        Some(Ok(_)) => {}
                        other => panic!("{other:?} instead of a message"),
                    }
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(read, text.as_bytes());
        }
    };
    in_time("messages", async { join!(send, read) }).await;
}

/// What is written is heard, each message once, however little is taken at a time.
pub async fn frames_leave_whole_and_in_order<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let framing = transport.info().framing;
    let (_reader, mut writer) = transport.split();
    let frames: Vec<_> = lengths().map(|n| frame(framing, n)).collect();
    let write = write_all(&mut writer, frames);
    let hear = async {
        for n in lengths() {
            hears(&mut peer, n).await;
        }
    };
    in_time("frames", async { join!(write, hear) }).await;
}

/// Whenever a write is given up, it has taken nothing: written again, each message is heard once.
pub async fn a_dropped_write_has_taken_nothing<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let framing = transport.info().framing;
    let (_reader, mut writer) = transport.split();
    let write = async {
        for length in lengths() {
            let mut rest = frame(framing, length);
            while !rest.is_empty() {
                match poll_once(writer.write(std::slice::from_ref(&rest))) {
                    Poll::Ready(taken) => drop(rest.split_to(taken.expect("it is open"))),
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        }
    };
    let hear = async {
        for length in lengths() {
            hears(&mut peer, length).await;
        }
    };
    in_time("frames", async { join!(write, hear) }).await;
}

/// Once the peer reads no more, nothing is taken; a write waits, and given up it has taken nothing.
pub async fn a_peer_that_stops_reading_is_felt<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let framing = transport.info().framing;
    let (_reader, mut writer) = transport.split();
    let one = frame(framing, 1000);
    let (mut waiting, mut written, mut refused) = (one.clone(), 0, 0);
    while refused < 3 {
        let mut taken = writer.try_write(std::slice::from_ref(&waiting)).expect("it is open");
        if taken == 0
            && let Poll::Ready(more) = poll_once(writer.write(std::slice::from_ref(&waiting)))
        {
            taken = more.expect("it is open");
        }
        refused = if taken == 0 { refused + 1 } else { 0 };
        written += taken;
        assert!(written < MAX_UNDER_WAY, "{written} bytes are taken for a peer that reads nothing");
        let _ = waiting.split_to(taken);
        if waiting.is_empty() {
            waiting = one.clone();
        }
        tokio::task::yield_now().await;
    }
    let messages = written / one.len() + 1;
    let write = write_all(&mut writer, vec![waiting]);
    let hear = async {
        for _ in 0..messages {
            hears(&mut peer, 1000).await;
        }
    };
    in_time("what waited", async { join!(write, hear) }).await;
}

/// A heartbeat between messages is none.
pub async fn heartbeats_are_no_messages<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let framing = transport.info().framing;
    let (_reader, mut writer) = transport.split();
    let heartbeat = Bytes::from_static(framing.heartbeat);
    let frames = vec![heartbeat.clone(), frame(framing, 1), heartbeat, frame(framing, 2)];
    let hear = async {
        hears(&mut peer, 1).await;
        hears(&mut peer, 2).await;
    };
    in_time("frames", async { join!(write_all(&mut writer, frames), hear) }).await;
}

/// The peer is told why the connection ends, after all that was written, and then it ends.
pub async fn the_reason_comes_last<F: TransportFixture>() {
    let (transport, mut peer) = F::open().await;
    let framing = transport.info().framing;
    let (reader, mut writer) = transport.split();
    let end = async move {
        write_all(&mut writer, vec![frame(framing, 7)]).await;
        writer.close(&CloseReason::TOKEN_EXPIRED).await;
        drop((reader, writer));
    };
    let hear = async {
        hears(&mut peer, 7).await;
        assert_eq!(peer.next().await, Heard::Closed(CloseReason::TOKEN_EXPIRED.code));
        assert_eq!(peer.next().await, Heard::End);
    };
    in_time("the end", async { join!(end, hear) }).await;
}

/// When the peer is gone, reading ends and writing fails.
pub async fn a_peer_that_is_gone_ends_both_halves<F: TransportFixture>() {
    let (transport, peer) = F::open().await;
    let framing = transport.info().framing;
    let (mut reader, mut writer) = transport.split();
    drop(peer);
    in_time("the end of reading", async { while let Some(Ok(_)) = reader.next().await {} }).await;
    let frames = [frame(framing, 1000)];
    in_time("the end of writing", async { while writer.write(&frames).await.is_ok() {} }).await;
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

async fn message(reader: &mut impl FrameReader) -> Bytes {
    loop {
        match reader.next().await {
            Some(Ok(Frame::Message(text) | Frame::Submitted(text, _))) => return text,
            Some(Ok(_)) => {}
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// Writes as the hub does: at once what goes, then waiting.
async fn write_all(writer: &mut impl FrameWriter, mut frames: Vec<Bytes>) {
    while !frames.is_empty() {
        let mut taken = writer.try_write(&frames).expect("it is open");
        if taken == 0 {
            taken = writer.write(&frames).await.expect("it is open");
            assert!(taken > 0, "a write that ended took something");
        }
        while let Some(first) = frames.first_mut().filter(|_| taken > 0) {
            let part = taken.min(first.len());
            let _ = first.split_to(part);
            taken -= part;
            if first.is_empty() {
                frames.remove(0);
            }
        }
    }
}

async fn hears(peer: &mut impl Peer, length: usize) {
    let Heard::Message(json) = peer.next().await else { panic!("the end instead of a message") };
    let heard: serde_json::Value = serde_json::from_str(&json).expect("a message is JSON");
    assert_eq!(heard["type"], "law");
    assert_eq!(heard["payload"].as_str().map(str::len), Some(length));
}

fn frame(framing: Framing, length: usize) -> Bytes {
    let message = Message::of("law", &"x".repeat(length)).expect("a text is JSON");
    (framing.encode)(&Outgoing::event(message, None))
}

fn text(length: usize) -> String {
    format!("{{\"type\":\"ü\",\"payload\":\"{}\"}}", "y".repeat(length))
}

/// Around the places where lengths are written differently, and longer than a buffer.
fn lengths() -> impl Iterator<Item = usize> {
    (0..300).chain([4096, 40_000, 3, 60_000, 0, 1])
}

/// Far more than a system keeps for a connection.
const MAX_UNDER_WAY: usize = 16 << 20;
