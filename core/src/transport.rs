//! The seam to what carries frames to one client: [`Transport`] and its two halves.

use std::fmt;
use std::future::Future;
use std::io;

use bytes::Bytes;

use crate::{CloseReason, Outgoing};

/// ONE accepted connection, before it is served.
///
/// There is no listener, no codec and no authentication in it. Core owns the only loop and drives
/// both halves from one task, so neither half needs a lock of its own.
pub trait Transport: Send + 'static {
    /// The half that reads.
    type Reader: FrameReader;
    /// The half that writes.
    type Writer: FrameWriter;

    /// What kind of connection this is; the same for all of its kind.
    fn info(&self) -> TransportInfo;

    /// Takes the connection apart.
    fn split(self) -> (Self::Reader, Self::Writer);
}

/// The half of a connection that reads.
pub trait FrameReader: Send + 'static {
    /// The next frame; `None` once nothing more comes: after [`Frame::Close`] in order, else the connection is lost.
    ///
    /// # Behavior
    /// - Cancel-safe: dropping the future loses nothing.
    /// - Every message of the peer once, whole and in order.
    ///
    /// # Errors
    /// [`ReadError`] tells with which close code the connection ends, and comes once. It is awaited further while
    /// that code is on its way: what the peer still sends is read and dropped, and `None` is its end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Frame, ReadError>>> + Send;
}

/// The half of a connection that writes.
///
/// All bytes that wait are kept by the caller: a writer only says how many it took.
pub trait FrameWriter: Send + 'static {
    /// Gives the socket what it takes at once, in one vectored write; answers how many bytes that were.
    ///
    /// # Behavior
    /// - Never blocks; `Ok(0)` means that nothing can be taken now.
    /// - Bytes leave in order; what was not taken is offered again first.
    ///
    /// # Errors
    /// The connection is dead.
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize>;

    /// Waits until the socket takes at least one byte of `frames`, which is not empty; answers how many.
    ///
    /// # Behavior
    /// - Cancel-safe: a dropped future has taken nothing.
    ///
    /// # Errors
    /// The connection is dead.
    fn write(&mut self, frames: &[Bytes]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Tells the peer why the connection ends, where the wire can say it, and ends the sending side.
    ///
    /// # Behavior
    /// - Called once, at a frame's boundary, after everything that was to be sent.
    /// - The caller bounds it in time and drops both halves afterwards.
    fn close(&mut self, reason: &CloseReason) -> impl Future<Output = ()> + Send;
}

/// What comes in. Shown without its bytes, for they may hold a token.
#[non_exhaustive]
pub enum Frame {
    /// One client message, in the encoding of the transport's framing.
    Message(Bytes),
    /// One client message that came by another request, which waits for the verdict.
    Submitted(Bytes, VerdictSender),
    /// The transport's own protocol wants these bytes written back, in their turn (a pong). So many may come as
    /// messages, by `message_rate`.
    Respond(Bytes),
    /// A sign of life without content; as many may come.
    Alive,
    /// Bytes of a message that is not whole yet: a sign of life, until `message_deadline` is over.
    Part,
    /// The peer ends the connection in order, with this code; 1005 when it gave none (RFC 6455, section 7.4.1).
    Close(u16),
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(f, "Message({} bytes)", bytes.len()),
            Self::Submitted(bytes, _) => write!(f, "Submitted({} bytes)", bytes.len()),
            Self::Respond(bytes) => write!(f, "Respond({} bytes)", bytes.len()),
            Self::Alive => f.write_str("Alive"),
            Self::Part => f.write_str("Part"),
            Self::Close(code) => write!(f, "Close({code})"),
        }
    }
}

/// What becomes of a submitted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is taken; its answer comes on the stream.
    Accepted,
    /// It cannot be read: 400.
    Invalid,
    /// Too many messages: 429.
    RateLimited,
}

/// Where the verdict on a submitted message goes. Dropped without one when the connection ends.
pub struct VerdictSender(Box<dyn FnOnce(Verdict) + Send>);

impl VerdictSender {
    /// Calls `deliver` with the verdict.
    pub fn new(deliver: impl FnOnce(Verdict) + Send + 'static) -> Self {
        Self(Box::new(deliver))
    }

    /// Gives the verdict.
    pub fn send(self, verdict: Verdict) {
        (self.0)(verdict);
    }
}

impl fmt::Debug for VerdictSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerdictSender")
    }
}

/// Why reading ended before the peer did. Each kind has its close code (RFC 6455, section 7.4.1).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer broke the transport's protocol: 1002.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The peer sent a kind of frame that is not taken here: 1003.
    #[error("this kind of frame is not taken here")]
    Unsupported,
    /// The peer sent text that is not UTF-8: 1007.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// The peer's message is longer than `message_bytes`: 1009.
    #[error("message too big")]
    TooBig,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
}

/// What core must know of a kind of connection.
#[derive(Debug, Clone, Copy)]
pub struct TransportInfo {
    /// Its name in metrics: `websocket`, `sse`, ….
    pub name: &'static str,
    /// Whether the peer answers heartbeats, so that one which does not is dead.
    pub answers_heartbeats: bool,
    /// How messages look on its wire.
    pub framing: Framing,
}

/// How messages look on a wire. A message is framed once for all connections of one framing.
#[derive(Debug, Clone, Copy)]
pub struct Framing {
    /// Unique per way of framing: two framings of one id are the same.
    pub id: &'static str,
    /// From a message to the bytes on the wire, header and all.
    pub encode: fn(&Outgoing) -> Bytes,
    /// What is sent every heartbeat.
    pub heartbeat: &'static [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_is_shown_by_its_length() {
        for (frame, shown) in [
            (Frame::Message(Bytes::from_static(b"secret")), "Message(6 bytes)"),
            (
                Frame::Submitted(Bytes::from_static(b"secret"), VerdictSender::new(drop)),
                "Submitted(6 bytes)",
            ),
            (Frame::Respond(Bytes::from_static(b"secret")), "Respond(6 bytes)"),
        ] {
            assert_eq!(format!("{frame:?}"), shown);
        }
    }
}
