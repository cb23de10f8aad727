//! Close codes: a table with a meaning for the client.

use std::borrow::Cow;
use std::time::Duration;

use crate::ReadError;

/// Why a connection ends, as the client is told (protocol, "WebSocket", close codes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The code; below 3000 of RFC 6455, from 4000 on of Tidings.
    pub code: u16,
    /// A short text for people.
    pub reason: Cow<'static, str>,
    /// When to come back, where the server has an opinion.
    pub reconnect_after: Option<Duration>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl CloseReason {
            $($(#[$doc])* pub const $name: Self =
                Self { code: $code, reason: Cow::Borrowed($text), reconnect_after: None };)*
        }
    };
}

reasons! {
    /// Asked for. The client does not come back.
    NORMAL = 1000, "bye";
    /// The process ends without time to drain. The client comes back with backoff.
    GOING_AWAY = 1001, "going away";
    /// The peer broke the protocol. The client does not come back.
    PROTOCOL_ERROR = 1002, "protocol error";
    /// A kind of frame that is not taken. The client does not come back.
    UNSUPPORTED = 1003, "unsupported frame";
    /// Text that is not UTF-8. The client does not come back.
    NOT_UTF8 = 1007, "not UTF-8";
    /// No credentials. The client gets a token first.
    UNAUTHORIZED = 1008, "Unauthorized";
    /// Credentials that are no good. The client gets a new token first.
    INVALID_TOKEN = 1008, "Invalid token";
    /// A message over `message_bytes`. The client does not come back.
    TOO_BIG = 1009, "message too big";
    /// The server's fault. The client comes back with backoff.
    INTERNAL = 1011, "internal error";
    /// The peer answered no heartbeat. The client, if it lives, comes back with backoff.
    NO_SIGN_OF_LIFE = 1011, "no sign of life";
    /// A message did not come whole within `message_deadline`. The client comes back with backoff.
    UNFINISHED = 1011, "unfinished message";
    /// This node goes away. The client comes back when it was told.
    RESTART = 1012, "restart";
    /// The node is full or the bus is away. The client comes back with backoff.
    TRY_AGAIN_LATER = 1013, "try again later";
    /// The token expired while connected. The client comes back with a new one.
    TOKEN_EXPIRED = 4001, "token expired";
    /// An administrator disconnected the client. It does not come back.
    DISCONNECTED = 4002, "disconnected";
    /// The client reads too slowly. It comes back and resumes.
    TOO_SLOW = 4008, "too slow";
    /// Too many connections of this user. The client does not come back.
    TOO_MANY_CONNECTIONS = 4009, "too many connections";
    /// Too many messages. The client comes back with backoff.
    RATE_LIMITED = 4029, "rate limit";
}

impl CloseReason {
    /// The same code with another text, cut to the 123 bytes that a close frame can carry (RFC 6455, section 5.5.1).
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        let mut end = text.len().min(MAX_REASON_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.reason = Cow::Owned(text[..end].to_owned());
        self
    }

    /// The same, with the time after which the client is to come back.
    #[must_use]
    pub fn with_reconnect_after(mut self, delay: Duration) -> Self {
        self.reconnect_after = Some(delay);
        self
    }

    /// What a peer is told that ends the connection itself: its own code, which is 1005 when it gave none (RFC 6455,
    /// section 5.5.1).
    pub fn of_peer(code: u16) -> Self {
        Self { code, reason: Cow::Borrowed(""), reconnect_after: None }
    }

    /// Whether it says not to come back, at least not without other credentials.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.code, 1000 | 1002 | 1003 | 1007..=1009 | 4002 | 4009)
    }

    /// What a read that failed tells the peer; `None` when there is no one left to tell.
    pub fn of_read_error(error: &ReadError) -> Option<Self> {
        match error {
            ReadError::Protocol(text) => Some(Self::PROTOCOL_ERROR.with_text(text)),
            ReadError::Unsupported => Some(Self::UNSUPPORTED),
            ReadError::NotUtf8 => Some(Self::NOT_UTF8),
            ReadError::TooBig => Some(Self::TOO_BIG),
            ReadError::Io(_) => None,
        }
    }
}

/// What is left of a control frame's 125 bytes after the code.
const MAX_REASON_BYTES: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_to_123_bytes_at_a_character() {
        let reason = CloseReason::NORMAL.with_text(&"ü".repeat(100)).reason;
        assert_eq!(reason, "ü".repeat(61));
    }
}
