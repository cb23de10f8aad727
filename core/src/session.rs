//! The protocol state of one connection: what a client's message means and what must follow.
//!
//! It knows no socket, no room and no clock. A driver hands in what happened with
//! [`handle`](Session::handle) and carries out the effects in order. At most one [`Operation`] is under
//! way; until its [`Outcome`] is handed in, no further message may be.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::bucket::Bucket;
use crate::codec::{ClientMessage, CorrelationId, decode};
use crate::json::Object;
use crate::outgoing::{ErrorCode, Outgoing};
use crate::{CloseReason, Limits, Message, RoomId, Token, Verdict};

/// The time, twice: for distances and for what is written on tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some moment before the node started; never goes back.
    pub monotonic: Duration,
    /// Since 1970.
    pub unix: Duration,
}

/// What happened. Shown without the bytes of a message, for they may hold a token.
pub enum Input {
    /// A client message came.
    Message(Bytes),
    /// A client message came by another request, which is told the verdict instead of some errors.
    Submitted(Bytes),
    /// A frame came that is no message: a ping, a pong, an empty fragment.
    Frame,
    /// The operation under way ended.
    Finished(Outcome),
    /// Time went by.
    Tick,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(f, "Message({} bytes)", bytes.len()),
            Self::Submitted(bytes) => write!(f, "Submitted({} bytes)", bytes.len()),
            Self::Frame => f.write_str("Frame"),
            Self::Finished(outcome) => f.debug_tuple("Finished").field(outcome).finish(),
            Self::Tick => f.write_str("Tick"),
        }
    }
}

/// What the driver is to do, in order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send this to the client.
    Send(Outgoing),
    /// Begin this and hand in its outcome.
    Start(Operation),
    /// Tell the request that submitted the message.
    Verdict(Verdict),
    /// End the connection.
    Close(CloseReason),
}

/// What takes time and is done outside of the session.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Join a room; when allowed, the shard answers `room:joined`.
    Join(JoinRequest),
    /// Leave a room; the shard answers `room:left`.
    Leave {
        /// The room.
        room: RoomId,
        /// What the answer carries.
        id: Option<CorrelationId>,
    },
    /// Check a new token and, when it is good, answer `token:renewed`.
    Renew {
        /// The new token.
        token: Token,
        /// What the answer carries.
        id: Option<CorrelationId>,
    },
    /// Give a message to the application's handler. On one that was submitted the handler has a say in the verdict:
    /// whoever carries this out gives it.
    Handle(ClientMessage),
}

/// A wish to join a room.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinRequest {
    /// The room.
    pub room: RoomId,
    /// Where the client stands; answered by a `gap` where nothing is kept.
    pub cursor: Option<String>,
    /// Whether it wants to know who else is there.
    pub presence: bool,
    /// What the answer carries.
    pub id: Option<CorrelationId>,
}

/// How an operation ended.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done, and answered in its place in the stream.
    Answered,
    /// The handler is done; its reply, when it has one.
    Handled(Option<CorrelationId>, Option<Message>),
    /// The token is renewed until this time, in seconds since 1970.
    Renewed(Option<CorrelationId>, Option<u64>),
    /// It could not be done.
    Failed {
        /// What the error carries.
        id: Option<CorrelationId>,
        /// The code of the error.
        code: ErrorCode,
        /// A text for people.
        text: &'static str,
        /// The room that it is about.
        room: Option<RoomId>,
    },
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    bucket: Bucket,
    /// For frames that are no messages, so that these take nothing away from messages.
    frames: Bucket,
    /// When the last `rate_limited` answers were given, oldest first.
    refusals: VecDeque<Duration>,
    refused: u32,
    expiry: Option<Expiry>,
    leeway: Duration,
    busy: bool,
}

#[derive(Debug, Clone, Copy)]
struct Expiry {
    at: u64,
    warn_at: Duration,
    warned: bool,
}

