//! The JSON of the protocol: client messages in, server messages out, payload bytes untouched.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Object, present};
use crate::{Message, MessageType, Outgoing, Payload};

/// A message that a client sent.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClientMessage {
    /// Type and payload.
    pub message: Message,
    /// What its answer carries.
    pub id: Option<CorrelationId>,
}

/// The `id` of a client's message: a string of 1 to 64 bytes or an integer, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationId(Box<str>);

impl CorrelationId {
    /// The id as JSON text, as it came.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    fn read(json: &str) -> Option<Self> {
        let fits = if json.starts_with('"') {
            let text: Cow<'_, str> = serde_json::from_str::<Text<'_>>(json).ok()?.0;
            (1..=MAX_ID_BYTES).contains(&text.len())
        } else {
            let digits = json.strip_prefix('-').unwrap_or(json);
            json.len() <= MAX_ID_BYTES && digits.bytes().all(|b| b.is_ascii_digit())
        };
        fits.then(|| Self(json.into()))
    }
}

/// A client message that cannot be read; `id` when at least that could.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DecodeError {
    /// What is wrong with it.
    pub reason: &'static str,
    /// What the `error` carries.
    pub id: Option<CorrelationId>,
}

/// Reads one client message: `{"type", "payload"?, "id"?}`, other fields ignored (protocol, "Messages").
///
/// # Errors
/// [`DecodeError`], answered by `invalid_message`.
///
/// ```
/// let read = tidings_core::decode(&br#"{"type":"chat","payload":{"n":1.0},"id":7}"#[..].into())?;
/// assert_eq!(read.message.payload.map(|p| p.bytes().clone()).as_deref(), Some(&br#"{"n":1.0}"#[..]));
/// # Ok::<_, tidings_core::DecodeError>(())
/// ```
pub fn decode(text: &Bytes) -> Result<ClientMessage, DecodeError> {
    let fail = |reason| DecodeError { reason, id: None };
    let json = std::str::from_utf8(text).map_err(|_| fail("the message is not UTF-8"))?;
    let Object(fields): Object<Fields<'_>> = serde_json::from_str(json)
        .map_err(|_| fail("the message is not a JSON object with `type`, `payload` and `id`"))?;

    let id = match fields.id.map(|id| CorrelationId::read(id.get())) {
        Some(None) => return Err(fail("`id` must be a string of 1 to 64 bytes or an integer")),
        id => id.flatten(),
    };
    if too_deep(text, MAX_DEPTH) {
        return Err(DecodeError { reason: "the message is nested over 128 levels", id });
    }
    let kind = fields.kind.and_then(|kind| serde_json::from_str::<Text<'_>>(kind.get()).ok());
    let Some(kind) = kind.and_then(|kind| MessageType::new(kind.0).ok()) else {
        let reason = "`type` must be a string of 1 to 128 bytes without control characters";
        return Err(DecodeError { reason, id });
    };
    let payload = fields.payload.map(|raw| Payload::Json(text.slice_ref(raw.get().as_bytes())));
    Ok(ClientMessage { message: Message { kind, payload }, id })
}

/// Appends a server message as one JSON object: `type`, then `id`, `room`, `cursor` where there is one, then `payload`.
pub fn encode_json(message: &Outgoing, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":");
    push_text(out, &message.kind);
    if let Some(id) = &message.id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.as_json().as_bytes());
    }
    if let Some(room) = &message.room {
        out.extend_from_slice(b",\"room\":");
        push_text(out, room.as_str());
    }
    if let Some(cursor) = &message.cursor {
        out.extend_from_slice(b",\"cursor\":");
        push_text(out, cursor);
    }
    if let Some(payload) = &message.payload {
        out.extend_from_slice(b",\"payload\":");
        push_payload(out, payload);
    }
    out.push(b'}');
}

/// Appends a payload as JSON: the bytes as they came, or binary ones as `{"base64": "…"}`.
pub fn push_payload(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        Payload::Json(json) => out.extend_from_slice(json),
        Payload::Binary(bytes) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is written to memory");
}

