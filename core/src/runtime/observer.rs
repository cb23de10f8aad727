//! What happens on a node, told to whoever counts it: [`Observer`] and its [`Event`]s.
//!
//! An event names no user, room or tenant: what is counted must not grow with them.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::types::{AttachError, PublishError};
use crate::{AuthError, CloseReason, GapReason};

/// Is told what happens on a node, for metrics and logs.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Something happened.
    ///
    /// # Behavior
    /// - Called where it happens, on the node's own tasks: count and return, never wait. Events of one
    ///   connection come in their order, others at the same time.
    /// - Called per message of a client, per publication, per pass of a shard; never per receiver.
    /// - A panic in it is caught and changes nothing else.
    fn on_event(&self, event: &Event<'_>);
}

/// Something that happened on a node.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A request, or a token that renews another, was judged.
    Authenticated {
        /// How it ended.
        outcome: Result<(), &'a AuthError>,
    },
    /// A client was not taken in, though nothing is wrong with its credentials.
    Refused {
        /// Why.
        error: AttachError,
    },
    /// A connection was taken in. Exactly one [`Closed`](Event::Closed) follows.
    Opened {
        /// Its kind, as in [`TransportInfo::name`](crate::TransportInfo::name).
        transport: &'static str,
    },
    /// A connection ended.
    Closed {
        /// Its kind.
        transport: &'static str,
        /// What the client was told, or would have been; `None` when the connection was lost.
        reason: Option<&'a CloseReason>,
        /// Whether the client ended it: the code is its own.
        by_client: bool,
        /// How long it lasted.
        lasted: Duration,
    },
    /// A client sent a message.
    Received {
        /// Its length.
        bytes: usize,
    },
    /// A message was answered `rate_limited`.
    RateLimited,
    /// Code that the node was given panicked: the application's handler, an authenticator or authorizer that it
    /// waited for, a transport's framing, a bus. With [`Hub::has_failed`](crate::Hub::has_failed) the node itself.
    Panicked,
    /// A message was published through this node, or not.
    Published {
        /// How it ended.
        outcome: Result<(), &'a PublishError>,
        /// How long that took.
        took: Duration,
    },
    /// A shard has handed messages to their receivers, in one pass.
    Delivered {
        /// How many messages.
        messages: usize,
        /// How many receivers these had, added up.
        receivers: usize,
        /// How often the shard looked at a connection for that.
        looked_at: usize,
    },
    /// Bytes have left for clients since the last such event of a shard, which comes about every second.
    Written {
        /// How many frames.
        frames: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Connections were told that something may be missing.
    Gap {
        /// Why.
        reason: GapReason,
        /// How many connections.
        connections: usize,
    },
    /// A client reads too slowly, and its connection ends.
    TooSlow {
        /// Which bound it reached.
        bound: SlowBound,
    },
    /// A link to the bus is up: the first one, or a new one.
    LinkUp {
        /// Of which partition.
        partition: u16,
    },
    /// A link to the bus broke.
    LinkLost {
        /// Of which partition.
        partition: u16,
    },
    /// Topics were subscribed on a link, or were to be.
    Subscribed {
        /// How many.
        topics: usize,
        /// Whether the bus did it. If not, it is tried again.
        done: bool,
    },
}

/// Which bound a client that reads too slowly has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowBound {
    /// More than `outbox_bytes` waited.
    Bytes,
    /// A write took longer than `write_deadline`.
    Time,
}

/// The observer that a node has, or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observing(Option<Arc<dyn Observer>>);

impl Observing {
    pub(crate) fn with(observer: Arc<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    /// Tells the observer. What it panics with is dropped: it must not harm who tells it.
    pub(crate) fn on(&self, event: Event<'_>) {
        if let Some(observer) = &self.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(&event)));
        }
    }
}