impl Session {
    /// A connection that begins now with a token that is good until `expires_at`, in seconds since 1970.
    pub fn new(now: Now, limits: &Limits, expires_at: Option<u64>) -> Self {
        let bucket = || Bucket::new(now.monotonic, limits.message_rate, limits.message_burst);
        let mut session = Self {
            bucket: bucket(),
            frames: bucket(),
            refusals: VecDeque::new(),
            refused: 0,
            expiry: None,
            leeway: limits.token_leeway,
            busy: false,
        };
        session.set_expiry(now, expires_at);
        session
    }

    /// Takes in what happened; appends what must follow.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Message(text) => self.message(now, &text, false, effects),
            Input::Submitted(text) => self.message(now, &text, true, effects),
            Input::Frame if self.frames.take(now.monotonic) => {}
            Input::Frame => self.refuse(now, None, false, effects),
            Input::Finished(outcome) => self.finished(now, outcome, effects),
            Input::Tick => {}
        }
        self.check_expiry(now, effects);
    }

    /// How long from `now` until a [`Input::Tick`] has something to do.
    pub fn next_timeout(&self, now: Now) -> Option<Duration> {
        let expiry = self.expiry?;
        let due = if expiry.warned { self.end_of(expiry) } else { expiry.warn_at };
        Some(due.saturating_sub(now.unix))
    }

    /// Whether an operation is under way, so that no message may be handed in.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// How many messages and frames were answered `rate_limited` so far.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    fn message(&mut self, now: Now, text: &Bytes, submitted: bool, effects: &mut Vec<Effect>) {
        debug_assert!(!self.busy, "one operation at a time");
        let read = decode(text);
        if !self.bucket.take(now.monotonic) {
            let id = read.map_or_else(|e| e.id, |m| m.id);
            return self.refuse(now, id, submitted, effects);
        }
        let message = match read {
            Ok(message) => message,
            Err(_) if submitted => return effects.push(Effect::Verdict(Verdict::Invalid)),
            Err(e) => return effects.push(failure(e.id, ErrorCode::InvalidMessage, e.reason)),
        };
        match self.meaning(now, message) {
            Err((ErrorCode::InvalidMessage, ..)) if submitted => {
                effects.push(Effect::Verdict(Verdict::Invalid));
            }
            Err((code, text, id)) => {
                if submitted {
                    effects.push(Effect::Verdict(Verdict::Accepted));
                }
                effects.push(failure(id, code, text));
            }
            Ok(effect) => {
                let is_handled = matches!(effect, Effect::Start(Operation::Handle(_)));
                if submitted && !is_handled {
                    effects.push(Effect::Verdict(Verdict::Accepted));
                }
                self.busy = matches!(effect, Effect::Start(_));
                effects.push(effect);
            }
        }
    }

    /// The protocol's table "From the client".
    fn meaning(&self, now: Now, read: ClientMessage) -> Result<Effect, Misread> {
        let id = read.id.clone();
        let invalid = |text| (ErrorCode::InvalidMessage, text, id.clone());
        Ok(Effect::Start(match read.message.kind.as_str() {
            "ping" => {
                let pong = Outgoing::pong(now.unix.as_millis() as u64);
                return Ok(Effect::Send(pong.answering(id)));
            }
            "join:room" => {
                let join: Join = payload(&read).ok_or_else(|| invalid(JOIN))?;
                let room = RoomId::new(join.room_id).map_err(|_| invalid(ROOM_ID))?;
                let presence = join.presence.unwrap_or(false);
                Operation::Join(JoinRequest { room, cursor: join.cursor, presence, id })
            }
            "leave:room" => {
                let leave: Leave = payload(&read).ok_or_else(|| invalid(ROOM_ID))?;
                let room = RoomId::new(leave.room_id).map_err(|_| invalid(ROOM_ID))?;
                Operation::Leave { room, id }
            }
            "token:renew" => {
                let renew: Renew = payload(&read).ok_or_else(|| invalid(TOKEN))?;
                let Some(token) = Token::new(renew.token) else {
                    let text = "the token is empty; the old one stays in use";
                    return Err((ErrorCode::Forbidden, text, id));
                };
                Operation::Renew { token, id }
            }
            _ if read.message.kind.is_reserved() => {
                return Err((ErrorCode::ReservedType, "this type is the server's", id));
            }
            _ => Operation::Handle(read),
        }))
    }

    fn refuse(
        &mut self,
        now: Now,
        id: Option<CorrelationId>,
        submitted: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.refused = self.refused.wrapping_add(1);
        effects.push(if submitted {
            Effect::Verdict(Verdict::RateLimited)
        } else {
            failure(id, ErrorCode::RateLimited, "too many messages")
        });
        while self.refusals.front().is_some_and(|at| *at + REFUSAL_WINDOW < now.monotonic) {
            self.refusals.pop_front();
        }
        self.refusals.push_back(now.monotonic);
        if self.refusals.len() >= MAX_REFUSALS {
            effects.push(Effect::Close(CloseReason::RATE_LIMITED));
        }
    }

    fn finished(&mut self, now: Now, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.busy = false;
        match outcome {
            Outcome::Answered | Outcome::Handled(None, None) => {}
            Outcome::Handled(id, Some(reply)) => {
                effects.push(Effect::Send(Outgoing::event(reply, None).answering(id)));
            }
            Outcome::Handled(id, None) => effects.push(Effect::Send(Outgoing::ok().answering(id))),
            Outcome::Renewed(id, expires_at) => {
                self.set_expiry(now, expires_at);
                let renewed = Outgoing::token("token:renewed", expires_at);
                effects.push(Effect::Send(renewed.answering(id)));
            }
            Outcome::Failed { id, code, text, room } => {
                effects
                    .push(Effect::Send(Outgoing::error(code, text, room.as_ref()).answering(id)));
            }
        }
    }

    fn set_expiry(&mut self, now: Now, expires_at: Option<u64>) {
        self.expiry = expires_at.map(|at| {
            let left = Duration::from_secs(at).saturating_sub(now.unix);
            let ahead = (left / 10).min(LONGEST_WARNING);
            Expiry { at, warn_at: Duration::from_secs(at).saturating_sub(ahead), warned: false }
        });
    }

    fn check_expiry(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(expiry) = &mut self.expiry else { return };
        if !expiry.warned && now.unix >= expiry.warn_at {
            expiry.warned = true;
            effects.push(Effect::Send(Outgoing::token("token:expiring", Some(expiry.at))));
        }
        let expiry = *expiry;
        if now.unix >= self.end_of(expiry) {
            effects.push(Effect::Close(CloseReason::TOKEN_EXPIRED));
        }
    }

    fn end_of(&self, expiry: Expiry) -> Duration {
        Duration::from_secs(expiry.at).saturating_add(self.leeway)
    }
}

