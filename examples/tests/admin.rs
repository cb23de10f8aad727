//! What administrators see: pages, errors, metrics, and that no output of the server shows a token.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::{Client, Events, PATIENCE, Server, soon, token, token_with, unix_now};

async fn get(server: &Server, path: &str) -> (u16, Value) {
    let (status, body) = Server::http(server.admin, &format!("GET {path}"), "", "").await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

async fn disconnect(server: &Server, headers: &str, body: &str) -> (u16, Value) {
    let (status, body) = Server::http(server.admin, "POST /disconnect", headers, body).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn lists_come_in_pages_sorted_and_whole() {
    let server = Server::start(&[]);
    let mut clients = Vec::new();
    for (user, tenant, room) in
        [("b", None, "r2"), ("a", None, "r1"), ("a", Some("t"), "r1"), ("ü/&=", Some("t"), "ü r")]
    {
        let token = match tenant {
            None => token(user),
            Some(tenant) => token_with(user, &json!({"tenantId": tenant})),
        };
        clients.push(Client::in_room(&server, &token, room).await);
    }
    let users = json!([
        {"user": "a", "connections": 1, "rooms": 1},
        {"user": "b", "connections": 1, "rooms": 1},
        {"tenant": "t", "user": "a", "connections": 1, "rooms": 1},
        {"tenant": "t", "user": "ü/&=", "connections": 1, "rooms": 1},
    ]);
    let rooms = json!([
        {"room": "r1", "connections": 1, "users": 1},
        {"room": "r2", "connections": 1, "users": 1},
        {"tenant": "t", "room": "r1", "connections": 1, "users": 1},
        {"tenant": "t", "room": "ü r", "connections": 1, "users": 1},
    ]);
    for (name, all) in [("users", users), ("rooms", rooms)] {
        assert_eq!(get(&server, &format!("/{name}")).await, (200, json!({name: all})));
        for limit in 1..=5 {
            let (mut listed, mut after) = (Vec::new(), String::new());
            loop {
                let path = format!("/{name}?limit={limit}{after}");
                let page = get(&server, &path).await.1;
                let rows = page[name].as_array().expect("rows");
                assert!(!rows.is_empty() && rows.len() <= limit, "{page}");
                listed.extend(rows.iter().cloned());
                let Some(next) = page.get("next") else { break };
                after = format!("&after={}", next.as_str().expect("a text"));
            }
            assert_eq!(Value::from(listed), all, "{name} by {limit}");
        }
        let of = |tenant: &str| format!("/{name}?tenant={tenant}");
        assert_eq!(get(&server, &of("t")).await.1[name], json!([all[2], all[3]]));
        assert_eq!(get(&server, &of("")).await.1[name], json!([all[0], all[1]]));
        assert_eq!(get(&server, &of("nobody")).await.1, json!({name: []}));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_400_that_says_why() {
    let server = Server::start(&[]);
    for query in [
        "limit=0",
        "limit=-1",
        "limit=many",
        "after=nonsense",
        "after=%00",
        "page=2",
        "limit=1&limit=2",
    ] {
        for path in ["/rooms", "/users"] {
            let (status, body) = get(&server, &format!("{path}?{query}")).await;
            assert_eq!(
                (status, &body["error"]["code"]),
                (400, &json!("invalid_request")),
                "{query}: {body}"
            );
            assert!(body["error"]["message"].is_string(), "{body}");
        }
    }
    for body in [
        "",
        "[]",
        "{}",
        "not JSON",
        r#"{"user":"a","client":"b"}"#,
        r#"{"user":""}"#,
        r#"{"client":"nobody"}"#,
        r#"{"user":"a","tenant":""}"#,
        r#"{"user":"a","room":"r"}"#,
        r#"{"user":7}"#,
    ] {
        let (status, answer) = disconnect(&server, "", body).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("invalid_request")),
            "{body}: {answer}"
        );
    }
    assert_eq!(
        disconnect(&server, "", r#"{"user":"nobody"}"#).await,
        (200, json!({"disconnected": 0}))
    );
    // A page of anyone, in an administrator's browser.
    let foreign = "Origin: http://evil.example\r\nContent-Type: text/plain\r\n";
    assert_eq!(disconnect(&server, foreign, r#"{"user":"a"}"#).await.0, 403);
    let own = format!("Origin: http://{}\r\n", server.admin);
    assert_eq!(disconnect(&server, &own, r#"{"user":"a"}"#).await.0, 200);
    let stats = get(&server, "/stats").await.1;
    let names: BTreeSet<_> =
        stats.as_object().expect("an object").keys().map(String::as_str).collect();
    let wanted = [
        "nodeId",
        "version",
        "uptimeSeconds",
        "connections",
        "users",
        "rooms",
        "queuedBytes",
        "bus",
    ];
    assert_eq!(names, BTreeSet::from(wanted));
    assert_eq!(stats["connections"], json!({"websocket": 0, "sse": 0}));
    assert_eq!(stats["bus"], json!({"kind": "memory", "state": "up"}));
    let (status, page) = Server::http(server.admin, "GET /", "", "").await;
    assert!(status == 200 && page.starts_with("<!doctype html>"));
}

/// Reads the text format strictly: each sample after its HELP and TYPE, no series twice.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut family, mut families) =
        (BTreeMap::new(), (String::new(), ""), BTreeSet::new());
    let mut helped = String::new();
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').expect("a help").0.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, helped, "HELP comes before TYPE");
            assert!(name.starts_with("tidings_") && families.insert(name), "{name}");
            let kind =
                ["counter", "gauge", "histogram"].into_iter().find(|k| *k == kind).expect("a type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            family = (name.to_owned(), kind);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let (name, labels) = series.split_once('{').map_or((series, ""), |(n, l)| (n, l));
            let suffixes: &[&str] =
                if family.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(
                suffixes.iter().any(|s| name == format!("{}{s}", family.0)),
                "{line} in {}",
                family.0
            );
            if !labels.is_empty() {
                let (label, of) =
                    labels.strip_suffix("\"}").and_then(|l| l.split_once("=\"")).expect("a label");
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+');
                assert!(
                    label.chars().all(plain) && !of.is_empty() && of.chars().all(plain),
                    "{line}"
                );
            }
            let twice = samples.insert(series.to_owned(), value.parse().expect("a number"));
            assert_eq!(twice, None, "{series} comes twice");
        }
    }
    samples
}

/// Asks until the metrics are so; all of them must be right at once.
async fn shows(server: &Server, wanted: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let mut last = BTreeMap::new();
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            let (status, text) = Server::http(server.admin, "GET /metrics", "", "").await;
            assert_eq!(status, 200);
            last = parse(&text);
            if wanted
                .iter()
                .all(|(series, value)| last.get(&format!("tidings_{series}")) == Some(value))
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(asked.await.is_ok(), "not {wanted:?} but {last:?}");
    last
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Server::start(&[]);
    let mut ada = Client::in_room(&server, &token("ada"), "r1").await;
    let mut bob = Client::in_room(&server, &token("bob"), "r1").await;
    let mut events = Events::open(&server, "?room=r1", &token("cyd")).await;
    while events.next().await.0 != "room:joined" {}
    let mut refused = Client::upgrade(&server, "?token=nonsense", &[]).await.expect("an upgrade");
    assert_eq!(refused.closed().await.0, 1008);
    server.publish(&json!({"to": {"room": "r1"}, "type": "news"})).await;
    assert_eq!((ada.next_type().await, bob.next_type().await), ("news".into(), "news".into()));
    let (_, metadata, _) = Server::http_with_head(server.admin, "GET /metrics", "", "").await;
    assert!(metadata.contains("content-type: text/plain; version=0.0.4"), "{metadata}");
    let samples = shows(
        &server,
        &[
            ("connections{transport=\"websocket\"}", 2.0),
            ("connections{transport=\"sse\"}", 1.0),
            ("users", 3.0),
            ("rooms", 1.0),
            ("bus_up", 1.0),
            ("draining", 0.0),
            ("messages_received_total", 2.0),
            ("messages_delivered_total", 3.0),
            ("publications_total{outcome=\"accepted\"}", 1.0),
            ("publish_seconds_count", 1.0),
            ("publish_seconds_bucket{le=\"+Inf\"}", 1.0),
            ("authentications_total{outcome=\"accepted\"}", 3.0),
            ("authentications_total{outcome=\"refused\"}", 1.0),
            ("connections_opened_total{transport=\"sse\"}", 1.0),
            ("bus_links_up_total", 1.0),
            // For each: `connected`, `room:joined`, `news`.
            ("frames_written_total", 9.0),
        ],
    )
    .await;
    assert!(samples["tidings_written_bytes_total"] > 300.0);
    drop(bob);
    let body = r#"{"user":"ada"}"#;
    assert_eq!(disconnect(&server, "", body).await.1["disconnected"], 1);
    assert_eq!(ada.closed().await.0, 4002);
    shows(
        &server,
        &[
            ("connections_closed_total{code=\"4002\"}", 1.0),
            ("connections{transport=\"websocket\"}", 0.0),
        ],
    )
    .await;
}

/// The address is one for documentation, so nothing is opened: the server warns and cannot start.
#[tokio::test]
async fn an_open_admin_port_is_warned_of() {
    let on_loopback = Server::start(&[]);
    on_loopback.terminate();
    assert!(!on_loopback.ended().await.contains("warning"));
    let mut server = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidings-server"));
    server.args(["--listen", "127.0.0.1:0", "--admin-listen", "192.0.2.1:0"]).kill_on_drop(true);
    let output = soon("the server's end", server.output()).await.expect("the server starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("warning: --admin-listen 192.0.2.1:0 is not on loopback"), "{said}");
    assert!(said.contains("cannot listen on 192.0.2.1:0"), "{said}");
}

#[tokio::test]
async fn no_output_shows_a_token() {
    let server = Server::with_flags(&["--log", "--drain-seconds", "0"]);
    let expired = token_with("ada", &json!({"exp": unix_now() - 600}));
    let forged = format!("{}x", token("ada"));
    let good = token("ada");
    let renewed = token_with("ada", &json!({"exp": unix_now() + 90}));
    for token in [&good, &expired, &forged, &"not-a-token-at-all".to_owned()] {
        let (bearer, cookie) = (format!("Bearer {token}"), format!("wsToken={token}"));
        let protocols = format!("tidings.v1.json, tidings.token.{token}");
        for (query, headers) in [
            (String::new(), vec![("authorization", bearer.as_str())]),
            (String::new(), vec![("cookie", cookie.as_str())]),
            (String::new(), vec![("sec-websocket-protocol", protocols.as_str())]),
            (format!("?room=a&token={token}"), vec![]),
            (format!("?%74oken={token}"), vec![]),
        ] {
            let mut client = Client::upgrade(&server, &query, &headers).await.expect("an upgrade");
            if *token == good {
                assert_eq!(client.next_type().await, "connected");
                if query.contains("room=a") {
                    assert_eq!(client.next_type().await, "room:joined");
                }
                for (token, answer) in [
                    (&renewed, "token:renewed"),
                    (&expired, "error"),
                    (&forged, "error"),
                    (&"not-a-token-at-all".to_owned(), "error"),
                ] {
                    client.send(&json!({"type": "token:renew", "payload": {"token": token}})).await;
                    assert_eq!(client.next_type().await, answer);
                }
            } else {
                assert_eq!(client.closed().await.0, 1008);
            }
            let header = headers.first().map(|(n, v)| format!("{n}: {v}\r\n")).unwrap_or_default();
            let head = format!("POST /events/nobody{query}");
            let status = Server::http(server.address, &head, &header, "{}").await.0;
            assert_eq!(status, if *token == good { 404 } else { 401 });
            let foreign = format!("{header}Origin: http://evil.example\r\n");
            let head = format!("GET /events{query}");
            assert_eq!(Server::http(server.address, &head, &foreign, "").await.0, 403);
            assert_eq!(
                Server::http(server.address, &format!("GET /nowhere{query}"), &header, "").await.0,
                404
            );
            // A request that no HTTP server can read.
            let head = format!("GET /ws?token={token} nonsense");
            let _ = Server::raw(server.address, &format!("{head}\r\n{header}\r\n")).await;
        }
        let key = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(Server::http(server.address, "POST /publish", &key, "{}").await.0, 401);
    }
    server.terminate();
    let logged = server.ended().await;
    assert!(logged.contains("GET /ws?room=a&token=[redacted] 101 "), "{logged}");
    assert!(logged.contains("POST /events/nobody 401 "), "{logged}");
    assert!(logged.contains("websocket closed "), "{logged}");
    assert!(logged.contains("auth credentials refused: "), "{logged}");
    let foreign = r#"origin "http://evil.example" is not of the host "#;
    assert!(logged.contains(foreign), "{logged}");
    for token in [&good, &renewed, &expired, &forged] {
        for part in token.split('.').skip(1) {
            assert!(!logged.contains(part), "a part of a token is in the output:\n{logged}");
        }
    }
    assert!(!logged.contains("not-a-token-at-all"), "{logged}");
}
