//! The stream from both sides, read by the rules of `EventSource`.
#![expect(clippy::disallowed_methods, reason = "a test spawns the other side of the pipe")]

use std::future::pending;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tidings_core::{
    CloseReason, Frame, FrameReader, FrameWriter, Message, MessageType, Outgoing, Payload,
    ReadError, RoomId, Transport as _,
};
use tidings_transport_sse::{
    ENVELOPE, FRAMING, SseBody, SseReader, SseTransport, SseWriter, closing_response,
    stream_response,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

const RETRY: Duration = Duration::from_millis(1500);
const PIPE_BYTES: usize = 16 * 1024;

/// Posted frames over a channel; when its sender is gone it waits for ever.
struct Posts(mpsc::Receiver<Bytes>);

impl FrameReader for Posts {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        match self.0.recv().await {
            Some(bytes) => Some(Ok(Frame::Message(bytes))),
            None => pending().await,
        }
    }
}

fn open() -> (SseReader<Posts>, SseWriter, SseBody, mpsc::Sender<Bytes>) {
    let (posts, posted) = mpsc::channel(4);
    let (transport, body) = SseTransport::new(false, RETRY, Posts(posted));
    let (reader, writer) = transport.split();
    (reader, writer, body, posts)
}

async fn chunk(body: &mut SseBody) -> Option<Bytes> {
    let Ok(frame) = body.frame().await?;
    frame.into_data().ok()
}

async fn text(body: SseBody) -> String {
    let Ok(all) = body.collect().await;
    String::from_utf8(all.to_bytes().to_vec()).expect("UTF-8")
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    kind: String,
    id: String,
    data: String,
}

/// "Interpreting an event stream" of the WHATWG standard; `retry` is left out.
fn parse(stream: &str) -> Vec<Event> {
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut id) = (Vec::new(), String::new());
    let (mut kind, mut data) = (String::new(), String::new());
    // What follows the last line break is no whole line.
    let whole = lines.rfind('\n').map_or("", |end| &lines[..end]);
    for line in whole.split('\n') {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                let kind = if kind.is_empty() { "message".to_owned() } else { kind.clone() };
                events.push(Event { kind, id: id.clone(), data: data.clone() });
            }
            kind.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut kind),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    events
}

fn message(kind: &str, payload: Option<&str>) -> Outgoing {
    let kind = MessageType::new(kind).expect("a type");
    let payload = payload.map(|json| Payload::Json(Bytes::copy_from_slice(json.as_bytes())));
    Outgoing::event(Message { kind, payload }, None)
}

fn encoded(encode: fn(&Outgoing) -> Bytes, message: &Outgoing) -> String {
    String::from_utf8(encode(message).to_vec()).expect("UTF-8")
}

#[test]
fn an_event_is_type_cursor_and_payload() {
    let mut event = message("chat", Some("{\"n\": 1.0}"));
    assert_eq!(encoded(FRAMING.encode, &event), "event: chat\ndata: {\"n\": 1.0}\n\n");
    event.cursor = Some("c1".into());
    assert_eq!(encoded(FRAMING.encode, &event), "event: chat\nid: c1\ndata: {\"n\": 1.0}\n\n");
    assert_eq!(encoded(FRAMING.encode, &message("x", None)), "event: x\ndata: null\n\n");
}

#[test]
fn line_breaks_of_every_kind_become_lines() {
    let event = message("x", Some("[\n1,\r2,\r\n3,\n\r4]"));
    let lines = "event: x\ndata: [\ndata: 1,\ndata: 2,\ndata: 3,\ndata: \ndata: 4]\n\n";
    assert_eq!(encoded(FRAMING.encode, &event), lines);
}

#[test]
fn an_error_leaves_the_name_to_event_source() {
    let mut event = message("x", Some("1"));
    event.kind = "error".into();
    assert!(encoded(FRAMING.encode, &event).starts_with("event: server:error\n"));
    let events = parse(&encoded(ENVELOPE.encode, &event));
    assert_eq!(events[0].kind, "server:error");
    assert_eq!(events[0].data, r#"{"type":"error","payload":1}"#);
}

#[test]
fn an_envelope_is_the_whole_message() {
    let mut event = message("chat", Some("[1,\n2]"));
    event.room = RoomId::new("r1").ok();
    event.cursor = Some("c1".into());
    let events = parse(&encoded(ENVELOPE.encode, &event));
    let data = "{\"type\":\"chat\",\"room\":\"r1\",\"cursor\":\"c1\",\"payload\":[1,\n2]}";
    assert_eq!(events, [Event { kind: "chat".into(), id: "c1".into(), data: data.into() }]);
}

#[test]
fn neither_type_nor_cursor_breaks_a_line() {
    let mut event = message("x", Some("1"));
    event.kind = "a\r\nb\nc".into();
    event.cursor = Some("d\n\ndata: 2\r\0".into());
    let events = parse(&encoded(FRAMING.encode, &event));
    let expected = Event { kind: "abc".into(), id: "ddata: 2".into(), data: "1".into() };
    assert_eq!(events, [expected]);
}

/// JSON text with white space of every kind between its tokens.
fn json_text() -> impl Strategy<Value = String> {
    let space = || "[ \t\r\n]{0,3}";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    let spaced = (space(), leaf, space()).prop_map(|(a, json, b)| format!("{a}{json}{b}"));
    spaced.prop_recursive(4, 24, 4, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(|of| of.join(","));
        let list = (space(), list, space()).prop_map(|(a, of, b)| format!("{a}[{of}]{b}"));
        let map = (any::<String>(), inner, space()).prop_map(|(key, value, space)| {
            format!("{{{space}{}{space}:{value}}}{space}", serde_json::Value::from(key))
        });
        prop_oneof![list, map]
    })
}

