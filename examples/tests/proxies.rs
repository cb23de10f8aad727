//! The server behind each of the proxies of `examples/proxies`: their own configurations, the real programs.

#![expect(clippy::disallowed_methods, reason = "a test reads the clock")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Events, Server, soon, token};
use tidings_examples::front::{Kind, Proxy, free_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Error;

/// Each of these tests once for each proxy.
macro_rules! behind_each_proxy {
    (@ $module:ident $kind:ident $($test:ident)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Kind::$kind).await;
            })*
        }
    };
    ($($test:ident)*) => {
        behind_each_proxy!(@ nginx Nginx $($test)*);
        behind_each_proxy!(@ haproxy Haproxy $($test)*);
        behind_each_proxy!(@ caddy Caddy $($test)*);
    };
}

behind_each_proxy! {
    messages_pass_both_ways
    each_event_comes_when_it_is_published
    a_client_is_known_by_its_address_and_its_last_event
    statuses_pass
    an_idle_connection_lives_by_its_heartbeat
    a_dead_node_is_stepped_over
    a_refused_post_passes_and_only_one_node_saw_it
    a_draining_node_keeps_its_own_and_gets_no_more
    nodes_that_were_away_take_everybody_again
    without_any_node_event_streams_are_told_to_come_back
    a_full_node_is_no_end_for_an_event_stream
}

/// One node at both addresses.
fn alone(server: &Server) -> [SocketAddr; 2] {
    [server.address, server.address]
}

fn to_room(kind: &str) -> Value {
    json!({"to": {"room": "r"}, "type": kind, "payload": {"of": kind}})
}

async fn in_room(at: impl Into<SocketAddr>) -> Events {
    let mut events = Events::open(at, "?room=r", &token("eve")).await;
    while events.next().await.0 != "room:joined" {}
    events
}

