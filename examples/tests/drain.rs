//! How the reference server goes away and whom it sends away: the built program, real sockets.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Events, Server, soon, token};
use tidings_redis_testing::{Options, Redis};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Error;

/// What a client heard until it was told to go: the numbers, and the two delays it was told.
struct Heard {
    numbers: Vec<u64>,
    draining: u64,
    close: u64,
}

fn number(payload: &Value) -> u64 {
    payload["n"].as_u64().expect("a number")
}

fn delay(payload: &Value) -> u64 {
    payload["reconnectAfterMs"].as_u64().expect("milliseconds")
}

async fn websocket(mut client: Client) -> Heard {
    let (mut messages, code, _) = client.until_closed().await;
    assert_eq!(code, 1012);
    let draining = messages.pop().expect("messages");
    assert_eq!(draining["type"], "server:draining");
    let draining = delay(&draining["payload"]);
    let numbers = messages.iter().map(|message| number(&message["payload"])).collect();
    Heard { numbers, draining, close: draining }
}

async fn event_stream(mut events: Events) -> Heard {
    let mut numbers = Vec::new();
    loop {
        match events.next().await {
            (kind, payload) if kind == "n" => numbers.push(number(&payload)),
            (kind, payload) if kind == "server:draining" => {
                let draining = delay(&payload);
                let (kind, payload) = events.next().await;
                assert_eq!((kind.as_str(), &payload["code"]), ("close", &json!(1012)));
                // The browser keeps it, so it is for tries at a node that is away too.
                let retry = events.retry.expect("it is told");
                assert!(retry >= 2000 && retry >= delay(&payload), "{retry}");
                return Heard { numbers, draining, close: delay(&payload) };
            }
            (kind, _) => assert!(kind == "connected" || kind == "room:joined", "{kind}"),
        }
    }
}

/// 150 WebSockets and 70 event streams, all in room `r`, of 20 users.
async fn many(server: &Server) -> JoinSet<Heard> {
    let mut clients = JoinSet::new();
    for n in 0..150 {
        let client = Client::in_room(server, &token(&format!("u{}", n % 20)), "r").await;
        clients.spawn(websocket(client));
    }
    for n in 0..70 {
        let mut events = Events::open(server, "?room=r", &token(&format!("u{}", n % 20))).await;
        while events.next().await.0 != "room:joined" {}
        clients.spawn(event_stream(events));
    }
    clients
}

