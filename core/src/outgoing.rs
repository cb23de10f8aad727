//! What the server says to a client: the protocol's table "From the server", row by row.

use std::time::Duration;

use serde::Serialize;

use crate::codec::CorrelationId;
use crate::{ClientId, CloseReason, Identity, Message, Payload, RoomId};

/// A message to a client, before it is encoded and framed.
///
/// It holds nothing that differs between the receivers of a publication, so that it is encoded once for all.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outgoing {
    /// The type; not a [`MessageType`](crate::MessageType), since the server may use reserved ones.
    pub kind: Box<str>,
    /// The id of the client's message that this answers.
    pub id: Option<CorrelationId>,
    /// The room an event came to.
    pub room: Option<RoomId>,
    /// Everything up to here has been delivered.
    pub cursor: Option<Box<str>>,
    /// What it carries.
    pub payload: Option<Payload>,
}

impl Outgoing {
    /// An event of the application, for a room or not.
    pub fn event(message: Message, room: Option<RoomId>) -> Self {
        let kind = message.kind.as_str().into();
        Self { kind, id: None, room, cursor: None, payload: message.payload }
    }

    /// `connected`: always first.
    pub fn connected(client: ClientId, who: &Identity, heartbeat_ms: u64, recovered: bool) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Connected<'a> {
            client_id: String,
            user_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            tenant_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            expires_at: Option<u64>,
            heartbeat_ms: u64,
            recovered: bool,
        }
        let payload = Connected {
            client_id: client.to_string(),
            user_id: who.user.as_str(),
            tenant_id: who.tenant.name(),
            expires_at: who.expires_at,
            heartbeat_ms,
            recovered,
        };
        Self::of("connected", &payload)
    }

    /// `room:joined`; `members` when presence was asked for and the room shows it.
    pub fn room_joined(room: &RoomId, recovered: bool, members: Option<&[String]>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Joined<'a> {
            room_id: &'a str,
            recovered: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            members: Option<&'a [String]>,
        }
        Self::of("room:joined", &Joined { room_id: room.as_str(), recovered, members })
    }

    /// `room:left`, with a reason when the server took the client out.
    pub fn room_left(room: &RoomId, reason: Option<&str>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Left<'a> {
            room_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
        }
        Self::of("room:left", &Left { room_id: room.as_str(), reason })
    }

    /// `gap`: something may be missing in the room, or without one in the user's own stream.
    pub fn gap(room: Option<&RoomId>, reason: GapReason) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Gap<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            room_id: Option<&'a str>,
            reason: GapReason,
        }
        Self::of("gap", &Gap { room_id: room.map(RoomId::as_str), reason })
    }

    /// `pong`, with milliseconds since 1970.
    pub fn pong(timestamp: u64) -> Self {
        #[derive(Serialize)]
        struct Pong {
            timestamp: u64,
        }
        Self::of("pong", &Pong { timestamp })
    }

    /// `ok`: the message with this id was handled.
    pub fn ok() -> Self {
        Self { kind: "ok".into(), id: None, room: None, cursor: None, payload: None }
    }

    /// `cursor`: only a newer one, beside it.
    pub fn cursor() -> Self {
        Self { kind: "cursor".into(), id: None, room: None, cursor: None, payload: None }
    }

    /// `token:renewed` or `token:expiring`, with seconds since 1970.
    pub fn token(kind: &'static str, expires_at: Option<u64>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Expiry {
            #[serde(skip_serializing_if = "Option::is_none")]
            expires_at: Option<u64>,
        }
        Self::of(kind, &Expiry { expires_at })
    }

    /// `server:draining`: this node goes away; the client is to come back after so many milliseconds.
    pub fn draining(reconnect_after_ms: u64) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Draining {
            reconnect_after_ms: u64,
        }
        Self::of("server:draining", &Draining { reconnect_after_ms })
    }

    /// `close`: why the connection ends, on a wire that cannot say it otherwise.
    pub fn close(reason: &CloseReason) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Close<'a> {
            code: u16,
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            reconnect_after_ms: Option<u64>,
        }
        let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let reconnect_after_ms = reason.reconnect_after.map(millis);
        Self::of("close", &Close { code: reason.code, reason: &reason.reason, reconnect_after_ms })
    }

    /// `error`, about a room where there is one.
    pub fn error(code: ErrorCode, message: &str, room: Option<&RoomId>) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Error<'a> {
            code: ErrorCode,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            room_id: Option<&'a str>,
        }
        Self::of("error", &Error { code, message, room_id: room.map(RoomId::as_str) })
    }

    /// The same message as the answer to the client's message of this id.
    #[must_use]
    pub fn answering(mut self, id: Option<CorrelationId>) -> Self {
        self.id = id;
        self
    }

    fn of(kind: &'static str, payload: &impl Serialize) -> Self {
        let json = serde_json::to_vec(payload).expect("a struct of texts and numbers is JSON");
        let payload = Some(Payload::Json(json.into()));
        Self { kind: kind.into(), id: None, room: None, cursor: None, payload }
    }
}

/// The code of an `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The message cannot be read.
    InvalidMessage,
    /// No handler knows the type.
    UnknownType,
    /// The type is the server's.
    ReservedType,
    /// It is not allowed.
    Forbidden,
    /// It is too long.
    TooLarge,
    /// Too many messages.
    RateLimited,
    /// Too many rooms.
    TooManyRooms,
    /// It cannot be done now.
    Unavailable,
    /// The server's fault.
    Internal,
}

/// Why something may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// What was missed is no longer kept.
    Trimmed,
    /// The store lost what it kept.
    Epoch,
    /// The bus was away and it cannot be proven that nothing was missed.
    Outage,
    /// The client read too slowly and messages were dropped.
    Slow,
    /// The cursor cannot be read, or is not this tenant's, or nothing is kept.
    Cursor,
}