/// Whether arrays and objects are nested over `levels`. Looks at brackets outside of strings only,
/// so that it is right for whatever turns out to be JSON.
pub(crate) fn too_deep(json: &[u8], levels: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A payload of `null` is passed through, an id of `null` is refused: neither is absent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Longest `id`, in bytes (protocol, "From the client").
const MAX_ID_BYTES: usize = 64;
/// Deepest nesting of a message (protocol, "Messages").
pub(crate) const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RoomId;

    fn read(text: &str) -> Result<ClientMessage, DecodeError> {
        decode(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_payload_keeps_its_bytes() {
        for payload in [
            "{ \"b\":1.50 ,\"a\": 1e400}",
            "null",
            "\"\\ud800\"",
            "[\n1]",
            "12345678901234567890123",
        ] {
            let read = read(&format!("{{\"type\":\"x\",\"payload\": {payload} }}")).expect(payload);
            let kept = read.message.payload.expect("a payload");
            assert_eq!(kept.bytes().as_ref(), payload.as_bytes());
        }
        assert_eq!(read("{\"type\":\"x\"}").map(|m| m.message.payload), Ok(None));
    }

    #[test]
    fn an_id_is_a_short_string_or_an_integer_and_comes_back_as_written() {
        for id in ["\"a\"", "0", "-7", "\"\\u0061\"", "12345678901234567890"] {
            let read = read(&format!("{{\"type\":\"x\",\"id\":{id}}}")).expect(id);
            assert_eq!(read.id.as_ref().map(CorrelationId::as_json), Some(id));
        }
        let long = format!("\"{}\"", "x".repeat(65));
        for id in ["1.5", "1e3", "null", "\"\"", "true", "{}", &long] {
            assert!(read(&format!("{{\"type\":\"x\",\"id\":{id}}}")).is_err(), "{id}");
        }
        assert!(read(&format!("{{\"type\":\"x\",\"id\":\"{}\"}}", "x".repeat(64))).is_ok());
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_id_when_it_can_be_read() {
        for text in [
            "",
            "[]",
            "[\"x\"]",
            "null",
            "{}",
            "{\"type\":1}",
            "{\"type\":\"\"}",
            "{\"type\":\"a\\u0000\"}",
            "{\"type\":\"x\"} y",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let error = read("{\"type\":5,\"id\":\"q\"}").expect_err("no type");
        assert_eq!(error.id.as_ref().map(CorrelationId::as_json), Some("\"q\""));
        assert!(read("{\"type\":\"x\",\"other\":[{}],\"payload\":1}").is_ok());
    }

    #[test]
    fn nesting_ends_at_128_levels() {
        let nested =
            |n: usize| format!("{{\"type\":\"x\",\"payload\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(read(&nested(127)).is_ok());
        assert!(read(&nested(128)).is_err());
        let deep = format!(
            "{{\"id\":7,\"other\":{}{},\"type\":\"x\"}}",
            "[".repeat(9999),
            "]".repeat(9999)
        );
        let error = read(&deep).expect_err("too deep");
        assert_eq!(
            error.id.as_ref().map(CorrelationId::as_json),
            Some("7"),
            "its id is read all the same"
        );
        assert!(
            read(&format!("{{\"type\":\"x\",\"payload\":\"{}\\\"[\"}}", "[".repeat(500))).is_ok()
        );
    }

    #[test]
    fn a_server_message_is_one_object_in_a_fixed_order() {
        let mut message = Outgoing::room_joined(&RoomId::new("r\"1").expect("a room"), false, None);
        message.room = RoomId::new("r\"1").ok();
        message.cursor = Some("c".into());
        let mut out = Vec::new();
        encode_json(&message.answering(CorrelationId::read("7")), &mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            r#"{"type":"room:joined","id":7,"room":"r\"1","cursor":"c","payload":{"roomId":"r\"1","recovered":false}}"#
        );
    }

    #[test]
    fn a_binary_payload_is_base64_to_a_json_client() {
        let mut out = Vec::new();
        push_payload(&mut out, &Payload::Binary(Bytes::from_static(&[0, 255])));
        assert_eq!(out, br#"{"base64":"AP8="}"#);
    }
}
