//! The bodies of the fuzz targets. Each panics when what it checks does not hold.
//!
//! They are ordinary functions, so that `examples/tests/corpora.rs` replays the corpora on stable.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use tidings_core::machines::{Effect, Input, Now, Operation, Session};
use tidings_core::testing::router_model::{Op, check};
use tidings_core::{ConnectRequest, Frame, Limits, Outgoing, encode_json, redact_query};
use tidings_transport_ws::Decoder;

/// Any bytes are decoded without a panic; what is accepted is encoded again with the same payload bytes, and the
/// payload of a type that a session carries out itself is an object.
pub fn decode(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    let Ok(read) = tidings_core::decode(&text) else { return };
    let mut encoded = Vec::new();
    let outgoing = Outgoing::event(read.message.clone(), None).answering(read.id.clone());
    encode_json(&outgoing, &mut encoded);
    if let Some(payload) = &read.message.payload {
        let end = [b",\"payload\":", payload.bytes().as_ref(), b"}"].concat();
        assert!(encoded.ends_with(&end), "the payload's bytes changed");
    }
    let again = tidings_core::decode(&Bytes::from(encoded));
    assert_eq!(again.as_ref(), Ok(&read), "it does not read what it wrote");

    let mut effects = Vec::new();
    let now = Now { monotonic: Duration::ZERO, unix: Duration::ZERO };
    Session::new(now, &Limits::default(), None).handle(now, Input::Message(text), &mut effects);
    let payload = read.message.payload.as_ref().map(|payload| payload.bytes().as_ref());
    for effect in effects {
        let Effect::Start(operation) = effect else { continue };
        let is_object = payload.is_some_and(|json| json.starts_with(b"{"));
        assert!(is_object || matches!(operation, Operation::Handle(_)), "{operation:?}");
    }
}

/// Three lines: a target, an `Authorization`, a `Cookie`. No token is shown by a request's `Debug` or
/// by [`redact_query`].
pub fn credentials(data: &[u8]) {
    let mut lines = data.splitn(3, |&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (target, bearer, cookie) = (line(), line(), line());
    let target = String::from_utf8_lossy(target);
    let planted = !target.contains(SECRET);
    let joint = if target.contains('?') { '&' } else { '?' };
    let with_secret = format!("{target}{joint}token={SECRET}");

    for target in [&*target, &with_secret] {
        let shown = redact_query(target);
        assert_hidden(&shown);
        assert_eq!(redact_query(&shown), shown, "redacted twice is redacted once");
        assert!(!planted || !shown.contains(SECRET), "a log shows {shown}");

        let Ok(uri) = target.parse::<Uri>() else { continue };
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        let bare = format!("{:?}", ConnectRequest::read(&request, COOKIE));
        for (name, value) in [(header::AUTHORIZATION, bearer), (header::COOKIE, cookie)] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request.headers_mut().insert(name, value);
            }
        }
        let read = ConnectRequest::read(&request, COOKIE);
        let debug = format!("{read:?}");
        assert!(!planted || !debug.contains(SECRET), "Debug shows {debug}");
        assert_hidden(&redact_query(&read.uri.to_string()));
        if let Some(token) = &read.token {
            assert!(!token.expose().is_empty());
            assert_eq!(format!("{token:?}"), "Token(…)");
            // What does not depend on the token cannot show it.
            assert_eq!(format!("{:?}", read.clone().with_token("another")), debug);
        }
        let in_query = read.query("token").any(|value| !value.is_empty());
        assert!(!in_query || read.token.is_some(), "a token of the query was not found");
        let same_kind = read.token.is_none() || in_query;
        assert!(!same_kind || debug == bare, "Debug shows headers");
    }
}

/// Every parameter that a server reads as `token` has lost its value.
fn assert_hidden(shown: &str) {
    let query = shown.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let hidden = name != "token" || matches!(&*value, "" | "[redacted]");
        assert!(hidden, "a log shows {shown}");
    }
}

/// Four bytes (a limit, three lengths of pieces) and a stream. Fed in pieces it gives what it gives at
/// once, and never more than the limit is kept.
pub fn websocket(data: &[u8]) {
    let Some((&[limit, lengths @ ..], stream)) = data.split_first_chunk::<4>() else { return };
    let limit = usize::from(limit);
    let whole = feed(limit, [stream]);

    let mut lengths = lengths.map(usize::from);
    if lengths == [0; 3] {
        lengths = [1; 3];
    }
    let (mut pieces, mut rest) = (Vec::new(), stream);
    for length in lengths.into_iter().cycle() {
        let (piece, later) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(feed(limit, pieces), whole, "the pieces {lengths:?} change what is read");
}

/// The frames, the close code and the error that pieces of a stream give.
fn feed<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut decoder = Decoder::new(limit);
    let (mut out, mut error) = (VecDeque::new(), None);
    for piece in pieces {
        if let Err(e) = decoder.feed(piece, &mut out) {
            assert!(error.is_none(), "one error at most");
            error = Some(e.to_string());
        }
        let debug = format!("{decoder:?}");
        assert!(kept(&debug, " message: [") <= limit, "{debug}");
        assert!(kept(&debug, " control: [") <= MAX_CONTROL_BYTES, "{debug}");
    }
    let frames = out.into_iter().map(|frame| match frame {
        Frame::Message(text) => {
            assert!(text.len() <= limit && std::str::from_utf8(&text).is_ok());
            ("message", text)
        }
        Frame::Respond(bytes) => {
            assert!(bytes.len() <= 2 + MAX_CONTROL_BYTES);
            ("respond", bytes)
        }
        Frame::Alive => ("alive", Bytes::new()),
        other => panic!("a WebSocket gives no {other:?}"),
    });
    (frames.collect(), decoder.closed(), error)
}

type Read = (Vec<(&'static str, Bytes)>, Option<u16>, Option<String>);

/// How many bytes a decoder keeps in a field; its `Debug` alone tells.
fn kept(debug: &str, field: &str) -> usize {
    let (_, list) = debug.split_once(field).expect("a decoder has the field");
    let (list, _) = list.split_once(']').expect("a list ends");
    list.split(',').filter(|byte| !byte.is_empty()).count()
}

/// How many shards, then two bytes for each operation. Routers answer as a map of sets does.
pub fn router(data: &[u8]) {
    let Some((&shards, operations)) = data.split_first() else { return };
    let script = operations.as_chunks::<2>().0.iter().take(MAX_OPERATIONS).map(|&[what, which]| {
        let (connection, topic) = (usize::from(what >> 3), usize::from(which));
        match what & 7 {
            0 | 1 => Op::Attach { shard: topic },
            2 => Op::Detach { connection },
            3..=5 => Op::Join { connection, topic },
            _ => Op::Leave { connection, topic },
        }
    });
    check(1 + usize::from(shards % 4), script);
}

/// What is planted as a token; the data of a fuzzer hardly ever has it.
const SECRET: &str = "s5ecret-c7f1";
const COOKIE: &str = "wsToken";
/// Longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: usize = 125;
/// More would only make one run slow.
const MAX_OPERATIONS: usize = 256;
