//! The built server while its Redis goes away and comes back, as load balancers, clients and metrics see it.

mod support;

use std::process::{Command, Stdio};

use serde_json::json;
use support::{Client, Server, soon, token};
use tidings_redis_testing::{Options, Redis, until};

/// What `/readyz` says.
async fn readiness(server: &Server) -> (u16, String) {
    Server::http(server.address, "GET /readyz", "", "").await
}

/// The value of a sample of `/metrics`.
async fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = Server::http(server.admin, "GET /metrics", "", "").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test]
async fn an_absent_redis_is_told_and_survived() {
    let mut redis = Redis::start(Options::default()).await;
    let server = Server::with_flags(&["--bus", &redis.url()]);
    let mut client = Client::in_room(&server, &token("ada"), "r").await;
    assert_eq!(readiness(&server).await, (200, "ok\n".to_owned()));
    assert_eq!(metric(&server, "tidings_bus_up").await, 1.0);
    for gauge in ["links", "servers", "servers_up"] {
        assert_eq!(metric(&server, &format!("tidings_redis_{gauge}")).await, 1.0, "{gauge}");
    }
    assert_eq!(metric(&server, "tidings_redis_reconnects_total").await, 0.0);
    let topics = metric(&server, "tidings_redis_subscriptions").await;

    redis.kill9();
    let away = (503, "the bus is away\n".to_owned());
    until("the node to say that the bus is away", async || readiness(&server).await == away).await;
    assert_eq!(metric(&server, "tidings_bus_up").await, 0.0);
    assert_eq!(metric(&server, "tidings_redis_links").await, 0.0);
    assert_eq!(metric(&server, "tidings_redis_subscriptions").await, 0.0);
    let message = json!({"type": "room:message", "payload": {"roomId": "r", "data": 1}, "id": 1});
    client.send(&message).await;
    let answer = client.next().await;
    assert_eq!(answer["payload"]["code"], "unavailable", "{answer}");
    assert!(metric(&server, "tidings_redis_publish_errors_total{reason=\"away\"}").await >= 1.0);
    assert_eq!(metric(&server, "tidings_redis_publish_bytes").await, 0.0);
    assert_eq!(metric(&server, "tidings_redis_queue_bytes").await, 0.0);

    redis.restart().await;
    until("the node to be ready", async || readiness(&server).await.0 == 200).await;
    until("the link", async || metric(&server, "tidings_redis_links").await == 1.0).await;
    assert!(metric(&server, "tidings_redis_reconnects_total").await >= 1.0);
    assert!(metric(&server, "tidings_bus_links_lost_total").await >= 1.0);
    let back = async || metric(&server, "tidings_redis_subscriptions").await == topics;
    until("the topics to be subscribed again", back).await;
    client.send(&message).await;
    soon("the message", async { while client.next().await["type"] != "room:message" {} }).await;
}

/// What may have been published is not told as if it was not.
#[tokio::test]
async fn what_a_frozen_redis_did_not_answer_may_have_been_published() {
    let redis = Redis::start(Options::default()).await;
    let server = Server::with_flags(&["--bus", &redis.url()]);
    let mut client = Client::in_room(&server, &token("ada"), "r").await;
    redis.sigstop();
    let key = "Authorization: Bearer publish-key\r\n";
    let body = r#"{"to":{"room":"r"},"type":"news","payload":1,"idempotencyKey":"once"}"#;
    let (status, answer) = Server::http(server.address, "POST /publish", key, body).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let error = &answer[0]["error"];
    assert_eq!((status, &error["code"]), (200, &json!("unavailable")), "{answer}");
    let told = error["message"].as_str().expect("a text");
    assert!(told.contains("may have been published") && told.contains("idempotency"), "{told}");
    // Once it is known that Redis is away, nothing is published.
    until("the refusal", async || {
        Server::http(server.address, "POST /publish", key, body).await.0 == 503
    })
    .await;
    redis.sigcont();
    until("the repeat", async || {
        Server::http(server.address, "POST /publish", key, body).await.1.contains("cursor")
    })
    .await;
    let mark = r#"{"to":{"room":"r"},"type":"mark"}"#;
    assert_eq!(Server::http(server.address, "POST /publish", key, mark).await.0, 200);
    // It was published, and the key saw to it that the repeats were not.
    let mut heard = Vec::new();
    while heard.last().is_none_or(|kind| kind != "mark") {
        let kind = client.next_type().await;
        if kind != "gap" {
            heard.push(kind);
        }
    }
    assert_eq!(heard, ["news", "mark"]);
}

#[tokio::test]
async fn a_wrong_password_ends_the_start() {
    let redis = Redis::start(Options::default().password("right")).await;
    let url = redis.url().replace("right", "hunter2");
    let mut server = Command::new(env!("CARGO_BIN_EXE_tidings-server"));
    server.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--bus", &url]);
    let output = server.stdin(Stdio::null()).output().expect("it starts and ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("--bus") && told.contains("WRONGPASS"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

/// One of several independent Redis is away: the others go on, for connections, readiness and each publication.
#[tokio::test]
async fn one_of_several_redis_takes_nobody_else_with_it() {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(Redis::start(Options::default()).await);
    }
    let urls: Vec<_> = all.iter().map(Redis::url).collect();
    let hosts: Vec<_> = urls.iter().map(|url| url.trim_start_matches("redis://")).collect();
    let bus = format!("redis://{}", hosts.join(","));
    let server = Server::with_flags(&["--bus", &bus]);
    assert_eq!(readiness(&server).await, (200, "ok\n".to_owned()));
    for gone in 0..all.len() {
        all[gone].kill9();
        let told = format!("({})", hosts[gone]);
        until("the node to name it", async || readiness(&server).await.1.contains(&told)).await;
        assert_eq!(readiness(&server).await.0, 200);
        assert_eq!(metric(&server, "tidings_bus_partitions_away").await, 1.0);
        assert_eq!(server.admin("/stats").await["bus"]["state"], "partly away");
        for user in 0..10 {
            Client::in_room(&server, &token(&format!("u{user}")), &format!("r{user}")).await;
        }
        let rooms = (0..30).map(|n| json!({"to": {"room": format!("r{n}")}, "type": "news"}));
        let body = serde_json::Value::from_iter(rooms).to_string();
        let key = "Authorization: Bearer publish-key\r\n";
        let (status, answers) = Server::http(server.address, "POST /publish", key, &body).await;
        let answers: Vec<serde_json::Value> = serde_json::from_str(&answers).expect("JSON");
        let passed = answers.iter().filter(|answer| answer["cursor"].is_string()).count();
        let away = answers.iter().filter(|answer| answer["error"]["code"] == "unavailable").count();
        assert!(status == 200 && passed > 0 && away > 0 && passed + away == 30, "{answers:?}");
        all[gone].restart().await;
        until("the node to have all", async || readiness(&server).await.1 == "ok\n").await;
    }
}
