//! The heart of Tidings: events pushed to a room, to every connection of a user, to everyone.
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidings_bus_memory::MemoryBus;
//! use tidings_core::{AllowAll, Anonymous, Hub, Message, Publication, RoomId, TenantId, Topic};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Arc::new(MemoryBus::default());
//! let hub = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).start().await?;
//! let lobby = Topic::room(TenantId::default(), RoomId::new("lobby")?);
//! let hello = Message::of("chat", &"hello")?;
//! let receipt = hub.publish(Publication::new(lobby.clone(), hello)).await?;
//! // Who is in the room has it now, on whatever node; who comes back with this cursor has had it.
//! assert!(hub.cursor_of(&lobby, &receipt).is_some());
//! # Ok(())
//! # }
//! ```
//!
//! This crate holds the three traits a server is composed from ([`Transport`], [`Bus`],
//! [`Authenticator`]), the types they speak ([`Topic`], [`Message`], [`Publication`],
//! [`Delivery`]), the engine ([`Hub`]) and the pure [`machines`] that it is made of.
//!
//! It refuses to listen on a port, to parse HTTP, and to know Redis, WebSocket or JWT: those are
//! the small crates around it. Without the feature `runtime` it has no tokio and runs on wasm32.

mod auth;
mod bucket;
mod bus;
mod close;
mod codec;
mod cursor;
mod flow;
mod id;
mod interest;
pub mod json;
mod limits;
mod message;
mod options;
mod origin;
mod outgoing;
mod pattern;
mod positions;
mod publication;
mod resume;
mod router;
#[cfg(feature = "runtime")]
mod runtime;
mod session;
mod topic;
mod transport;

#[cfg(feature = "testing")]
pub mod testing;

/// The pure machines that the engine is made of: no clock, no lock, no task, no randomness.
///
/// An application needs none of them. They are public so that models, fuzz targets and tools can play them.
pub mod machines {
    pub use crate::flow::{Dispatched, Floors, Flow, NotLive, Standing, Starts, Told};
    pub use crate::interest::{Command, Interest};
    pub use crate::positions::{Ask, Positions, Question, Step};
    pub use crate::resume::{EpochChanged, Replay, Resume};
    pub use crate::router::{Change, ConnectionKey, Router};
    pub use crate::session::{Effect, Input, JoinRequest, Now, Operation, Outcome, Session};
}

pub use auth::{
    Action, AllowAll, Anonymous, AuthError, Authenticator, Authorizer, Claims, ClaimsError,
    ConnectRequest, Denied, FirstOf, Identity, Token, redact_query,
};
pub use bus::{
    Bus, BusError, BusInterest, BusLink, Claim, History, HistoryPage, MAX_PARTITIONS, Presence,
    Tally, Top, Tops,
};
pub use close::CloseReason;
pub use codec::{ClientMessage, CorrelationId, DecodeError, decode, encode_json, push_payload};
pub use cursor::{CursorError, CursorKey, Mark};
pub use id::{ClientId, LeaseId, NameError, NodeId, RoomId, TenantId, UserId};
pub use limits::{Limits, LimitsError};
pub use message::{Message, MessageError, MessageType, Payload};
pub use options::{SlowPolicy, TopicOptions, TopicRules};
pub use origin::{ForeignOrigin, Origin, OriginError, check_origin};
pub use outgoing::{ErrorCode, GapReason, Outgoing};
pub use pattern::Pattern;
pub use publication::{
    Delivery, Except, IDEMPOTENCY_WINDOW, Position, Publication, Receipt, Retention,
};
pub use topic::{Scope, Topic};
pub use transport::{
    Frame, FrameReader, FrameWriter, Framing, ReadError, Transport, TransportInfo, Verdict,
    VerdictSender,
};

#[cfg(feature = "runtime")]
pub use runtime::{
    Admission, AttachError, Attachment, ConnectError, ConnectOptions, Context, DisconnectError,
    Event, Handler, HandlerError, Hub, HubBuilder, Mailbox, NoHandler, Observer, Page,
    PublishError, Reply, RoomInfo, SlowBound, StartError, Stats, SubmitError, UserInfo,
};
