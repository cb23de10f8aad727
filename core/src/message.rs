//! What is sent: a type and, optionally, a payload whose bytes nobody touches.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::codec::{MAX_DEPTH, too_deep};

/// An application's message: `type` and `payload` of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageType,
    /// What it carries; JSON clients see `null` or no payload at all for `None`.
    pub payload: Option<Payload>,
}

impl Message {
    /// A message with a JSON text as its payload, passed through byte for byte.
    ///
    /// # Errors
    /// [`MessageError`] when `kind` is no type, or `json` is not one JSON value or is nested over 127 levels.
    pub fn json(kind: impl AsRef<str>, json: impl Into<Bytes>) -> Result<Self, MessageError> {
        let payload = Some(Payload::json(json)?);
        Ok(Self { kind: MessageType::new(kind)?, payload })
    }

    /// A message whose payload is `value` written as JSON.
    ///
    /// # Errors
    /// [`MessageError`] when `kind` is no type or `value` cannot be written as JSON.
    pub fn of(kind: impl AsRef<str>, value: &impl serde::Serialize) -> Result<Self, MessageError> {
        let json = serde_json::to_vec(value).map_err(|_| MessageError::Json)?;
        Self::json(kind, json)
    }

    /// A message of a type alone.
    ///
    /// # Errors
    /// [`MessageError`] when `kind` is no type.
    pub fn empty(kind: impl AsRef<str>) -> Result<Self, MessageError> {
        Ok(Self { kind: MessageType::new(kind)?, payload: None })
    }

    /// Bytes of type and payload together; what `message_bytes` bounds.
    pub fn len(&self) -> usize {
        self.kind.as_str().len() + self.payload.as_ref().map_or(0, |p| p.bytes().len())
    }

    /// Whether there is no payload, or an empty one.
    pub fn is_empty(&self) -> bool {
        self.payload.as_ref().is_none_or(|p| p.bytes().is_empty())
    }
}

/// Why something is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The type has no byte or over 128 of them.
    #[error("a type must have 1 to {MAX_TYPE_BYTES} bytes, this one has {0}")]
    TypeLength(usize),
    /// The type has a control character.
    #[error("a type must not contain control characters")]
    TypeControlCharacter,
    /// The payload is not one JSON value.
    #[error("the payload is not a JSON value")]
    Json,
    /// The payload is nested over 127 levels, and so its message over 128.
    #[error("the payload is nested over 127 levels, which makes a message of over 128")]
    TooDeep,
}

/// The type of a message: 1 to 128 bytes without control characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MessageType(Arc<str>);

impl MessageType {
    /// Checks a type.
    ///
    /// # Errors
    /// [`MessageError`] when its length or a character is not allowed.
    pub fn new(kind: impl AsRef<str>) -> Result<Self, MessageError> {
        let kind = kind.as_ref();
        match kind.len() {
            1..=MAX_TYPE_BYTES if kind.chars().any(char::is_control) => {
                Err(MessageError::TypeControlCharacter)
            }
            1..=MAX_TYPE_BYTES => Ok(Self(Arc::from(kind))),
            n => Err(MessageError::TypeLength(n)),
        }
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the protocol keeps this type for the server, so that no client and no publication may use it.
    pub fn is_reserved(&self) -> bool {
        let kind = self.as_str();
        RESERVED.contains(&kind) || RESERVED_PREFIXES.iter().any(|p| kind.starts_with(p))
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The bytes that a message carries, as they came.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value as text.
    Json(Bytes),
    /// Anything; a JSON client sees `{"base64": "…"}`.
    Binary(Bytes),
}

impl Payload {
    /// A JSON text, checked to be one value of at most 127 levels: the message around it is one more.
    ///
    /// # Errors
    /// [`MessageError::Json`] or [`MessageError::TooDeep`].
    pub fn json(json: impl Into<Bytes>) -> Result<Self, MessageError> {
        let json = json.into();
        if too_deep(&json, MAX_DEPTH - 1) {
            return Err(MessageError::TooDeep);
        }
        serde_json::from_slice::<&RawValue>(&json).map_err(|_| MessageError::Json)?;
        Ok(Self::Json(json))
    }

    /// The bytes, whatever they are.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

/// Shows a length, never the content: payloads do not belong in logs.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self, Self::Json(_)) { "json" } else { "binary" };
        write!(f, "{kind}[{} bytes]", self.bytes().len())
    }
}

/// Longest type, in bytes (protocol, "Messages").
const MAX_TYPE_BYTES: usize = 128;
/// Types that only the server sends (protocol, "From the server").
const RESERVED: [&str; 10] = [
    "connected",
    "error",
    "open",
    "ok",
    "gap",
    "pong",
    "close",
    "cursor",
    "room:joined",
    "room:left",
];
const RESERVED_PREFIXES: [&str; 3] = ["presence:", "server:", "token:"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_1_to_128_bytes_and_no_control_characters() {
        assert_eq!(MessageType::new(""), Err(MessageError::TypeLength(0)));
        assert!(MessageType::new("x".repeat(128)).is_ok());
        assert_eq!(MessageType::new("x".repeat(129)), Err(MessageError::TypeLength(129)));
        assert_eq!(MessageType::new("a\u{9f}"), Err(MessageError::TypeControlCharacter));
    }

    #[test]
    fn the_servers_own_types_are_reserved_and_no_others() {
        for kind in [
            "connected",
            "room:left",
            "presence:joined",
            "server:x",
            "token:renew",
            "close",
            "cursor",
        ] {
            assert!(MessageType::new(kind).is_ok_and(|k| k.is_reserved()), "{kind}");
        }
        for kind in ["room:message", "connected2", "presence", "join:room", "message"] {
            assert!(MessageType::new(kind).is_ok_and(|k| !k.is_reserved()), "{kind}");
        }
    }

    #[test]
    fn a_json_payload_is_one_value_and_keeps_its_bytes() {
        let text = "{ \"b\" : 1.50,\n \"a\":[1e3] }";
        assert_eq!(Payload::json(text).map(|p| p.bytes().clone()), Ok(Bytes::from(text)));
        for wrong in ["", "{", "1 2", "nul", "\"\u{1}\""] {
            assert_eq!(Payload::json(wrong.to_owned()), Err(MessageError::Json), "{wrong}");
        }
        assert!(Payload::json("[".repeat(127) + &"]".repeat(127)).is_ok());
        assert_eq!(Payload::json("[".repeat(128) + &"]".repeat(128)), Err(MessageError::TooDeep));
    }
}
