//! The reference server as its clients meet it: the built program, real sockets.

mod support;

use serde_json::{Value, json};
use support::{Client, Events, Server, soon, token, token_with, unix_now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};

fn to_room(room: &str, kind: &str) -> Value {
    json!({"to": {"room": room}, "type": kind, "payload": {"of": kind}})
}

#[tokio::test]
async fn connected_comes_first() {
    let server = Server::start(&[]);
    let client = Client::open(&server, &token("ada")).await;
    assert_eq!(client.connected["payload"]["userId"], "ada");
    assert!(!client.id().is_empty());
    let mut client = Client::upgrade(&server, &format!("?room=r1&token={}", token("ada")), &[])
        .await
        .expect("an upgrade");
    assert_eq!(client.next_type().await, "connected");
    assert_eq!(client.next_type().await, "room:joined");
}

#[tokio::test]
async fn joining_routes_and_leaving_stops() {
    let server = Server::start(&[]);
    let mut ada = Client::in_room(&server, &token("ada"), "r1").await;
    let mut bob = Client::in_room(&server, &token("bob"), "r1").await;
    server.publish(&to_room("r1", "first")).await;
    let event = ada.next().await;
    assert_eq!(event["type"], "first");
    assert_eq!(event["room"], "r1");
    assert_eq!(event["payload"], json!({"of": "first"}));
    assert_eq!(bob.next_type().await, "first");

    ada.send(&json!({"type": "leave:room", "id": 7, "payload": {"roomId": "r1"}})).await;
    let left = ada.next().await;
    assert_eq!((&left["type"], &left["id"]), (&json!("room:left"), &json!(7)));
    assert_eq!(left["payload"]["roomId"], "r1");
    server.publish(&to_room("r1", "second")).await;
    assert_eq!(bob.next_type().await, "second");
    server.publish(&json!({"to": {"user": "ada"}, "type": "mark"})).await;
    assert_eq!(ada.next_type().await, "mark");
    // Leaving a room that one is not in is answered alike.
    ada.send(&json!({"type": "leave:room", "payload": {"roomId": "r1"}})).await;
    assert_eq!(ada.next_type().await, "room:left");
}

#[tokio::test]
async fn a_token_opens_only_the_rooms_it_names() {
    let server = Server::start(&[]);
    let token = token_with("ada", &json!({"rooms": ["team-*"]}));
    let mut ada = Client::in_room(&server, &token, "team-1").await;
    ada.send(&json!({"type": "join:room", "id": 1, "payload": {"roomId": "other"}})).await;
    let error = ada.next().await;
    assert_eq!(error["payload"]["code"], "forbidden");
    assert_eq!(error["payload"]["roomId"], "other");
    assert_eq!(error["id"], 1);
}

#[tokio::test]
async fn who_is_excepted_gets_nothing_while_others_do() {
    let server = Server::start(&[]);
    let mut ada = Client::in_room(&server, &token("ada"), "r1").await;
    let mut ada_too = Client::in_room(&server, &token("ada"), "r1").await;
    let mut bob = Client::in_room(&server, &token("bob"), "r1").await;
    let (mut not_client, mut not_user) = (to_room("r1", "not-client"), to_room("r1", "not-user"));
    not_client["except"] = json!({"client": ada.id()});
    not_user["except"] = json!({"user": "ada"});
    server.publish(&json!([not_client, not_user, to_room("r1", "all")])).await;
    assert_eq!(ada.next_type().await, "all");
    assert_eq!(ada_too.next_type().await, "not-client");
    assert_eq!(ada_too.next_type().await, "all");
    for kind in ["not-client", "not-user", "all"] {
        assert_eq!(bob.next_type().await, kind);
    }
}

#[tokio::test]
async fn tenants_with_the_same_names_never_meet() {
    let server = Server::start(&[]);
    let of = |tenant: &str| token_with("ada", &json!({"tenantId": tenant}));
    let mut clients = Vec::new();
    for (tenant, token) in [("a", of("a")), ("b", of("b")), ("", token("ada"))] {
        clients.push((tenant, Client::in_room(&server, &token, "r1").await));
    }
    for to in [json!({"room": "r1"}), json!({"user": "ada"}), json!({"everyone": true})] {
        for (tenant, client) in &mut clients {
            let mut publication = json!({"to": to, "type": format!("for-{tenant}")});
            if !tenant.is_empty() {
                publication["tenant"] = json!(tenant);
            }
            server.publish(&publication).await;
            assert_eq!(client.next_type().await, format!("for-{tenant}"), "{to}");
        }
    }
    // A mark follows, so that what leaked from the last publications would be seen before it.
    for (tenant, client) in &mut clients {
        let mut mark = json!({"to": {"client": client.id()}, "type": "mark"});
        if !tenant.is_empty() {
            mark["tenant"] = json!(tenant);
        }
        server.publish(&mark).await;
        assert_eq!(client.next_type().await, "mark");
    }
}