async fn messages_pass_both_ways(kind: Kind) {
    let server = Server::start(&[]);
    let proxy = Proxy::start(kind, alone(&server), &[]);
    let mut ada = Client::in_room(&proxy, &token("ada"), "r").await;
    let mut events = Events::open(&proxy, "?room=r", &token("eve")).await;
    assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
    let (first, connected) = events.next().await;
    assert_eq!((first.as_str(), events.next().await.0.as_str()), ("connected", "room:joined"));

    ada.send(&json!({"type": "room:message", "payload": {"roomId": "r", "data": 1}})).await;
    assert_eq!(ada.next().await["payload"]["data"], 1);
    assert_eq!(events.next().await.1["data"], 1);
    Server::publish_at(proxy.address, &to_room("news")).await;
    assert_eq!(ada.next_type().await, "news");
    assert_eq!(events.next().await.0, "news");

    let client = connected["clientId"].as_str().expect("a clientId");
    let post = format!("POST /events/{client}");
    let bearer = format!("Authorization: Bearer {}\r\n", token("eve"));
    assert_eq!(Server::http(proxy.address, &post, &bearer, r#"{"type":"ping"}"#).await.0, 202);
    assert_eq!(events.next().await.0, "pong");
}

/// In step, so that nothing that is held back could leave with what follows. The times are shown, not judged.
async fn each_event_comes_when_it_is_published(kind: Kind) {
    let server = Server::start(&[]);
    let proxy = Proxy::start(kind, alone(&server), &[]);
    let mut events = in_room(&proxy).await;
    let mut times = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        server.publish(&to_room("news")).await;
        assert_eq!(events.next().await.0, "news");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("{kind:?}: an event takes {:?}, at most {:?}", times[50], times[99]);
}

/// A socket in the place of a node takes one request, answers a POST with `to_post` and all else with 200. The head of
/// the request, in lower case; of one that was given up, what came.
async fn answer_one(node: &TcpListener, to_post: u16) -> String {
    let (mut socket, _) = node.accept().await.expect("a connection");
    let mut request = Vec::new();
    let whole = |request: &[u8]| {
        let post = request.starts_with(b"POST ");
        request.ends_with(b"\r\n\r\n") && !post || request.ends_with(BODY.as_bytes())
    };
    while !whole(&request) && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
    let head = String::from_utf8(request).expect("text").to_ascii_lowercase();
    let status = if head.starts_with("post ") { to_post } else { 200 };
    let answer =
        format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = socket.write_all(answer.as_bytes()).await;
    head
}

/// What a node is sent, seen by a socket in its place.
async fn a_client_is_known_by_its_address_and_its_last_event(kind: Kind) {
    let node = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = node.local_addr().expect("an address");
    let proxy = Proxy::start(kind, [address, address], &[]);
    let headers = "Last-Event-ID: a-cursor\r\nX-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n\
                   Cookie: wsToken=t\r\n";
    let asked = Server::http(proxy.address, "GET /events?room=a%20b", headers, "");
    let seen = async {
        loop {
            let head = answer_one(&node, 200).await;
            if head.starts_with("get /events") {
                return head;
            }
        }
    };
    let (_, head) = tokio::join!(asked, soon("the request", seen));
    assert!(head.starts_with("get /events?room=a%20b http/1."), "{head}");
    let value = |name: &str| {
        let start = format!("{name}: ");
        let mut values = head.lines().filter_map(|line| line.strip_prefix(&start));
        let value = values.next().map(str::to_owned);
        assert!(values.next().is_none(), "{name} twice: {head}");
        value.unwrap_or_default()
    };
    assert_eq!(value("last-event-id"), "a-cursor");
    assert_eq!(value("cookie"), "wstoken=t");
    assert_eq!(value("x-forwarded-for"), "127.0.0.1", "what the client claims is not believed");
    assert_eq!(value("x-real-ip"), "127.0.0.1");
    assert_eq!(value("x-forwarded-proto"), "http");
    assert_eq!(value("host"), proxy.address.to_string());
    assert_eq!(value("tidings-refusal"), "status");
}

async fn statuses_pass(kind: Kind) {
    let server = Server::start(&["connections_per_user=1"]);
    let proxy = Proxy::start(kind, alone(&server), &[]);
    let own = format!("http://{}", proxy.address);
    let query = format!("?token={}", token("ada"));
    let mut ada = Client::upgrade(&proxy, &query, &[("origin", &own)]).await.expect("its own page");
    assert_eq!(ada.next_type().await, "connected");
    match Client::upgrade(&proxy, &query, &[("origin", "http://evil.example")]).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 403),
        other => panic!("not refused: {:?}", other.map(|_| ())),
    }
    let get = format!("GET /events{query}");
    let foreign = "Origin: http://evil.example\r\n";
    for (head, headers, status) in [
        ("GET /events", "", 401),
        (get.as_str(), foreign, 403),
        (get.as_str(), "", 429),
        ("POST /publish", "", 401),
        ("GET /nothing", "", 404),
    ] {
        assert_eq!(Server::http(proxy.address, head, headers, "").await.0, status, "{head}");
    }
    let mut stranger = Client::upgrade(&proxy, "", &[]).await.expect("an upgrade");
    assert_eq!(stranger.closed().await, (1008, "Unauthorized".to_owned()));
}

/// With all times shortened: several times the proxy's patience go by without a message.
async fn an_idle_connection_lives_by_its_heartbeat(kind: Kind) {
    let patience: &[_] = match kind {
        Kind::Nginx => &[("75s", "2s")],
        Kind::Haproxy => &[("75s", "2s")],
        Kind::Caddy => &[],
    };
    let server = Server::with_flags(&["--heartbeat-seconds", "0.5"]);
    let proxy = Proxy::start(kind, alone(&server), patience);
    let mut ada = Client::in_room(&proxy, &token("ada"), "r").await;
    let mut events = in_room(&proxy).await;
    let silent = async {
        // The other side of it: without a heartbeat in time the proxy cuts, and that without a close frame.
        if kind != Kind::Caddy {
            let server = Server::with_flags(&["--heartbeat-seconds", "3600"]);
            let proxy = Proxy::start(kind, alone(&server), patience);
            Client::open(&proxy, &token("ada")).await.cut().await;
        }
    };
    tokio::join!(ada.pings(16), events.pings(16), silent);
    server.publish(&to_room("after")).await;
    assert_eq!(ada.next_type().await, "after");
    assert_eq!(events.next().await.0, "after");
}

