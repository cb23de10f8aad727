//! Who attacks the server costs only himself: bounded bytes, bounded time, and the right word at the end.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Client, PATIENCE, Server, soon, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

/// A WebSocket of which the test writes every byte. What came after the head is lost but for its first bytes.
async fn websocket(server: &Server) -> TcpStream {
    websocket_of(server, &token("mallory")).await
}

async fn websocket_of(server: &Server, token: &str) -> TcpStream {
    let mut socket = connect(server).await;
    let request = format!(
        "GET /ws?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("a request is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", socket.read_u8()).await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    socket
}

/// A masked frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(0x80 | length as u8),
        126..=0xffff => {
            header.push(0xfe);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(0xff);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header.extend_from_slice(&[0; 4]);
    header
}

/// Reads frames until the close; `None` when the connection was cut without one.
async fn close_code(socket: &mut TcpStream) -> Option<u16> {
    soon("the end", async {
        loop {
            let (first, length) = (socket.read_u8().await.ok()?, socket.read_u8().await.ok()?);
            let length = match length {
                126 => usize::from(socket.read_u16().await.ok()?),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            socket.read_exact(&mut payload).await.ok()?;
            if first == 0x88 {
                return Some(u16::from_be_bytes([payload[0], payload[1]]));
            }
        }
    })
    .await
}

/// Writes `bytes` again and again until the server hangs up or `most` bytes are written; answers how many were.
async fn flood(socket: &mut TcpStream, bytes: &[u8], most: usize) -> usize {
    let mut written = 0;
    while written < most {
        match tokio::time::timeout(PATIENCE, socket.write_all(bytes)).await {
            Ok(Ok(())) => written += bytes.len(),
            Ok(Err(_)) => return written,
            Err(_) => panic!("the server neither reads nor hangs up"),
        }
    }
    written
}

/// What memory may grow by, in KiB: far below what any of the attacks sends.
const SOME_KIB: usize = 16 * 1024;

async fn still_serves(server: &Server) {
    let mut client = Client::in_room(server, &token("ada"), "r1").await;
    server.publish(&json!({"to": {"room": "r1"}, "type": "mark"})).await;
    assert_eq!(client.next_type().await, "mark");
}

#[tokio::test]
async fn who_says_nothing_is_cut() {
    let server = Server::start(&["handshake_deadline=0.3"]);
    let mut silent = connect(&server).await;
    // However it ends, it ends.
    let _ = soon("the cut", silent.read_to_end(&mut Vec::new())).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn two_hundred_who_speak_a_byte_at_a_time_are_cut() {
    let server = Server::start(&["handshake_deadline=1"]);
    let drip = async |socket: &mut TcpStream| {
        for byte in b"GET /ws HTTP/1.1\r\nHost: x\r\n".iter().chain(std::iter::repeat(&b'x')) {
            if socket.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(connect(&server).await);
    }
    let cut = futures_util::future::join_all(crowd.iter_mut().map(drip));
    tokio::join!(soon("200 cuts", cut), still_serves(&server));
}

#[tokio::test]
async fn a_head_without_end_is_cut() {
    let server = Server::start(&[]);
    let before = server.resident_kib();
    let mut socket = connect(&server).await;
    socket.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nX: ").await.expect("a beginning");
    let written = flood(&mut socket, &[b'x'; 64 * 1024], 64 * 1024 * 1024).await;
    assert!(written < 16 * 1024 * 1024, "{written} bytes were taken");
    assert!(server.resident_kib() < before + SOME_KIB);
    still_serves(&server).await;
}

#[tokio::test]
async fn a_body_without_end_is_answered_by_408() {
    let server = Server::start(&["handshake_deadline=0.5", "message_deadline=0.5"]);
    let bearer = format!("Authorization: Bearer {}\r\n", token("mallory"));
    for (address, head) in [
        (server.address, format!("POST /events/{:032x} HTTP/1.1\r\n{bearer}", 1)),
        (server.address, "POST /publish HTTP/1.1\r\nAuthorization: Bearer publish-key\r\n".into()),
        (server.admin, "POST /disconnect HTTP/1.1\r\n".into()),
    ] {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let half = format!("{head}Host: localhost\r\nContent-Length: 64\r\n\r\n{{\"type\":");
        socket.write_all(half.as_bytes()).await.expect("half a request is sent");
        let mut answer = String::new();
        soon("an answer and the end", socket.read_to_string(&mut answer)).await.expect("text");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{head}: {answer}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn a_length_is_not_believed() {
    let server = Server::start(&[]);
    let before = server.resident_kib();
    for length in [64 * 1024 + 1, 256 * 1024 * 1024, 1 << 62, u64::MAX] {
        let mut socket = websocket(&server).await;
        socket.write_all(&header(0x81, length)).await.expect("a header");
        assert_eq!(close_code(&mut socket).await, Some(1009), "{length}");
    }
    assert!(server.resident_kib() < before + SOME_KIB);
    still_serves(&server).await;
}

#[tokio::test]
async fn fragments_without_end_are_too_big() {
    let server = Server::start(&[]);
    let before = server.resident_kib();
    for (fragment, most) in [(frame(0x00, b"x"), 16 << 20), (frame(0x00, &[b'x'; 1000]), 256 << 20)]
    {
        let mut socket = websocket(&server).await;
        socket.write_all(&frame(0x01, b"x")).await.expect("a beginning");
        let (mut read, mut write) = socket.split();
        let many = fragment.repeat(64);
        let flood = async {
            let mut written = 0;
            while written < most && write.write_all(&many).await.is_ok() {
                written += many.len();
            }
            written
        };
        // What comes after the close frame is dropped for a while, so the flood ends when that is here.
        let mut told = Vec::new();
        let close = async {
            while !told.windows(4).any(|w| w[0] == 0x88 && w[2..] == 1009u16.to_be_bytes()) {
                assert_ne!(read.read_buf(&mut told).await.expect("it is told"), 0, "only the end");
            }
        };
        soon("the close", async {
            tokio::select! {
                () = close => {}
                written = flood => panic!("{written} bytes were taken"),
            }
        })
        .await;
    }
    assert!(server.resident_kib() < before + SOME_KIB);
    still_serves(&server).await;
}

#[tokio::test]
async fn who_floods_with_pings_and_reads_no_pong_is_cut() {
    let server = Server::start(&["write_deadline=1", "close_deadline=0.5"]);
    let before = server.resident_kib();
    let mut socket = websocket(&server).await;
    let pings = frame(0x89, &[b'x'; 125]).repeat(100);
    let written = flood(&mut socket, &pings, 128 << 20).await;
    assert!(written < 64 << 20, "{written} bytes were taken");
    assert!(server.resident_kib() < before + SOME_KIB);
    server.admin_shows("/users", &json!({"users": []})).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn who_answers_no_ping_is_cut() {
    let server = Server::start(&["heartbeat=0.3"]);
    let mut socket = websocket(&server).await;
    assert_eq!(close_code(&mut socket).await, Some(1011));
    server.admin_shows("/users", &json!({"users": []})).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_so() {
    let server = Server::start(&[]);
    for (what, bytes, code) in [
        ("an unmasked frame", b"\x81\x01x".to_vec(), 1002),
        ("a reserved bit", frame(0xc1, b"x"), 1002),
        ("a reserved opcode", frame(0x83, b"x"), 1002),
        ("text that is none", frame(0x81, b"\xff"), 1007),
        ("text that is none, unfinished", frame(0x01, b"\xc3\x28"), 1007),
        ("a big ping", frame(0x89, &[b'x'; 126]), 1002),
        ("a ping in parts", frame(0x09, b"x"), 1002),
        ("nothing to continue", frame(0x80, b"x"), 1002),
        ("a close code of nobody", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("a binary frame", frame(0x82, b"x"), 1003),
    ] {
        let mut socket = websocket(&server).await;
        socket.write_all(&bytes).await.expect("written");
        assert_eq!(close_code(&mut socket).await, Some(code), "{what}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn who_is_still_sending_is_told_why_it_ends() {
    let server = Server::start(&["close_deadline=30"]);
    let before = server.resident_kib();
    let good = token("mallory");
    for (what, token, first, code) in [
        ("a message that is too big", &*good, 0x81, 1009),
        ("a binary message", &*good, 0x82, 1003),
        ("a bad token", "nonsense", 0x81, 1008),
    ] {
        let mut socket = websocket_of(&server, token).await;
        // Far more than the sockets of both sides hold, and not a byte of the server's is read meanwhile.
        socket.write_all(&header(first, 64 << 20)).await.expect("a header");
        let written = flood(&mut socket, &[b'x'; 65_536], 64 << 20).await;
        assert_eq!(written, 64 << 20, "{what}: the server hung up");
        assert_eq!(close_code(&mut socket).await, Some(code), "{what}");
    }
    assert!(server.resident_kib() < before + SOME_KIB);
    still_serves(&server).await;
}

#[tokio::test]
async fn who_goes_on_sending_after_the_close_is_cut() {
    let server = Server::start(&["close_deadline=0.5"]);
    let files = server.open_files();
    let mut socket = websocket(&server).await;
    socket.write_all(&header(0x81, u64::from(u32::MAX))).await.expect("a header");
    soon("the cut", async { while socket.write_all(&[b'x'; 1000]).await.is_ok() {} }).await;
    until("its socket is closed", || server.open_files() <= files).await;
}

#[tokio::test]
async fn three_thousand_resets_leave_nothing() {
    let server = Server::start(&["connections_per_user=0"]);
    still_serves(&server).await;
    let (files, memory) = (server.open_files(), server.resident_kib());
    for _ in 0..10 {
        let mut crowd = Vec::new();
        for _ in 0..300 {
            crowd.push(websocket(&server).await);
        }
        for socket in crowd {
            socket.set_zero_linger().expect("an option");
        }
    }
    until("the files are closed", || server.open_files() <= files + 5).await;
    server.admin_shows("/users", &json!({"users": []})).await;
    assert!(
        server.resident_kib() < memory + SOME_KIB,
        "{} KiB more",
        server.resident_kib() - memory
    );
    still_serves(&server).await;
}

/// An event stream of which nothing is read, once its head has come.
async fn stream(server: &Server) -> TcpStream {
    let mut socket = connect(server).await;
    let token = token("mallory");
    let request = format!("GET /events?room=r1&token={token} HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("a request is sent");
    let mut head = [0; 12];
    soon("a head", socket.read_exact(&mut head)).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200");
    let here = json!({"users": [{"user": "mallory", "connections": 1, "rooms": 1}]});
    server.admin_shows("/users", &here).await;
    socket
}

#[tokio::test]
async fn an_event_stream_that_nobody_reads_is_given_up_with_its_socket() {
    let server = Server::start(&["outbox_bytes=65536", "write_deadline=0.5", "close_deadline=0.5"]);
    let files = server.open_files();
    let stalled = stream(&server).await;
    assert!(server.open_files() > files);
    let filling = "x".repeat(30_000);
    let gone = json!({"users": []});
    soon("its end", async {
        while server.admin("/users").await != gone {
            let payload = json!({"filling": filling});
            server
                .publish(&json!({"to": {"room": "r1"}, "type": "fill", "payload": payload}))
                .await;
        }
    })
    .await;
    until("its socket is closed", || server.open_files() <= files).await;
    drop(stalled);
}

#[tokio::test]
async fn an_event_stream_is_missed_at_a_heartbeat_at_the_latest() {
    let server = Server::start(&["heartbeat=0.3"]);
    let mut socket = stream(&server).await;
    // hyper reads no further once there is a byte that it did not ask for, so it does not see the end behind it.
    socket.write_all(b"x").await.expect("written");
    let _ = socket.try_read(&mut [0; 4096]);
    drop(socket);
    server.admin_shows("/users", &json!({"users": []})).await;
}

/// Asks until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
