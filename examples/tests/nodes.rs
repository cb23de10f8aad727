//! Two servers on one Redis, as their clients and administrators meet them: what is asked of one is done by the other.

mod support;

use serde_json::json;
use support::{Client, Events, Server, soon, token, token_with};
use tidings_redis_testing::{Options, Redis};

/// Two servers, and the Redis that joins them.
async fn nodes() -> (Redis, Server, Server) {
    let redis = Redis::start(Options::default()).await;
    let url = redis.url();
    let node = |name| Server::with_flags(&["--bus", &url, "--node-id", name]);
    let (one, two) = (node("one"), node("two"));
    assert_eq!(one.admin("/stats").await["nodeId"], "one");
    (redis, one, two)
}

#[tokio::test]
async fn a_message_is_posted_to_any_node() {
    let (_redis, one, two) = nodes().await;
    let of = |tenant: &str, user: &str| token_with(user, &json!({"tenantId": tenant}));
    let ada = of("a", "ada");
    let mut events = Events::open(&one, "", &ada).await;
    let (kind, connected) = events.next().await;
    assert_eq!(kind, "connected");
    let id = connected["clientId"].as_str().expect("a clientId").to_owned();
    let ping = r#"{"type":"ping"}"#;
    for server in [&two, &one] {
        assert_eq!(server.submit(&id, &ada, ping).await, 202);
        assert_eq!(soon("a pong", events.next()).await.0, "pong");
        assert_eq!(server.submit(&id, &ada, "not JSON").await, 400);
        assert_eq!(server.submit(&id, "nonsense", ping).await, 401);
        assert_eq!(server.submit(&id, &of("a", "bob"), ping).await, 403);
        assert_eq!(server.submit(&id, &of("b", "ada"), ping).await, 404);
        assert_eq!(server.submit(&"0".repeat(32), &ada, ping).await, 404);
        assert_eq!(server.submit(&id, &ada, &"x".repeat(64 * 1024 + 1)).await, 413);
    }
    let join = r#"{"type":"join:room","payload":{"roomId":"r1"}}"#;
    assert_eq!(two.submit(&id, &ada, join).await, 202);
    assert_eq!(soon("the join", events.next()).await.0, "room:joined");
}

#[tokio::test]
async fn an_administrator_of_any_node_disconnects() {
    let (_redis, one, two) = nodes().await;
    let mut hers =
        [Client::open(&one, &token("ada")).await, Client::open(&two, &token("ada")).await];
    let mut bob = Client::open(&one, &token("bob")).await;
    let json_type = "Content-Type: application/json\r\n";
    let body = r#"{"user":"ada","reason":"enough"}"#;
    let (status, answer) = Server::http(two.admin, "POST /disconnect", json_type, body).await;
    assert_eq!((status, answer.as_str()), (200, r#"{"disconnected":2}"#));
    for client in &mut hers {
        assert_eq!(client.closed().await, (4002, "enough".to_owned()));
    }
    let body = json!({"client": bob.id()}).to_string();
    let (_, answer) = Server::http(two.admin, "POST /disconnect", json_type, &body).await;
    assert_eq!(answer, r#"{"disconnected":1}"#);
    assert_eq!(bob.closed().await.0, 4002);
}