async fn a_dead_node_is_stepped_over(kind: Kind) {
    let (dead, alive) = (Server::start(&[]), Server::start(&[]));
    let proxy = Proxy::start(kind, [dead.address, alive.address], &[]);
    dead.kill();
    for _ in 0..10 {
        Client::open(&proxy, &token("ada")).await;
        in_room(&proxy).await;
        assert_eq!(Server::http(proxy.address, "GET /healthz", "", "").await.0, 200);
        Server::publish_at(proxy.address, &to_room("news")).await;
    }
}

/// What changes something is not sent twice, also when the node that refuses it could be stepped over.
async fn a_refused_post_passes_and_only_one_node_saw_it(kind: Kind) {
    let (seen, mut posts) = mpsc::unbounded_channel();
    let mut addresses = Vec::new();
    let mut nodes = JoinSet::new();
    for _ in 0..2 {
        let node = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        addresses.push(node.local_addr().expect("an address"));
        let seen = seen.clone();
        nodes.spawn(async move {
            loop {
                let head = answer_one(&node, 503).await;
                if head.starts_with("post ") {
                    let _ = seen.send(head);
                }
            }
        });
    }
    let proxy = Proxy::start(kind, [addresses[0], addresses[1]], &[]);
    for post in ["POST /publish", "POST /events/x"] {
        let (status, _) = Server::http(proxy.address, post, "", BODY).await;
        assert_eq!(status, 503, "{post}");
        // A node takes one connection after the other, so whatever it was sent before this it has seen.
        for address in &addresses {
            Server::http(*address, "GET /healthz", "", "").await;
        }
        let first = posts.try_recv().expect("a node was asked");
        assert!(first.starts_with(&post.to_ascii_lowercase()), "{first}");
        assert!(first.ends_with(BODY), "{first}");
        assert_eq!(posts.try_recv().ok(), None, "the other node was asked too");
    }
}