#[tokio::test]
async fn a_user_is_reached_on_all_connections_and_alone() {
    let server = Server::start(&[]);
    let mut one = Client::open(&server, &token("ada")).await;
    let mut two = Client::open(&server, &token("ada")).await;
    let mut bob = Client::open(&server, &token("bob")).await;
    server.publish(&json!({"to": {"user": "ada"}, "type": "hers"})).await;
    assert_eq!(one.next_type().await, "hers");
    assert_eq!(two.next_type().await, "hers");
    server.publish(&json!({"to": {"client": two.id()}, "type": "second"})).await;
    assert_eq!(two.next_type().await, "second");
    server.publish(&json!({"to": {"everyone": true}, "type": "all"})).await;
    for client in [&mut one, &mut two, &mut bob] {
        assert_eq!(client.next_type().await, "all");
    }
}

#[tokio::test]
async fn credentials_are_judged_after_the_upgrade() {
    let server = Server::start(&[]);
    let expired = token_with("ada", &json!({"exp": unix_now() - 60}));
    for (query, reason) in [
        (String::new(), "Unauthorized"),
        ("?token=nonsense".to_owned(), "Invalid token"),
        (format!("?token={expired}"), "Invalid token"),
    ] {
        let mut client = Client::upgrade(&server, &query, &[]).await.expect("an upgrade");
        assert_eq!(client.closed().await, (1008, reason.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused_before_the_upgrade() {
    let server = Server::start(&[]);
    let query = format!("?token={}", token("ada"));
    let foreign = [("origin", "http://evil.example")];
    match Client::upgrade(&server, &query, &foreign).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 403),
        other => panic!("not refused: {:?}", other.map(|_| ())),
    }
    let own = format!("http://{}", server.address);
    let mut client =
        Client::upgrade(&server, &query, &[("origin", &own)]).await.expect("an upgrade");
    assert_eq!(client.next_type().await, "connected");
    let head = format!("GET /events{query}");
    let answer = Server::http(server.address, &head, "Origin: http://evil.example\r\n", "").await;
    assert_eq!(answer.0, 403);
    let image = "Sec-Fetch-Site: cross-site\r\n";
    assert_eq!(Server::http(server.address, &head, image, "").await.0, 403);
}

#[tokio::test]
async fn another_method_is_told_which_one_to_use() {
    let server = Server::start(&[]);
    for (path, allow) in [("/ws", "allow: get\r\n"), ("/events", "allow: get, options\r\n")] {
        for method in ["HEAD", "POST", "PUT"] {
            let head = format!("{method} {path}");
            let (status, head, _) = Server::http_with_head(server.address, &head, "", "").await;
            assert!(status == 405 && head.contains(allow), "{method} {path}: {head}");
        }
    }
}

#[tokio::test]
async fn messages_are_answered_with_their_id() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, &token("ada")).await;
    client.send(&json!({"type": "ping", "id": "p1"})).await;
    let pong = client.next().await;
    assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &json!("p1")));
    assert!(pong["payload"]["timestamp"].is_u64(), "{pong}");
    for (message, code, id) in [
        (r#"{"type":"connected","id":1}"#, "reserved_type", json!(1)),
        (r#"{"type":"presence:joined","id":2}"#, "reserved_type", json!(2)),
        (r#"{"type":"no:such","id":"x"}"#, "unknown_type", json!("x")),
        (r#"{"type":"join:room","id":3}"#, "invalid_message", json!(3)),
        (r#"{"type":"ping","id":1.5}"#, "invalid_message", Value::Null),
        (r#"{"type":""}"#, "invalid_message", Value::Null),
        ("[]", "invalid_message", Value::Null),
        ("not JSON", "invalid_message", Value::Null),
    ] {
        client.send_frame(Message::text(message)).await;
        let error = client.next().await;
        assert_eq!(error["type"], "error", "{message}");
        assert_eq!(error["payload"]["code"], code, "{message}");
        assert_eq!(error["id"], id, "{message}");
    }
}

#[tokio::test]
async fn the_fourth_refusal_ends_a_client_that_sends_too_fast() {
    let server = Server::start(&["message_rate=1", "message_burst=2"]);
    let mut client = Client::open(&server, &token("ada")).await;
    for _ in 0..10 {
        client.send(&json!({"type": "ping"})).await;
    }
    let (messages, code, _) = client.until_closed().await;
    let refused = messages.iter().filter(|m| m["payload"]["code"] == "rate_limited").count();
    let pongs = messages.iter().filter(|m| m["type"] == "pong").count();
    assert_eq!((refused, code), (4, 4029), "{messages:?}");
    assert!(pongs >= 2, "{messages:?}");
}

#[tokio::test]
async fn there_is_an_end_to_the_rooms_of_a_connection() {
    let server = Server::start(&["rooms_per_connection=1"]);
    let mut client = Client::in_room(&server, &token("ada"), "r1").await;
    client.send(&json!({"type": "join:room", "payload": {"roomId": "r2"}})).await;
    let error = client.next().await;
    assert_eq!(error["payload"]["code"], "too_many_rooms");
    assert_eq!(error["payload"]["roomId"], "r2");
    client.send(&json!({"type": "leave:room", "payload": {"roomId": "r1"}})).await;
    assert_eq!(client.next_type().await, "room:left");
    client.send(&json!({"type": "join:room", "payload": {"roomId": "r2"}})).await;
    assert_eq!(client.next_type().await, "room:joined");
}

#[tokio::test]
async fn frames_that_are_too_big_or_binary_end_a_connection() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, &token("ada")).await;
    client.send_frame(Message::text("x".repeat(64 * 1024 + 1))).await;
    assert_eq!(client.closed().await.0, 1009);
    let mut client = Client::open(&server, &token("ada")).await;
    client.send_frame(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(client.closed().await.0, 1003);
}

#[tokio::test]
async fn a_half_done_handshake_is_cut() {
    let server = Server::start(&["handshake_deadline=0.3"]);
    let mut socket = TcpStream::connect(server.address).await.expect("a connection");
    socket.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n").await.expect("half a head");
    let mut rest = Vec::new();
    let _ = soon("the cut", socket.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP/1.1 101"), "{rest:?}");
}

/// A client that reads nothing, and one that lost nothing of more than the kernel can hold for the first.
async fn one_reads_and_one_does_not(server: &Server) -> (Client, Client) {
    let stalled = Client::in_room(server, &token("stalled"), "r1").await;
    let mut reader = Client::in_room(server, &token("reader"), "r1").await;
    let filling = "x".repeat(30_000);
    // In step with the reader, who so never has much waiting.
    for n in 0..FILLING {
        let payload = json!({"n": n, "filling": filling});
        let publication = json!({"to": {"room": "r1"}, "type": "fill", "payload": payload});
        server.publish(&publication).await;
        assert_eq!(reader.next().await["payload"]["n"], n);
    }
    (stalled, reader)
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_and_others_lose_nothing() {
    let server = Server::start(&["outbox_bytes=65536", "write_deadline=60", "close_deadline=60"]);
    let (mut stalled, mut reader) = one_reads_and_one_does_not(&server).await;
    let queued = server.admin("/stats").await["queuedBytes"].as_u64().expect("a number");
    assert!(queued <= 65536, "{queued}");
    let (messages, code, _) = stalled.until_closed().await;
    assert_eq!(code, 4008);
    assert!(messages.len() < FILLING, "nothing was dropped");
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message["payload"]["n"], n);
    }
    server.publish(&to_room("r1", "after")).await;
    assert_eq!(reader.next_type().await, "after");
}

#[tokio::test]
async fn who_reads_nothing_is_cut() {
    let server = Server::start(&["outbox_bytes=65536", "write_deadline=0.5"]);
    let (_stalled, mut reader) = one_reads_and_one_does_not(&server).await;
    let rooms = json!({"rooms": [{"room": "r1", "connections": 1, "users": 1}]});
    server.admin_shows("/rooms", &rooms).await;
    server.publish(&to_room("r1", "after")).await;
    assert_eq!(reader.next_type().await, "after");
}

#[tokio::test]
async fn five_hundred_messages_keep_their_order() {
    let server = Server::start(&[]);
    let mut ada = Client::in_room(&server, &token("ada"), "r1").await;
    let mut bob = Client::in_room(&server, &token("bob"), "r1").await;
    let publication = |n| json!({"to": {"room": "r1"}, "type": "n", "payload": n});
    server.publish(&(0..250).map(publication).collect()).await;
    server.publish(&(250..500).map(publication).collect()).await;
    for n in 0..500 {
        assert_eq!(ada.next().await["payload"], n);
        assert_eq!(bob.next().await["payload"], n);
    }
}

#[tokio::test]
async fn empty_rooms_and_users_vanish() {
    let server = Server::start(&[]);
    let mut ada = Client::in_room(&server, &token("ada"), "r1").await;
    let bob = Client::in_room(&server, &token("bob"), "r1").await;
    let room = json!({"rooms": [{"room": "r1", "connections": 2, "users": 2}]});
    server.admin_shows("/rooms", &room).await;
    drop(bob);
    let room = json!({"rooms": [{"room": "r1", "connections": 1, "users": 1}]});
    server.admin_shows("/rooms", &room).await;
    let user = json!({"users": [{"user": "ada", "connections": 1, "rooms": 1}]});
    server.admin_shows("/users", &user).await;
    ada.send(&json!({"type": "leave:room", "payload": {"roomId": "r1"}})).await;
    assert_eq!(ada.next_type().await, "room:left");
    server.admin_shows("/rooms", &json!({"rooms": []})).await;
    drop(ada);
    server.admin_shows("/users", &json!({"users": []})).await;
}

#[tokio::test]
async fn an_administrator_disconnects() {
    let server = Server::start(&[]);
    let mut ada = Client::open(&server, &token("ada")).await;
    let mut bob = Client::open(&server, &token("bob")).await;
    let json_type = "Content-Type: application/json\r\n";
    let body = r#"{"user":"ada","reason":"enough"}"#;
    let (status, answer) = Server::http(server.admin, "POST /disconnect", json_type, body).await;
    assert_eq!((status, answer.as_str()), (200, r#"{"disconnected":1}"#));
    assert_eq!(ada.closed().await, (4002, "enough".to_owned()));
    let body = json!({"client": bob.id()}).to_string();
    Server::http(server.admin, "POST /disconnect", json_type, &body).await;
    assert_eq!(bob.closed().await.0, 4002);
}

#[tokio::test]
async fn an_event_stream_speaks_and_is_spoken_to() {
    let server = Server::start(&[]);
    let ada = token_with("ada", &json!({"tenantId": "a"}));
    let mut events = Events::open(&server, "?room=r1&cursor=nonsense", &ada).await;
    assert!(events.head.starts_with("http/1.0 200") || events.head.starts_with("http/1.1 200"));
    assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
    let (kind, connected) = events.next().await;
    assert_eq!((kind.as_str(), &connected["recovered"]), ("connected", &json!(false)));
    let id = connected["clientId"].as_str().expect("a clientId").to_owned();
    let mut gaps = 0;
    loop {
        match events.next().await {
            (kind, data) if kind == "gap" => {
                assert_eq!(data["reason"], "cursor");
                gaps += 1;
            }
            (kind, data) if kind == "room:joined" => assert_eq!(data["roomId"], "r1"),
            (kind, _) if kind == "pong" => break,
            other => panic!("{other:?}"),
        }
        if gaps == 1 {
            let ping = r#"{"type":"ping"}"#;
            assert_eq!(server.submit(&id, &ada, ping).await, 202);
        }
    }
    assert!(gaps >= 1);

    let ping = r#"{"type":"ping"}"#;
    let other_user = token_with("bob", &json!({"tenantId": "a"}));
    let other_tenant = token_with("ada", &json!({"tenantId": "b"}));
    for (client, who, body, status) in [
        (id.as_str(), ada.as_str(), "not JSON", 400),
        (&id, &other_user, ping, 403),
        (&id, &other_tenant, ping, 404),
        ("nobody", &ada, ping, 404),
        (&id, &ada, &"x".repeat(64 * 1024 + 1), 413),
        (&id, "nonsense", ping, 401),
    ] {
        assert_eq!(server.submit(client, who, body).await, status, "{client} {who}");
    }
}

#[tokio::test]
async fn a_token_that_ends_is_told_and_then_ends_the_connection() {
    let server = Server::start(&["token_leeway=0"]);
    let exp = unix_now() + 2;
    let mut client = Client::open(&server, &token_with("ada", &json!({"exp": exp}))).await;
    assert_eq!(client.connected["payload"]["expiresAt"], exp);
    let expiring = client.next().await;
    assert_eq!(expiring["type"], "token:expiring");
    assert_eq!(expiring["payload"]["expiresAt"], exp);
    assert_eq!(client.closed().await.0, 4001);
    assert!(unix_now() >= exp);
}

/// Messages of 30 kB that no kernel holds for a client, 24 MB in all.
const FILLING: usize = 800;
