//! How a message looks as an event: a block of lines that a blank line ends.

use std::time::Duration;

use bytes::Bytes;
use tidings_core::{CloseReason, Framing, Outgoing, encode_json, push_payload};

/// An event whose data is the bare payload, `null` when there is none.
pub const FRAMING: Framing = Framing { id: "sse", encode: encode_bare, heartbeat: HEARTBEAT };

/// An event whose data is the whole message object, as on WebSocket (`?envelope=1`).
pub const ENVELOPE: Framing =
    Framing { id: "sse-envelope", encode: encode_envelope, heartbeat: HEARTBEAT };

fn encode_bare(message: &Outgoing) -> Bytes {
    let mut data = Vec::new();
    match &message.payload {
        Some(payload) => push_payload(&mut data, payload),
        None => data.extend_from_slice(b"null"),
    }
    event(&message.kind, message.cursor.as_deref(), &data)
}

fn encode_envelope(message: &Outgoing) -> Bytes {
    let mut data = Vec::new();
    encode_json(message, &mut data);
    event(&message.kind, message.cursor.as_deref(), &data)
}

/// The last event of a stream that ends in order.
pub(crate) fn close_event(framing: Framing, reason: &CloseReason) -> Bytes {
    (framing.encode)(&Outgoing::close(reason))
}

/// The same of a client that was told `retry` before, which an `EventSource` keeps for all tries to come. So it is told
/// another time in the event only when that is later: a shorter one would have it hammer a node that is away.
pub(crate) fn late_close_event(framing: Framing, retry: Duration, reason: &CloseReason) -> Bytes {
    let close = close_event(framing, reason);
    match reason.reconnect_after.filter(|after| *after > retry) {
        Some(after) => [format!("retry: {}\n", millis(after)).as_bytes(), &close].concat().into(),
        None => close,
    }
}

/// Tells the client how long it waits before it comes back.
pub(crate) fn retry_line(retry: Duration) -> Bytes {
    format!("retry: {}\n\n", millis(retry)).into()
}

fn event(kind: &str, cursor: Option<&str>, data: &[u8]) -> Bytes {
    // An event without data fires nothing, and its id is the last one all the same (HTML, 9.2.6).
    if let ("cursor", Some(cursor)) = (kind, cursor) {
        return [ID, cursor.as_bytes(), b"\n\n"].concat().into();
    }
    // `EventSource` uses `error` for itself.
    let kind = if kind == "error" { "server:error" } else { kind };
    let cursor_len = cursor.map_or(0, |cursor| cursor.len() + ID.len() + 1);
    let lens = EVENT.len() + kind.len() + cursor_len + DATA.len() + data.len() + 3;
    let mut out = Vec::with_capacity(lens);
    push_line(&mut out, EVENT, kind);
    if let Some(cursor) = cursor {
        push_line(&mut out, ID, cursor);
    }
    push_data(&mut out, data);
    out.push(b'\n');
    out.into()
}

/// One field in one line: what would end the line, or void an `id`, is left out.
fn push_line(out: &mut Vec<u8>, field: &[u8], value: &str) {
    out.extend_from_slice(field);
    out.extend(value.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r' | b'\0')));
    out.push(b'\n');
}

/// One `data` line per line of the data; `\r\n` is one line break.
fn push_data(out: &mut Vec<u8>, mut data: &[u8]) {
    loop {
        out.extend_from_slice(DATA);
        let end = data.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let (line, rest) = data.split_at(end.unwrap_or(data.len()));
        out.extend_from_slice(line);
        out.push(b'\n');
        data = match rest {
            [] => return,
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const HEARTBEAT: &[u8] = b": ping\n\n";
const EVENT: &[u8] = b"event: ";
const ID: &[u8] = b"id: ";
const DATA: &[u8] = b"data: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_cursor_is_an_id_alone() {
        let mut message = Outgoing::cursor();
        message.cursor = Some("c1".into());
        for framing in [FRAMING, ENVELOPE] {
            assert_eq!((framing.encode)(&message), "id: c1\n\n");
        }
    }
}