#[tokio::test]
async fn a_drain_lets_everybody_go_one_after_the_other() {
    let server = Server::with_flags(&["--drain-seconds", "5"]);
    let clients = many(&server).await;
    server.terminate();
    let ready = soon("the drain", async {
        loop {
            match Server::http(server.address, "GET /readyz", "", "").await {
                (200, _) => tokio::time::sleep(Duration::from_millis(5)).await,
                answer => return answer,
            }
        }
    });
    assert_eq!(ready.await, (503, "draining\n".to_owned()));

    // Whoever comes now is sent away before its credentials are looked at; all else goes on.
    let (status, head, _) = Server::http_with_head(server.address, "GET /ws", "", "").await;
    assert_eq!(status, 503);
    assert!(head.contains("\r\nretry-after: "), "{head}");
    let (status, head, body) = Server::http_with_head(server.address, "GET /events", "", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(body.starts_with("retry: ") && body.contains("event: close\n"), "{body}");
    assert!(body.contains("\"code\":1012") && body.contains("\"reconnectAfterMs\":"), "{body}");
    let by_status = "Tidings-Refusal: status\r\n";
    let (status, head, _) =
        Server::http_with_head(server.address, "GET /events", by_status, "").await;
    assert_eq!(status, 503);
    assert!(head.contains("\r\nretry-after: "), "{head}");
    assert_eq!(Server::http(server.address, "GET /healthz", "", "").await.0, 200);

    let mut heard = std::pin::pin!(clients.join_all());
    let mut published = 0;
    let heard = soon("everybody's end", async {
        loop {
            tokio::select! {
                heard = &mut heard => return heard,
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
            let payload = json!({"n": published, "filling": "x".repeat(100)});
            server.publish(&json!({"to": {"room": "r"}, "type": "n", "payload": payload})).await;
            published += 1;
        }
    })
    .await;

    assert_eq!(heard.len(), 220);
    let (mut ends, mut delays) = (HashSet::new(), HashSet::new());
    for client in &heard {
        let wanted: Vec<u64> = (0..client.numbers.len() as u64).collect();
        assert_eq!(client.numbers, wanted, "in order, with no hole");
        assert_eq!(client.draining, client.close);
        ends.insert(client.numbers.len());
        delays.insert(client.draining);
    }
    assert!(ends.len() >= 10, "they left at {} of {published} messages", ends.len());
    // Of a second's milliseconds few are told twice.
    assert!(delays.len() >= 190, "{} delays of {}", delays.len(), heard.len());
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn without_a_window_it_ends_at_once() {
    let server = Server::with_flags(&["--drain-seconds", "0"]);
    let clients = many(&server).await;
    server.terminate();
    let heard = soon("everybody's end", clients.join_all()).await;
    let delays: HashSet<_> = heard.iter().map(|client| client.draining).collect();
    assert!(delays.len() >= 190, "{} delays of {}", delays.len(), heard.len());
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn asked_twice_it_ends_at_once() {
    let server = Server::with_flags(&["--drain-seconds", "3600"]);
    let mut ends = JoinSet::new();
    for _ in 0..20 {
        let mut client = Client::open(&server, &token("ada")).await;
        ends.spawn(async move { client.until_closed().await.1 });
    }
    server.terminate();
    // The first leaves at once, the next one minutes later.
    let first = soon("the first close", ends.join_next()).await.expect("clients");
    assert_eq!(first.expect("no client fails"), 1012);
    server.terminate();
    let rest = soon("the other closes", ends.join_all()).await;
    assert_eq!(rest, [1001; 19]);
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_herd_is_told_when_to_come_back() {
    let server = Server::start(&["accept_rate=1", "accept_burst=2"]);
    let _first = Client::open(&server, &token("ada")).await;
    let _second = Client::open(&server, &token("ada")).await;
    let query = format!("?token={}", token("ada"));
    let refused = loop {
        // On a slow machine another place may have come free meanwhile.
        match Client::upgrade(&server, &query, &[]).await {
            Err(Error::Http(response)) => break response,
            other => drop(other.expect("an upgrade")),
        }
    };
    assert_eq!(refused.status(), 503);
    let seconds = refused.headers()["retry-after"].to_str().expect("text").parse::<u64>();
    assert!((1..=60).contains(&seconds.expect("seconds")));
    let mut more = Vec::new();
    let (status, body) = loop {
        match Server::http(server.address, "GET /events", "", "").await {
            (401, _) => more.push(Client::upgrade(&server, &query, &[]).await),
            refused => break refused,
        }
    };
    assert_eq!(status, 200);
    assert!(body.starts_with("retry: ") && body.contains("\"code\":1013"), "{body}");
    let (_, metrics) = Server::http(server.admin, "GET /metrics", "", "").await;
    assert!(metrics.contains("tidings_refused_total{reason=\"full\"} "), "{metrics}");
    // From the other side: whoever comes again gets in.
    soon("a free place", async {
        while Client::upgrade(&server, &query, &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_the_bus_an_event_stream_is_told_when_to_come_back() {
    let mut redis = Redis::start(Options::default()).await;
    let server = Server::with_flags(&["--bus", &redis.url()]);
    redis.kill9();
    let get = format!("GET /events?token={}", token("ada"));
    soon("the lost bus", async {
        while Server::http(server.address, "GET /readyz", "", "").await.0 == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(Server::http(server.address, "GET /healthz", "", "").await.0, 200);
    let (status, body) = Server::http(server.address, &get, "", "").await;
    assert_eq!(status, 200);
    assert!(body.starts_with("retry: ") && body.contains("\"code\":1013"), "{body}");
    let by_status = "Tidings-Refusal: status\r\n";
    assert_eq!(Server::http(server.address, &get, by_status, "").await.0, 503);
    let query = format!("?token={}", token("ada"));
    let mut client = Client::upgrade(&server, &query, &[]).await.expect("an upgrade");
    assert_eq!(client.closed().await.0, 1013);

    redis.restart().await;
    soon("the bus", async {
        while Server::http(server.address, "GET /readyz", "", "").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    Client::open(&server, &token("ada")).await;
}
