//! Server-Sent Events: the stream of one client as an HTTP body.
//!
//! [`SseTransport::new`] makes both ends of one stream: the [`Transport`](tidings_core::Transport)
//! that core serves, and the [`SseBody`] that goes into the answer ([`stream_response`]). Between
//! them lies a bounded pipe, so that a client which reads slowly is felt by core and by no one else.
//!
//! This crate refuses to listen, to route and to authenticate. Where the messages come from that a
//! client posts is the caller's: any [`FrameReader`](tidings_core::FrameReader) will do.

mod connection;
mod framing;
mod pipe;
mod response;

pub use connection::{SseReader, SseTransport, SseWriter};
pub use framing::{ENVELOPE, FRAMING};
pub use pipe::SseBody;
pub use response::{closing_response, stream_response};
