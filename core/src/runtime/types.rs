//! What a hub is asked for and what it answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderValue;

use crate::{AuthError, BusError, ClientId, CloseReason, ConnectRequest, RoomId, TenantId, UserId};

/// Why a hub could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The bus could not be reached. Check its address, then start again.
    #[error("the bus could not be reached")]
    Bus(#[source] BusError),
    /// A limit or the bus is of a kind that no node takes. Correct it.
    #[error("{0}")]
    Configuration(String),
}

/// Why a connection was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The user has `connections_per_user` connections already: 4009 or 429.
    #[error("too many connections of this user")]
    TooMany,
    /// The user has `connections_per_user` connections, but some of those may be gone: they are of a node that is not
    /// heard from, or cannot be counted now. 1013.
    #[error("too many connections of this user, some of them on a node that is not heard from")]
    TooManyUnheard,
    /// The bus is away: 1013.
    #[error("the bus is away")]
    BusAway,
    /// More come than `accept_rate` allows: 503 or 1013.
    #[error("too many new connections")]
    Full,
    /// It could not be done within `handshake_deadline`: 1013.
    #[error("not done in time")]
    TimedOut,
    /// The server's fault, a panic: 1011.
    #[error("internal error")]
    Internal,
    /// The node is going away: 1012.
    #[error("the node is going away")]
    Draining,
}

impl AttachError {
    /// What the client is told.
    pub fn close_reason(self) -> CloseReason {
        match self {
            Self::TooMany => CloseReason::TOO_MANY_CONNECTIONS,
            Self::TooManyUnheard | Self::BusAway | Self::Full | Self::TimedOut => {
                CloseReason::TRY_AGAIN_LATER
            }
            Self::Internal => CloseReason::INTERNAL,
            Self::Draining => CloseReason::RESTART,
        }
    }
}

/// Why a request did not become a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It is not known who sent it: 1008 or 401, 1013 when that cannot be known now.
    #[error("it is not known who sent the request")]
    Auth(#[source] AuthError),
    /// It is known, and the connection was not taken in.
    #[error("the connection was not taken in")]
    Attach(#[source] AttachError),
}

impl ConnectError {
    /// What the client is told.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::Auth(AuthError::Missing) => CloseReason::UNAUTHORIZED,
            Self::Auth(AuthError::Unavailable(_)) => CloseReason::TRY_AGAIN_LATER,
            Self::Auth(AuthError::Refused(_)) => CloseReason::INVALID_TOKEN,
            Self::Attach(error) => error.close_reason(),
        }
    }
}

/// Not every node could be asked to disconnect, or answered: the bus is away, or a node is not heard from. Repeat the
/// call; to disconnect twice is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("not every node could be reached; {ended} connections were ended on those that were")]
pub struct DisconnectError {
    /// Connections that were ended nevertheless.
    pub ended: usize,
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The type is the server's own. Choose another.
    #[error("this type is the server's")]
    Reserved,
    /// The message is longer than `message_bytes`. Shorten it.
    #[error("the message has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The authorizer said no.
    #[error("not allowed")]
    Forbidden,
    /// The bus did not take it, or with [`BusError::TimedOut`] may have taken it.
    #[error("{}", of_bus(.0))]
    Bus(#[source] BusError),
}

/// What may be said of a message that a bus gave no receipt for.
fn of_bus(error: &BusError) -> &'static str {
    match error {
        BusError::TimedOut => {
            "the bus did not answer in time: the message may have been published, so repeat it with an idempotency key only"
        }
        _ => "the bus did not take the message",
    }
}

/// What a client asked for when it connected.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Rooms to join at once, as they were named.
    pub rooms: Vec<String>,
    /// Where the client stands.
    pub cursor: Option<String>,
    /// Whether it wants to know who else is in these rooms.
    pub presence: bool,
    /// Which client it was before it came back: what was not for that one is not replayed to it.
    pub previous: Option<ClientId>,
}

impl ConnectOptions {
    /// What a request asks for: `room` (any number of times), `presence=1`, `cursor` and `previous` of the query,
    /// and the header `Last-Event-ID`, which wins unless it is empty.
    pub fn of(request: &ConnectRequest) -> Self {
        let last_event = request.headers.get("last-event-id").map(HeaderValue::as_bytes);
        let last_event = last_event.filter(|id| !id.is_empty()).map(String::from_utf8_lossy);
        Self {
            rooms: request.query("room").map(Cow::into_owned).collect(),
            cursor: last_event.or_else(|| request.query("cursor").next()).map(Cow::into_owned),
            presence: request.query("presence").any(|value| value == "1"),
            previous: request.query("previous").find_map(|value| value.parse().ok()),
        }
    }
}

/// What a node holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections by the name of their transport.
    pub connections: BTreeMap<&'static str, usize>,
    /// Users with a connection, or with one that is being taken in.
    pub users: usize,
    /// Rooms with a member, or with one that is joining.
    pub rooms: usize,
    /// Bytes that wait for clients.
    pub queued_bytes: usize,
}

/// Which part of a list is wanted: all of it by default. Lists are sorted by tenant and name.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page<N> {
    /// Of this tenant alone; `None` for all.
    pub tenant: Option<TenantId>,
    /// After this name: the last one of the page before.
    pub after: Option<(TenantId, N)>,
    /// At most so many entries; `None` for all. The list takes memory for no more than these.
    pub limit: Option<usize>,
}

impl<N> Default for Page<N> {
    fn default() -> Self {
        Self { tenant: None, after: None, limit: None }
    }
}

/// A room of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomInfo {
    /// Whose room it is.
    pub tenant: TenantId,
    /// The room.
    pub room: RoomId,
    /// Connections in it.
    pub connections: usize,
    /// Users in it.
    pub users: usize,
}

/// A user of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserInfo {
    /// Whose user it is.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// Its connections.
    pub connections: usize,
    /// The rooms that these are in.
    pub rooms: usize,
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    #[test]
    fn the_last_event_id_wins_over_the_query_unless_it_is_empty() {
        let cursor = |header: Option<&[u8]>, query| {
            let mut request = ConnectRequest { uri: query, ..ConnectRequest::default() };
            if let Some(id) = header.and_then(|id| HeaderValue::from_bytes(id).ok()) {
                request.headers.insert("last-event-id", id);
            }
            ConnectOptions::of(&request).cursor
        };
        let query = || Uri::from_static("/events?room=r&cursor=q");
        assert_eq!(cursor(Some(b"h"), query()).as_deref(), Some("h"));
        assert_eq!(cursor(Some(b""), query()).as_deref(), Some("q"));
        assert_eq!(cursor(None, query()).as_deref(), Some("q"));
        assert_eq!(cursor(None, Uri::from_static("/events")), None);
        assert!(cursor(Some(b"\xff"), query()).is_some_and(|id| id != "q"), "it was given");
    }
}