proptest! {
    #[test]
    fn a_payload_arrives_equal_as_json(json in json_text(), cursor in "[a-z0-9:=_-]{1,20}") {
        let mut event = message("chat", Some(&json));
        event.cursor = Some(cursor.as_str().into());
        let sent: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        for framing in [FRAMING, ENVELOPE] {
            let stream = encoded(framing.encode, &event);
            let events = parse(&format!("{stream}: ping\n\n{stream}"));
            prop_assert_eq!(events.len(), 2);
            prop_assert_eq!(&events[0], &events[1]);
            prop_assert_eq!(&events[0].kind, "chat");
            prop_assert_eq!(&events[0].id, &cursor);
            let mut read: serde_json::Value = serde_json::from_str(&events[0].data).expect("JSON");
            if framing.id == ENVELOPE.id {
                read = read["payload"].take();
            }
            prop_assert_eq!(&read, &sent);
        }
    }

    #[test]
    fn any_text_arrives_with_its_lines(lines in prop::collection::vec("[^\r\n]*", 1..5), with in "\r|\n|\r\n") {
        let text = lines.join(&with);
        let events = parse(&encoded(FRAMING.encode, &message("x", Some(&text))));
        prop_assert_eq!(&events[0].data, &lines.join("\n"));
    }
}

#[test]
fn the_kind_of_connection() {
    for (envelope, id) in [(false, "sse"), (true, "sse-envelope")] {
        let (_posts, posted) = mpsc::channel(1);
        let (transport, _body) = SseTransport::new(envelope, RETRY, Posts(posted));
        let info = transport.info();
        assert_eq!((info.name, info.framing.id), ("sse", id));
        assert!(!info.answers_heartbeats);
        assert_eq!(info.framing.heartbeat, b": ping\n\n");
    }
}

#[tokio::test]
async fn retry_comes_first_and_bytes_in_order() {
    let (_reader, mut writer, mut body, _posts) = open();
    let frames = [Bytes::from_static(b"ab"), Bytes::from_static(b""), Bytes::from_static(b"c")];
    assert_eq!(writer.try_write(&frames).expect("open"), 3);
    assert_eq!(chunk(&mut body).await.as_deref(), Some(&b"retry: 1500\n\n"[..]));
    assert_eq!(chunk(&mut body).await.as_deref(), Some(&b"abc"[..]));
    let waiting = tokio::spawn(async move { chunk(&mut body).await });
    tokio::task::yield_now().await;
    assert_eq!(writer.write(&[Bytes::from_static(b"d")]).await.expect("open"), 1);
    assert_eq!(waiting.await.expect("a chunk").as_deref(), Some(&b"d"[..]));
}

#[tokio::test]
async fn a_full_pipe_takes_what_fits_and_then_waits_for_the_body() {
    let (_reader, mut writer, mut body, _posts) = open();
    let big = Bytes::from(vec![b'x'; PIPE_BYTES - 1]);
    let two = Bytes::from_static(b"yz");
    assert_eq!(writer.try_write(&[big, two.clone()]).expect("open"), PIPE_BYTES);
    assert_eq!(writer.try_write(std::slice::from_ref(&two)).expect("open"), 0);
    let rest = [two.slice(1..)];
    assert!(timeout(Duration::from_millis(20), writer.write(&rest)).await.is_err());

    let write = tokio::spawn(async move { (writer.write(&rest).await, writer) });
    tokio::task::yield_now().await;
    assert!(!write.is_finished());
    chunk(&mut body).await.expect("retry");
    assert_eq!(chunk(&mut body).await.map(|chunk| chunk.len()), Some(PIPE_BYTES));
    let (wrote, writer) = write.await.expect("woken");
    assert_eq!(wrote.expect("open"), 1);
    drop(writer);
    // The write that was given up has taken nothing.
    assert_eq!(text(body).await, "z");
}

