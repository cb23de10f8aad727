//! The reference server against its surroundings: proxies, terminals, log readers, operators who mistype.

mod support;

use std::io::{Read as _, pipe};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use support::{Client, SECRET, Server, soon, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Runs it to its end, which must be a failure; what it says.
async fn refused(flags: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidings-server"));
    command.args(["--listen", "127.0.0.1:0"]).args(flags).envs(variables.iter().copied());
    let output = soon("its end", command.kill_on_drop(true).output()).await.expect("it starts");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn with_variables(variables: &[(&str, &str)]) -> Server {
    let mut command = Server::command("127.0.0.1:0");
    command.envs(variables.iter().copied());
    Server::run(command)
}

/// The whole answer to a request as it is written, on a connection of its own; in lower case.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let mut answer = Vec::new();
    // A server that refuses it need not read it to its end.
    let _ = socket.write_all(request.as_bytes()).await;
    let _ = soon("an answer", socket.read_to_end(&mut answer)).await;
    String::from_utf8(answer).expect("text").to_ascii_lowercase()
}

async fn said(server: &Server, line: &str) {
    soon(line, async {
        while !server.output().contains(line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn demo_tokens_are_for_this_machine_alone() {
    let server = with_variables(&[]);
    said(&server, "DEMO MODE").await;
    let port = server.address.port();
    let ask_by = async |version: &str, headers: &str| {
        let head = format!("GET /demo/token?user=ada HTTP/{version}\r\n");
        exchange(server.address, &format!("{head}{headers}\r\n")).await
    };
    let ask = async |headers: &str| ask_by("1.1", headers).await;
    for own in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]:80".into()] {
        let answer = ask(&format!("Host: {own}\r\n")).await;
        assert!(answer.starts_with("http/1.1 200") && answer.contains("token"), "{answer}");
    }
    for other in [
        "Host: app.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n",
        "Host: localhost\r\nForwarded: for=192.0.2.1\r\n",
        "Host: localhost\r\nX-Real-IP: 127.0.0.1\r\n",
        "Host: localhost\r\nVia: 1.1 proxy\r\n",
        "Host: localhost\r\nOrigin: https://app.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nReferer: https://app.example/chat\r\n",
    ] {
        let answer = ask(other).await;
        assert!(answer.starts_with("http/1.1 403") && !answer.contains("ey"), "{other}: {answer}");
    }
    let own_page = format!("Host: localhost:{port}\r\nReferer: http://localhost:{port}/\r\n");
    assert!(ask(&own_page).await.starts_with("http/1.1 200"));
    // As nginx asks that was told nothing but where to pass requests on to.
    let answer = ask_by("1.0", "Host: 127.0.0.1\r\n").await;
    assert!(answer.starts_with("http/1.0 403") && !answer.contains("ey"), "{answer}");
    let server = Server::start(&[]);
    assert_eq!(Server::http(server.address, "GET /demo/token?user=a", "", "").await.0, 404);
    assert!(!server.output().contains("DEMO"));
}

#[tokio::test]
async fn a_mistyped_setting_is_an_error_that_says_what_to_do() {
    for (flags, variables, told) in [
        (&[][..], &[("TIDINGS_JWT_SECRET", SECRET)][..], "TIDINGS_JWT_SECRET"),
        (&[], &[("TIDINGS_JWT_HS256_SECRET", "")], "leave it out"),
        (&[], &[("TIDINGS_LOG", "perhaps")], "--log"),
        (&["--jwt-hs256-secret", ""], &[], "--jwt-hs256-secret"),
        (&["--allow-origin", "app.example"], &[], "https://app.example"),
        (&["--workers", "100000"], &[], "1024"),
        (&["--workers", "0"], &[], "1..=1024"),
        (&["--admin-listen", ":8081"], &[], "0.0.0.0:8080"),
        (&["--jwt-jwks", "/no/such/keys.json"], &[], "/no/such/keys.json"),
        (&["--limit", "peer_rate=many"], &[], "whole number"),
    ] {
        let said = refused(flags, variables).await;
        assert!(said.contains(told), "{flags:?} {variables:?}: {said}");
    }
}

#[tokio::test]
async fn a_switch_in_the_environment_is_on_or_off() {
    for (value, is_on) in [("1", true), ("yes", true), ("true", true), ("0", false), ("no", false)]
    {
        let server =
            with_variables(&[("TIDINGS_LOG", value), ("TIDINGS_JWT_HS256_SECRET", SECRET)]);
        Server::http(server.address, "GET /healthz", "", "").await;
        server.terminate();
        let output = server.ended().await;
        assert_eq!(output.contains("GET /healthz 200"), is_on, "{value}: {output}");
    }
}

#[test]
fn help_names_the_limits() {
    let help = Server::command("127.0.0.1:0").arg("--help").output().expect("it starts");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("message_bytes=65536") && help.contains("heartbeat=30"), "{help}");
}

#[tokio::test]
async fn a_herd_waits_to_be_accepted_and_is_not_turned_away() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a number");
    let most: usize = most.trim().parse().expect("a number");
    let server = Server::start(&[]);
    server.signal("STOP");
    let mut herd = Vec::new();
    for _ in 0..most.min(1000) {
        herd.push(soon("a place in the queue", TcpStream::connect(server.address)).await);
    }
    server.signal("CONT");
    assert!(herd.iter().all(Result::is_ok));
    Client::open(&server, &token("ada")).await;
}

/// A server whose outputs the test has in its hands; killed when dropped.
struct Bare {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Bare {
    async fn start(stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free().expect("a free port");
        let admin = free().expect("a free port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-server"));
        command.args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
        command.args(["--jwt-hs256-secret", SECRET, "--log", "--open-rooms", "--workers", "2"]);
        let child = command.stdout(stdout).stderr(stderr).spawn().expect("it starts");
        let bare = Self { child, address, admin };
        soon("the server", async {
            while TcpStream::connect(bare.address).await.is_err()
                || TcpStream::connect(bare.admin).await.is_err()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        bare
    }

    async fn serves(&self) {
        assert_eq!(Server::http(self.address, "GET /healthz", "", "").await.0, 200);
        Client::open(self.address, &token("ada")).await;
    }

    async fn dropped_lines(&self) -> u64 {
        let (_, metrics) = Server::http(self.admin, "GET /metrics", "", "").await;
        let line =
            metrics.lines().find(|line| line.starts_with("tidings_log_lines_dropped_total "));
        let (_, count) = line.expect("the metric").split_once(' ').expect("a value");
        count.parse().expect("a number")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn outputs_that_nobody_reads_any_more_stop_nothing() {
    let [(out, stdout), (err, stderr)] = [pipe().expect("a pipe"), pipe().expect("a pipe")];
    drop((out, err));
    let bare = Bare::start(stdout, stderr).await;
    for _ in 0..3 {
        bare.serves().await;
    }
    soon("a count", async { while bare.dropped_lines().await < 3 {} }).await;
}

#[tokio::test]
async fn a_reader_of_the_log_that_hangs_stops_nothing() {
    let (mut err, stderr) = pipe().expect("a pipe");
    let bare = Bare::start(Stdio::null(), stderr).await;
    let mut client = Client::open(bare.address, &token("ada")).await;
    // Far more than a pipe holds and the writer keeps.
    let path = format!("GET /{}", "x".repeat(3000));
    soon("more than fits", async {
        while bare.dropped_lines().await == 0 {
            for _ in 0..100 {
                assert_eq!(Server::http(bare.address, &path, "", "").await.0, 404);
            }
        }
    })
    .await;
    bare.serves().await;
    client.send(&json!({"type": "ping"})).await;
    assert_eq!(client.next_type().await, "pong");
    // And once it reads again it is told.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        let mut part = [0; 64 * 1024];
        while !text.contains("lines of the log were dropped") {
            let read = err.read(&mut part).expect("a log");
            text += &String::from_utf8_lossy(&part[..read]);
        }
    });
    soon("the line that tells", async {
        while !reading.is_finished() {
            bare.serves().await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_line_of_the_log_is_forged_and_a_refusal_has_its_code() {
    let flags = ["--log", "--limit", "connections_per_user=1"];
    let server = Server::with_flags(&flags);
    let _first = Client::open(&server, &token("ada")).await;
    let query = format!("?token={}", token("ada"));
    let mut second = Client::upgrade(&server, &query, &[]).await.expect("an upgrade");
    assert_eq!(second.closed().await.0, 4009);
    said(&server, "refused 4009 too many connections of this user\n").await;
    let head = r#"{"alg":"x\nGET /forged 200 0ms[31m"}"#;
    let part = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, head);
    let mut forger =
        Client::upgrade(&server, &format!("?token={part}.e30.e30"), &[]).await.expect("an upgrade");
    assert_eq!(forger.closed().await.0, 1008);
    said(&server, "auth ").await;
    server.terminate();
    let output = server.ended().await;
    assert!(!output.contains("\nGET /forged") && !output.contains('\u{1b}'), "{output}");
    assert!(output.contains("websocket closed 1012"), "{output}");
}

#[tokio::test]
async fn when_files_run_out_probes_and_administrators_are_still_answered() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 40; ulimit -H -n 80; exec \"$0\" \"$@\""]);
    let server = Server::command("127.0.0.1:0");
    command.arg(server.get_program()).args(server.get_args());
    command.args(["--jwt-hs256-secret", SECRET, "--limit", "handshake_deadline=60"]);
    let server = Server::run(command);
    said(&server, "files:       80").await;
    // More than there are files; none of them asks for anything.
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(server.address).await.expect("a connection"));
    }
    soon("a connection that is dropped", async {
        while !server.output().contains("a connection was dropped") {
            crowd.push(TcpStream::connect(server.address).await.expect("a connection"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (status, metrics) = Server::http(server.admin, "GET /metrics", "", "").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("tidings_not_accepted_total{reason=\"files\"} "), "{metrics}");
    // Connections by the last files that say nothing are soon cut.
    let probe = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    soon("a probe that is answered", async {
        while !exchange(server.address, probe).await.starts_with("http/1.1 200") {}
    })
    .await;
    let refused = exchange(server.address, "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        refused.starts_with("http/1.1 503") && refused.contains("connection: close"),
        "{refused}"
    );
    let refused = exchange(server.address, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(refused.starts_with("http/1.1 200") && refused.contains("\"code\":1013"), "{refused}");
    drop(crowd);
    let query = format!("?token={}", token("ada"));
    soon("a place", async { while Client::upgrade(&server, &query, &[]).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_connection_that_has_asked_is_kept_longer_than_one_that_never_did() {
    let server = Server::with_flags(&["--limit", "handshake_deadline=0.3"]);
    let probe = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut asked = TcpStream::connect(server.address).await.expect("a connection");
    let mut answer = [0; 15];
    asked.write_all(probe).await.expect("a request");
    soon("an answer", asked.read_exact(&mut answer)).await.expect("an answer");
    // One that comes later and never asks is cut, after the first would have been.
    let mut silent = TcpStream::connect(server.address).await.expect("a connection");
    soon("the cut", silent.read_to_end(&mut Vec::new())).await.expect("the end");
    asked.write_all(probe).await.expect("a request");
    let mut rest = Vec::new();
    while String::from_utf8_lossy(&rest).matches("HTTP/1.1 200").count() < 1 {
        assert_ne!(soon("an answer", asked.read_buf(&mut rest)).await.expect("an answer"), 0);
    }
    // From the other side.
    let server = Server::with_flags(&["--keep-alive-seconds", "0.3"]);
    let mut asked = TcpStream::connect(server.address).await.expect("a connection");
    asked.write_all(probe).await.expect("a request");
    let mut answer = String::new();
    soon("the end", asked.read_to_string(&mut answer)).await.expect("the end");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn refused_streams_end_with_their_connection() {
    let server = Server::start(&["handshake_deadline=60", "connections_per_user=1"]);
    let _first = Client::open(&server, &token("ada")).await;
    let full = format!("GET /events?token={} HTTP/1.1\r\nHost: x\r\n\r\n", token("ada"));
    for (request, status) in [("GET /events HTTP/1.1\r\nHost: x\r\n\r\n", "401"), (&*full, "429")] {
        let mut socket = TcpStream::connect(server.address).await.expect("a connection");
        socket.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        soon("the end", socket.read_to_string(&mut answer)).await.expect("the end");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
}

#[tokio::test]
async fn a_request_has_one_host_and_a_head_that_ends() {
    let server = Server::start(&[]);
    for address in [server.address, server.admin] {
        for (hosts, status) in [
            ("", "400"),
            ("Host: localhost\r\nHost: localhost\r\n", "400"),
            ("Host: localhost\r\n", "200"),
        ] {
            let path = if address == server.admin { "/metrics" } else { "/healthz" };
            let answer = exchange(address, &format!("GET {path} HTTP/1.1\r\n{hosts}\r\n")).await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{hosts}: {answer}");
        }
    }
    for (length, status) in [(30 * 1024, "200"), (40 * 1024, "431")] {
        let long = "x".repeat(length);
        let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: {long}\r\n\r\n");
        let answer = exchange(server.address, &request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{length}");
    }
    for method in ["POST", "HEAD"] {
        let answer =
            exchange(server.address, &format!("{method} /ws HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(
            answer.starts_with("http/1.1 405") && answer.contains("allow: get\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_admin_port_knows_its_names_and_takes_no_other_sites_page() {
    let server = Server::with_flags(&["--admin-host", "admin.internal"]);
    let port = server.admin.port();
    let ask = async |head: &str, headers: &str, body: &str| {
        let length = body.len();
        let request = format!("{head} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        exchange(server.admin, &request).await
    };
    for own in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "admin.internal"] {
        let answer = ask("GET /users", &format!("Host: {own}:{port}\r\n"), "").await;
        assert!(answer.starts_with("http/1.1 200"), "{own}: {answer}");
    }
    let mut ada = Client::open(&server, &token("ada")).await;
    let body = r#"{"user":"ada"}"#;
    // A name of somebody's that leads here: the page and its requests are of one origin, which is not ours.
    let rebound = format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n");
    let foreign = format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n");
    for headers in [&rebound, &foreign, &format!("Host: evil.example:{port}\r\n")] {
        for (head, body) in
            [("GET /users", ""), ("GET /metrics", ""), ("GET /", ""), ("POST /disconnect", body)]
        {
            let answer = ask(head, headers, body).await;
            assert!(answer.starts_with("http/1.1 403"), "{head} {headers}: {answer}");
            assert!(!answer.contains("ada"), "{answer}");
        }
    }
    let own = format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n");
    let answer = ask("POST /disconnect", &own, body).await;
    assert!(answer.contains(r#"{"disconnected":1}"#), "{answer}");
    assert_eq!(ada.closed().await.0, 4002);
}

#[tokio::test]
async fn a_terminal_that_closes_ends_nothing() {
    let server = Server::start(&[]);
    let mut ada = Client::open(&server, &token("ada")).await;
    server.signal("HUP");
    ada.send(&json!({"type": "ping"})).await;
    assert_eq!(ada.next_type().await, "pong");
    server.terminate();
    assert_eq!(ada.until_closed().await.1, 1012);
    assert_eq!(server.exit_code().await, Some(0));
}
