//! The protocol's text to the letter, where no other test looks: the built program, real sockets.

mod support;

use serde_json::{Value, json};
use support::{Client, Events, Server, token};

/// Publishes a body as it is; the status and the answer.
async fn publish(server: &Server, scheme: &str, body: &str) -> (u16, Value) {
    let key = format!("Authorization: {scheme} publish-key\r\n");
    let (status, answer) = Server::http(server.address, "POST /publish", &key, body).await;
    (status, serde_json::from_str(&answer).unwrap_or(Value::String(answer)))
}

fn to_room(payload: &str) -> String {
    format!(r#"{{"to":{{"room":"r"}},"type":"news","payload":{payload}}}"#)
}

/// The data of the next event of a type; what comes before is of no matter.
async fn event(events: &mut Events, kind: &str) -> Value {
    loop {
        let (of, data) = events.next().await;
        if of == kind {
            return data;
        }
    }
}

#[tokio::test]
async fn a_room_in_the_url_tells_who_comes_and_goes() {
    let server = Server::with_flags(&["--presence", "shown*"]);
    let query = format!("?room=shown&room=plain&presence=1&token={}", token("ada"));
    let mut ada = Client::upgrade(&server, &query, &[]).await.expect("an upgrade");
    let mut events = Events::open(&server, "?room=shown&presence=1", &token("eve")).await;
    assert_eq!(ada.next_type().await, "connected");
    let joined = ada.next().await["payload"].clone();
    assert_eq!(joined["roomId"], "shown");
    assert!(
        joined["members"].as_array().is_some_and(|all| all.contains(&json!("ada"))),
        "{joined}"
    );
    // Rooms that show nobody have no members to tell.
    let mut plain = ada.next().await;
    if plain["type"] == "presence:joined" {
        assert_eq!(plain["payload"]["userId"], "eve");
        plain = ada.next().await;
    }
    assert_eq!(plain["payload"], json!({"roomId": "plain", "recovered": false}));

    event(&mut events, "room:joined").await;
    let bob = Client::in_room(&server, &token("bob"), "shown").await;
    let bobs = json!({"roomId": "shown", "userId": "bob"});
    while ada.next().await["payload"] != bobs {}
    // She may be told of ada first, whose coming she may have seen in the list already.
    while events.next().await != ("presence:joined".to_owned(), bobs.clone()) {}
    drop(bob);
    let left = ada.next().await;
    assert_eq!((&left["type"], &left["payload"]), (&json!("presence:left"), &bobs));
    assert_eq!(events.next().await, ("presence:left".to_owned(), bobs));
}

#[tokio::test]
async fn a_payload_of_null_is_passed_through() {
    let server = Server::start(&[]);
    let mut client = Client::in_room(&server, &token("ada"), "r").await;
    let mut bare = Events::open(&server, "?room=r", &token("ada")).await;
    let mut whole = Events::open(&server, "?room=r&envelope=1", &token("ada")).await;
    event(&mut bare, "room:joined").await;
    event(&mut whole, "room:joined").await;
    assert_eq!(publish(&server, "Bearer", &to_room("null")).await.0, 200);
    assert_eq!(client.next().await.get("payload"), Some(&Value::Null));
    assert_eq!(event(&mut bare, "news").await, Value::Null);
    assert_eq!(event(&mut whole, "news").await.get("payload"), Some(&Value::Null));
    // None at all stays none.
    assert_eq!(publish(&server, "Bearer", r#"{"to":{"room":"r"},"type":"news"}"#).await.0, 200);
    assert_eq!(client.next().await.get("payload"), None);
    assert_eq!(event(&mut bare, "news").await, Value::Null);
    assert_eq!(event(&mut whole, "news").await.get("payload"), None);
}

#[tokio::test]
async fn a_message_is_nested_at_most_128_levels_on_every_way_in() {
    let server = Server::start(&[]);
    let mut client = Client::in_room(&server, &token("ada"), "r").await;
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let (status, answer) = publish(&server, "Bearer", &to_room(&nested(128))).await;
    assert_eq!((status, &answer[0]["error"]["code"]), (200, &json!("invalid_message")), "{answer}");
    // The client of these tests cannot read what is nested so deep, so it goes where nobody is.
    let nobody = to_room(&nested(127)).replace(r#""r""#, r#""nobody""#);
    let (status, answer) = publish(&server, "Bearer", &nobody).await;
    assert_eq!((status, answer[0].get("error")), (200, None));
    for (levels, code) in [(127, "unknown_type"), (128, "invalid_message")] {
        let text = format!(r#"{{"type":"x","payload":{},"id":"deep"}}"#, nested(levels));
        client.send_frame(tokio_tungstenite::tungstenite::Message::text(text)).await;
        let error = client.next().await;
        assert_eq!((&error["payload"]["code"], &error["id"]), (&json!(code), &json!("deep")));
    }
}

#[tokio::test]
async fn a_close_under_an_envelope_is_a_whole_message() {
    let server = Server::start(&[]);
    for (query, whole) in [("", false), ("?envelope=1", true)] {
        let mut events = Events::open(&server, query, &token("ada")).await;
        event(&mut events, "connected").await;
        let json_type = "Content-Type: application/json\r\n";
        let body = r#"{"user":"ada","reason":"enough"}"#;
        Server::http(server.admin, "POST /disconnect", json_type, body).await;
        let said = json!({"code": 4002, "reason": "enough"});
        let data = if whole { json!({"type": "close", "payload": said}) } else { said };
        assert_eq!(event(&mut events, "close").await, data);
    }
}

#[tokio::test]
async fn a_post_is_refused_for_what_a_websocket_is_told_is_invalid() {
    let server = Server::start(&[]);
    let ada = token("ada");
    let mut events = Events::open(&server, "?room=r", &ada).await;
    let connected = event(&mut events, "connected").await;
    let id = connected["clientId"].as_str().expect("a clientId");
    event(&mut events, "room:joined").await;
    for (body, status) in [
        (r#"{"type":"room:message"}"#, 400),
        (r#"{"type":"room:message","payload":{"roomId":"r"}}"#, 400),
        (r#"{"type":"room:message","payload":{"roomId":"","data":1}}"#, 400),
        (r#"{"type":"join:room","payload":{}}"#, 400),
        (r#"{"type":"room:message","payload":{"roomId":"other","data":1}}"#, 202),
        (r#"{"type":"token:renew","payload":{"token":""}}"#, 202),
        (r#"{"type":"no:such"}"#, 202),
        (r#"{"type":"room:message","payload":{"roomId":"r","data":null}}"#, 202),
    ] {
        assert_eq!(server.submit(id, &ada, body).await, status, "{body}");
    }
    // What was refused is told by the status alone.
    for code in ["forbidden", "forbidden", "unknown_type"] {
        assert_eq!(event(&mut events, "server:error").await["code"], code);
    }
    assert_eq!(event(&mut events, "room:message").await["data"], Value::Null);
}

#[tokio::test]
async fn a_token_that_is_no_good_is_forbidden_and_the_old_one_goes_on() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, &token("ada")).await;
    for (payload, code) in [
        (json!({"token": ""}), "forbidden"),
        (json!({"token": "nonsense"}), "forbidden"),
        (json!({"token": token("bob")}), "forbidden"),
        (json!({"token": 5}), "invalid_message"),
        (json!({}), "invalid_message"),
    ] {
        client.send(&json!({"type": "token:renew", "payload": payload, "id": 1})).await;
        let error = client.next().await;
        assert_eq!((&error["payload"]["code"], &error["id"]), (&json!(code), &json!(1)));
    }
    client.send(&json!({"type": "ping"})).await;
    assert_eq!(client.next_type().await, "pong");
}

#[tokio::test]
async fn the_scheme_of_the_publish_key_is_spelled_in_any_case() {
    let server = Server::start(&[]);
    for (scheme, status) in [("Bearer", 200), ("bearer", 200), ("BEARER", 200), ("Basic", 401)] {
        assert_eq!(publish(&server, scheme, &to_room("1")).await.0, status, "{scheme}");
    }
    assert_eq!(publish(&server, "Bearer x", &to_room("1")).await.0, 401);
}

#[tokio::test]
async fn an_array_is_no_object() {
    let server = Server::start(&[]);
    let mut client = Client::in_room(&server, &token("ada"), "r").await;
    for (kind, payload) in [
        ("join:room", json!(["r1", null, true, null])),
        ("leave:room", json!(["r"])),
        ("leave:room", json!(["r", null, null, null])),
        ("token:renew", json!([null, null, null, token("ada")])),
        ("token:renew", json!([token("ada")])),
        ("room:message", json!(["r", 5])),
    ] {
        client.send(&json!({"type": kind, "payload": payload, "id": 1})).await;
        let error = client.next().await;
        assert_eq!(error["payload"]["code"], "invalid_message", "{kind} {payload}: {error}");
        assert_eq!(error["id"], 1);
    }
    for body in [
        r#"[[["r",null,null,null],null,"news",1,null,null]]"#,
        r#"{"to":["r",null,null,null],"type":"news"}"#,
        r#"{"to":{"room":"r"},"except":[null,"ada",null,null],"type":"news"}"#,
    ] {
        let (status, answer) = publish(&server, "Bearer", body).await;
        assert_eq!(
            (status, &answer[0]["error"]["code"]),
            (200, &json!("invalid_message")),
            "{body}: {answer}"
        );
    }
    let body = r#"["ada",null,null,"x"]"#;
    assert_eq!(Server::http(server.admin, "POST /disconnect", "", body).await.0, 400);
    // She is still in her room, and was sent nothing of it.
    assert_eq!(publish(&server, "Bearer", &to_room("7")).await.0, 200);
    assert_eq!(client.next().await["payload"], 7);
}