#[tokio::test]
async fn a_dropped_body_ends_reading_and_writing() {
    let (mut reader, mut writer, body, _posts) = open();
    let full = [Bytes::from(vec![b'x'; PIPE_BYTES])];
    writer.try_write(&full).expect("open");
    let reading = tokio::spawn(async move { (reader.next().await.is_none(), reader) });
    let writing = tokio::spawn(async move { (writer.write(&full).await, writer) });
    tokio::task::yield_now().await;
    assert!(!reading.is_finished() && !writing.is_finished());
    drop(body);
    let (ended, mut reader) = reading.await.expect("woken");
    assert!(ended && reader.next().await.is_none());
    let (wrote, mut writer) = writing.await.expect("woken");
    assert_eq!(wrote.expect_err("gone").kind(), ErrorKind::BrokenPipe);
    let again = writer.try_write(&[Bytes::from_static(b"x")]);
    assert_eq!(again.expect_err("gone").kind(), ErrorKind::BrokenPipe);
    writer.close(&CloseReason::NORMAL).await;
}

#[tokio::test]
async fn posted_frames_are_read_and_a_dropped_future_loses_none() {
    let (mut reader, _writer, _body, posts) = open();
    assert!(timeout(Duration::from_millis(10), reader.next()).await.is_err());
    posts.send(Bytes::from_static(b"1")).await.expect("open");
    posts.send(Bytes::from_static(b"2")).await.expect("open");
    for expected in [b"1", b"2"] {
        match reader.next().await {
            Some(Ok(Frame::Message(read))) => assert_eq!(read.as_ref(), expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn close_is_the_last_event_even_in_a_full_pipe() {
    let (_reader, mut writer, body, _posts) = open();
    let event = "event: x\ndata: 1\n\n";
    let mut frames = vec![Bytes::from(event)];
    // A comment that fills the pipe to the last byte.
    let rest = PIPE_BYTES - event.len();
    frames.push(Bytes::from(format!(":{}\n\n", "x".repeat(rest - 3))));
    assert_eq!(writer.try_write(&frames).expect("open"), PIPE_BYTES);
    let closing = tokio::spawn(async move {
        let reason = CloseReason {
            reconnect_after: Some(Duration::from_millis(250)),
            ..CloseReason::RESTART.with_text("a \"quoted\"\nreason")
        };
        writer.close(&reason).await;
        let after = writer.try_write(&[Bytes::from_static(b"x")]);
        assert_eq!(after.expect_err("closed").kind(), ErrorKind::BrokenPipe);
    });
    tokio::task::yield_now().await;
    assert!(!closing.is_finished(), "close waits until the body has taken it");
    let events = parse(&text(body).await);
    closing.await.expect("woken");
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].kind, "close");
    let data = r#"{"code":1012,"reason":"a \"quoted\"\nreason","reconnectAfterMs":250}"#;
    assert_eq!(events[1].data, data);
}

#[tokio::test]
async fn a_close_is_enveloped_as_any_event_is() {
    let (_posts, posted) = mpsc::channel(1);
    let (transport, body) = SseTransport::new(true, RETRY, Posts(posted));
    let (_reader, mut writer) = transport.split();
    let reading = tokio::spawn(text(body));
    writer.close(&CloseReason::TOO_SLOW).await;
    drop(writer);
    let events = parse(&reading.await.expect("woken"));
    let data = r#"{"type":"close","payload":{"code":4008,"reason":"too slow"}}"#;
    assert_eq!((events[0].kind.as_str(), events[0].data.as_str()), ("close", data));
}

#[tokio::test]
async fn a_dropped_transport_ends_the_body() {
    let (_posts, posted) = mpsc::channel(1);
    let (transport, body) = SseTransport::new(false, RETRY, Posts(posted));
    let reading = tokio::spawn(text(body));
    tokio::task::yield_now().await;
    drop(transport);
    assert_eq!(reading.await.expect("woken"), "retry: 1500\n\n");
}

#[tokio::test]
async fn a_response_is_a_stream_that_proxies_do_not_hold_back() {
    let response = closing_response(false, RETRY, &CloseReason::RESTART);
    assert_eq!(response.status(), 200);
    let body = text(response.into_body()).await;
    assert_eq!(
        body,
        "retry: 1500\n\nevent: close\ndata: {\"code\":1012,\"reason\":\"restart\"}\n\n"
    );

    let later = CloseReason::RESTART.with_reconnect_after(Duration::from_millis(70));
    let body = text(closing_response(false, RETRY, &later).into_body()).await;
    let data = r#"{"code":1012,"reason":"restart","reconnectAfterMs":70}"#;
    assert_eq!(body, format!("retry: 1500\n\nevent: close\ndata: {data}\n\n"));
    let body = text(closing_response(true, RETRY, &later).into_body()).await;
    let data = format!(r#"{{"type":"close","payload":{data}}}"#);
    assert_eq!(body, format!("retry: 1500\n\nevent: close\ndata: {data}\n\n"));
    let later = CloseReason::RESTART.with_reconnect_after(Duration::from_secs(70));
    let body = text(closing_response(false, RETRY, &later).into_body()).await;
    assert!(body.starts_with("retry: 70000\n\n"), "{body}");

    let (_reader, _writer, body, _posts) = open();
    let response = stream_response(body);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(response.headers().get(name).expect(name), value);
    }
    assert!(!response.body().is_end_stream());
}
