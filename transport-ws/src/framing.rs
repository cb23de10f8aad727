//! From a message to the bytes on the wire.

use bytes::Bytes;
use tidings_core::{CloseReason, Framing, Outgoing, Payload, encode_json};

/// JSON in unmasked text frames, one frame per message.
pub const FRAMING: Framing = Framing { id: "ws-json", encode, heartbeat: EMPTY_PING };

/// One text frame; header and text share one allocation.
fn encode(message: &Outgoing) -> Bytes {
    let mut frame = Vec::with_capacity(MAX_HEADER_BYTES + estimate(message));
    frame.resize(MAX_HEADER_BYTES, 0);
    encode_json(message, &mut frame);
    let length = frame.len() - MAX_HEADER_BYTES;
    let (header, used) = text_header(length);
    // The header ends where the text begins; what is left over before it is cut off.
    let start = MAX_HEADER_BYTES - used;
    frame[start..MAX_HEADER_BYTES].copy_from_slice(&header[..used]);
    Bytes::from(frame).slice(start..)
}

/// The header of a final text frame of this length, and how many of the bytes are it.
fn text_header(length: usize) -> ([u8; MAX_HEADER_BYTES], usize) {
    let mut header = [0; MAX_HEADER_BYTES];
    header[0] = FINAL | TEXT;
    let length = length as u64;
    let used = match length {
        0..=125 => {
            header[1] = length as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&length.to_be_bytes());
            MAX_HEADER_BYTES
        }
    };
    (header, used)
}

/// About how long the JSON becomes; too little costs a second allocation, nothing else.
fn estimate(message: &Outgoing) -> usize {
    let payload = match &message.payload {
        Some(Payload::Binary(bytes)) => bytes.len().div_ceil(3) * 4,
        Some(other) => other.bytes().len(),
        None => 0,
    };
    let room = message.room.as_ref().map_or(0, |room| room.as_str().len());
    let cursor = message.cursor.as_ref().map_or(0, |cursor| cursor.len());
    JSON_AROUND + message.kind.len() + room + cursor + payload
}

/// The close frame for a reason, its text cut to what fits; an empty one answers a peer that gave no code.
pub fn close_frame(reason: &CloseReason) -> Bytes {
    if reason.code == NO_CODE {
        return control_frame(CLOSE, &[]);
    }
    let reason = reason.clone().with_text(&reason.reason);
    let mut payload = Vec::with_capacity(2 + reason.reason.len());
    payload.extend_from_slice(&reason.code.to_be_bytes());
    payload.extend_from_slice(reason.reason.as_bytes());
    control_frame(CLOSE, &payload)
}

/// The pong that answers a ping.
pub(crate) fn pong_frame(payload: &[u8]) -> Bytes {
    if payload.is_empty() { Bytes::from_static(EMPTY_PONG) } else { control_frame(PONG, payload) }
}

/// `payload` has at most 125 bytes.
fn control_frame(opcode: u8, payload: &[u8]) -> Bytes {
    debug_assert!(payload.len() <= MAX_CONTROL_BYTES);
    let mut frame = Vec::with_capacity(2 + payload.len());
    frame.extend_from_slice(&[FINAL | opcode, payload.len() as u8]);
    frame.extend_from_slice(payload);
    frame.into()
}

/// "No code was there"; it is never sent (RFC 6455, section 7.4.1).
pub(crate) const NO_CODE: u16 = 1005;
/// Longest payload of a control frame (RFC 6455, section 5.5).
pub(crate) const MAX_CONTROL_BYTES: usize = 125;
/// Longest header of a frame that is not masked (RFC 6455, section 5.2).
const MAX_HEADER_BYTES: usize = 10;
/// Names, quotes and an id around the parts of a message.
const JSON_AROUND: usize = 96;
const FINAL: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xa;
const EMPTY_PING: &[u8] = &[0x89, 0];
const EMPTY_PONG: &[u8] = &[0x8a, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{Message, MessageType};

    /// An event whose JSON has exactly this many bytes.
    fn event_of(bytes: usize) -> Outgoing {
        let around = r#"{"type":"x","payload":""}"#.len();
        let json = format!("\"{}\"", "a".repeat(bytes - around));
        let kind = MessageType::new("x").expect("a type");
        Outgoing::event(Message { kind, payload: Some(Payload::Json(json.into())) }, None)
    }

    #[test]
    fn the_header_has_the_shortest_length_on_both_sides_of_each_limit() {
        for (length, header) in [
            (125, &[0x81, 125][..]),
            (126, &[0x81, 126, 0, 126]),
            (0xffff, &[0x81, 126, 0xff, 0xff]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let message = event_of(length);
            let frame = (FRAMING.encode)(&message);
            let mut text = Vec::new();
            encode_json(&message, &mut text);
            assert_eq!(text.len(), length);
            assert_eq!(frame[..header.len()], *header);
            assert_eq!(frame[header.len()..], text);
        }
    }

    #[test]
    fn a_close_frame_carries_code_and_text() {
        assert_eq!(close_frame(&CloseReason::NORMAL)[..], *b"\x88\x05\x03\xe8bye");
        assert_eq!(close_frame(&CloseReason::of_peer(4000))[..], *b"\x88\x02\x0f\xa0");
        assert_eq!(close_frame(&CloseReason::of_peer(NO_CODE))[..], *b"\x88\0");
        let long = CloseReason { reason: "x".repeat(124).into(), ..CloseReason::NORMAL };
        let frame = close_frame(&long);
        assert_eq!((frame[1], frame.len()), (125, 127));
    }

    #[test]
    fn a_pong_carries_the_pings_bytes() {
        assert_eq!(pong_frame(b"")[..], [0x8a, 0]);
        assert_eq!(pong_frame(b"ab")[..], *b"\x8a\x02ab");
        assert_eq!(pong_frame(&[7; MAX_CONTROL_BYTES]).len(), 127);
    }
}