type Misread = (ErrorCode, &'static str, Option<CorrelationId>);

fn failure(id: Option<CorrelationId>, code: ErrorCode, text: &str) -> Effect {
    Effect::Send(Outgoing::error(code, text, None).answering(id))
}

/// The payload of one of the client's own types, when it is an object with the fields of `T`; others are ignored.
fn payload<'a, T: Deserialize<'a>>(read: &'a ClientMessage) -> Option<T> {
    let json = read.message.payload.as_ref()?.bytes();
    serde_json::from_slice(json).ok().map(|Object(fields)| fields)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Join {
    room_id: String,
    cursor: Option<String>,
    presence: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Leave {
    room_id: String,
}

#[derive(Deserialize)]
struct Renew {
    token: String,
}

const JOIN: &str = "the payload is an object with `roomId`, and perhaps `cursor`, a string, and `presence`, a boolean";
const ROOM_ID: &str = "`roomId` must be a string of 1 to 255 bytes without control characters";
const TOKEN: &str = "`token` must be a string";

/// `token:expiring` comes at most so long before the end (protocol, "From the server").
const LONGEST_WARNING: Duration = Duration::from_secs(60);
/// So many `rate_limited` answers within [`REFUSAL_WINDOW`] end the connection (protocol, 4029).
const MAX_REFUSALS: usize = 4;
const REFUSAL_WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_by_its_length() {
        for (input, shown) in [
            (Input::Message(Bytes::from_static(b"secret")), "Message(6 bytes)"),
            (Input::Submitted(Bytes::from_static(b"secret")), "Submitted(6 bytes)"),
        ] {
            assert_eq!(format!("{input:?}"), shown);
        }
    }
}