async fn a_draining_node_keeps_its_own_and_gets_no_more(kind: Kind) {
    let (leaving, staying) = (Server::with_flags(&["--drain-seconds", "3600"]), Server::start(&[]));
    let proxy = Proxy::start(kind, [leaving.address, staying.address], &[]);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::in_room(&proxy, &token("ada"), "r").await);
    }
    leaving.publish(&to_room("leaving")).await;
    staying.publish(&to_room("staying")).await;
    let mut held = Vec::new();
    for mut client in clients {
        match client.next_type().await.as_str() {
            "leaving" => held.push(client),
            node => assert_eq!(node, "staying"),
        }
    }
    assert!(held.len() >= 2, "{} of 8", held.len());
    leaving.terminate();
    // The first goes at once, the next much later.
    soon("the drain", async {
        while leaving.admin("/stats").await["connections"]["websocket"] == held.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for _ in 0..8 {
        let mut ada = Client::in_room(&proxy, &token("ada"), "r").await;
        let mut events = in_room(&proxy).await;
        staying.publish(&to_room("staying")).await;
        assert_eq!(ada.next_type().await, "staying");
        assert_eq!(events.next().await.0, "staying");
    }
    leaving.publish(&to_room("goes on")).await;
    let mut heard = Vec::new();
    for client in &mut held {
        heard.push(client.next_type().await);
    }
    heard.sort_unstable();
    assert_eq!(heard.pop().as_deref(), Some("server:draining"));
    assert!(heard.iter().all(|kind| kind == "goes on"), "{heard:?}");
}

/// Connections that stay must not keep a proxy from trusting a node again.
async fn nodes_that_were_away_take_everybody_again(kind: Kind) {
    let nodes = [free_address(), free_address()];
    let proxy = Proxy::start(kind, nodes, &[]);
    for _ in 0..4 {
        let status = Server::http(proxy.address, "GET /healthz", "", "").await.0;
        assert!((502..=504).contains(&status), "{status}");
    }
    let _nodes = nodes.map(|node| Server::at(&node.to_string(), &[]));
    let query = format!("?token={}", token("ada"));
    let mut held = Vec::new();
    soon("the first that is let in", async {
        loop {
            match Client::upgrade(&proxy, &query, &[]).await {
                Ok(client) => return held.push(client),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    for n in 0..20 {
        held.push(
            Client::upgrade(&proxy, &query, &[]).await.unwrap_or_else(|e| panic!("{n}: {e}")),
        );
    }
    for client in &mut held {
        assert_eq!(client.next_type().await, "connected");
    }
}

async fn without_any_node_event_streams_are_told_to_come_back(kind: Kind) {
    let server = Server::start(&[]);
    let nodes = [server.address, free_address()];
    let proxy = Proxy::start(kind, nodes, &[]);
    let mut ada = Client::open(&proxy, &token("ada")).await;
    let events = in_room(&proxy).await;
    server.kill();
    ada.cut().await;
    drop(events);
    let origin = "Origin: https://app.example\r\n";
    let get = format!("GET /events?token={}", token("ada"));
    for _ in 0..3 {
        let (status, head, body) = Server::http_with_head(proxy.address, &get, origin, "").await;
        assert_eq!((status, body.as_str()), (200, "retry: 3000\n\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(head.contains("cache-control: no-cache"), "{head}");
        assert!(head.contains("access-control-allow-origin: https://app.example"), "{head}");
        assert!(head.contains("access-control-allow-credentials: true"), "{head}");
        for other in ["GET /healthz", "POST /events/x", "POST /publish", "GET /ws"] {
            let status = Server::http(proxy.address, other, "", "").await.0;
            assert!((502..=504).contains(&status), "{other}: {status}");
        }
    }
    match Client::upgrade(&proxy, "", &[]).await {
        Err(Error::Http(response)) => assert!((502..=504).contains(&response.status().as_u16())),
        other => panic!("not refused: {:?}", other.map(|_| ())),
    }
    // And once a node is there again, it is found.
    let _again = Server::at(&nodes[0].to_string(), &[]);
    soon("the node", async {
        while Server::http(proxy.address, "GET /healthz", "", "").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    in_room(&proxy).await;
}

async fn a_full_node_is_no_end_for_an_event_stream(kind: Kind) {
    let server = Server::start(&["accept_rate=1", "accept_burst=1"]);
    let proxy = Proxy::start(kind, alone(&server), &[]);
    let get = format!("GET /events?token={}", token("ada"));
    let mut told = false;
    let mut held = Vec::new();
    while !told {
        let mut socket = TcpStream::connect(proxy.address).await.expect("a connection");
        let request = format!("{get} HTTP/1.0\r\nHost: {}\r\n\r\n", proxy.address);
        socket.write_all(request.as_bytes()).await.expect("a request is sent");
        let mut answer = Vec::new();
        while !answer.windows(7).any(|part| part == b"retry: ") {
            let read = soon("an answer", socket.read_buf(&mut answer)).await.expect("an answer");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer.split(' ').nth(1), Some("200"), "{answer}");
        told = answer.contains("retry: 3000\n\n");
        held.push(socket);
    }
}

#[tokio::test]
async fn nginx_writes_no_token_when_a_node_is_away() {
    let proxy = Proxy::start(Kind::Nginx, [free_address(), free_address()], &[]);
    for path in ["/ws", "/events", "/events/x"] {
        let get = format!("GET {path}?token=SECRET");
        Server::http(proxy.address, &get, "", "").await;
    }
    let log = proxy.error_log();
    assert!(!log.contains("SECRET"), "{log}");
}

#[tokio::test]
async fn a_flood_of_one_client_shuts_out_no_other_behind_a_proxy() {
    let server = Server::start(&["accept_rate=1", "accept_burst=5", "peer_rate=1", "peer_burst=5"]);
    let proxy = Proxy::start(
        Kind::Nginx,
        alone(&server),
        &[(
            "$remote_addr;\n        proxy_set_header X-Forwarded-For",
            "$http_x_client;\n        proxy_set_header X-Forwarded-For",
        )],
    );
    // Where it comes from is said by the test, since all of it comes from one address.
    let ask = async |client: &str| {
        let headers = format!("X-Client: {client}\r\n");
        Server::http(proxy.address, "GET /events", &headers, "").await
    };
    soon("the end of its patience", async { while ask("192.0.2.1").await.0 == 401 {} }).await;
    assert_eq!(ask("192.0.2.2").await.0, 401);
}

/// What POSTs carry to a node that is none.
const BODY: &str = "{}";
