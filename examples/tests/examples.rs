//! Every example runs, and those that serve are talked to over a socket.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Cargo builds the examples into `examples/` next to the directory of the test binaries.
fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built: `cargo build --examples`", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("an answer in time")
}

/// A running example; it ends when this is dropped.
struct Server {
    address: String,
    _output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Server {
    async fn start(name: &str) -> Self {
        let mut child = example(name).arg("0").stdout(Stdio::piped()).spawn().expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = soon(output.next_line()).await.expect("readable").expect("it says where");
        let address = line.strip_prefix("listening on ").expect("it says where");
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        let address = address.trim_end_matches("/ws").to_owned();
        Self { address, _output: output, _child: child }
    }

    /// One request over a connection of its own; status and body.
    async fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let (host, length) = (&self.address, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.expect("a status"), body.to_owned())
    }

    /// The data of the first event of a stream.
    async fn first_event(&self, path: &str, headers: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = soon(lines.next_line()).await.expect("readable") {
            if let Some(data) = line.strip_prefix("data:") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
        panic!("the stream ends without an event");
    }

    async fn websocket(&self, path: &str, cookie: &str) -> Client {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().expect("a URL");
        request.headers_mut().insert("cookie", cookie.parse().expect("a header"));
        Client(soon(connect_async(request)).await.expect("a WebSocket").0)
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn send(&mut self, message: &Value) {
        self.0.send(message.to_string().into()).await.expect("the connection lives");
    }

    /// The next message, which must be of this type.
    async fn receive(&mut self, kind: &str) -> Value {
        let next = soon(self.0.next()).await.expect("no end").expect("no error");
        let message: Value = serde_json::from_slice(&next.into_data()).expect("JSON");
        assert_eq!(message["type"], kind, "{message}");
        message
    }
}

#[tokio::test]
async fn quickstart_publishes_to_those_in_the_room() {
    let server = Server::start("quickstart").await;
    let mut named = server.websocket("/ws?room=lobby", "none").await;
    named.receive("connected").await;
    named.receive("room:joined").await;
    let mut joins = server.websocket("/ws", "none").await;
    joins.receive("connected").await;
    joins.send(&json!({"type": "join:room", "payload": {"roomId": "lobby"}})).await;
    joins.receive("room:joined").await;
    let mut elsewhere = server.websocket("/ws?room=cellar", "none").await;
    elsewhere.receive("connected").await;
    elsewhere.receive("room:joined").await;

    let (status, _) = server.http("POST", "/rooms/lobby", "", r#"{"text":"hello"}"#).await;
    assert_eq!(status, 202);
    for client in [&mut named, &mut joins] {
        let news = client.receive("news").await;
        assert_eq!((&news["room"], &news["payload"]["text"]), (&json!("lobby"), &json!("hello")));
    }
    elsewhere.send(&json!({"type": "ping"})).await;
    elsewhere.receive("pong").await;
    assert_eq!(server.http("POST", "/rooms/lobby", "", "not JSON").await.0, 400);
}

#[test]
fn the_readme_shows_the_quickstart() {
    let (readme, example) =
        (include_str!("../../README.md"), include_str!("../examples/quickstart.rs"));
    let (_, code) = example.split_once("#[tokio::main]").expect("a program");
    assert!(readme.contains(&format!("```rust\n#[tokio::main]{code}```\n")), "they differ");
    assert!(code.lines().count() <= 30, "it is about 30 lines");
}

#[tokio::test]
async fn axum_takes_the_user_of_the_applications_session() {
    let server = Server::start("axum").await;
    let mut ada = server.websocket("/ws", "session=s3cret-of-ada").await;
    assert_eq!(ada.receive("connected").await["payload"]["userId"], "ada");
    let cookie = "Cookie: session=s3cret-of-bob\r\n";
    let (status, body) = server.http("GET", "/", cookie, "").await;
    assert_eq!((status, body.as_str()), (200, "Hello bob, 1 users are connected.\n"));
    assert_eq!(server.first_event("/events?room=lobby", cookie).await["userId"], "bob");
    assert_eq!(server.http("GET", "/events", "", "").await.0, 401);
    assert_eq!(server.http("GET", "/ws", "Cookie: session=guessed\r\n", "").await.0, 401);
    assert_eq!(server.http("GET", "/ws", "", "").await.0, 401);
}

#[tokio::test]
async fn custom_transport_speaks_lines() {
    let server = Server::start("custom_transport").await;
    let stream = TcpStream::connect(&server.address).await.expect("it listens");
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut receive = async |kind: &str| {
        let line = soon(lines.next_line()).await.expect("readable").expect("no end");
        let message: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(message["type"], kind, "{message}");
        message
    };
    assert_eq!(receive("connected").await["payload"]["userId"], "anonymous");
    // A message in two writes, then two messages and an empty line in one.
    write.write_all(br#"{"type":"join:room","pay"#).await.expect("it reads");
    write.write_all(b"load\":{\"roomId\":\"lobby\"}}\n").await.expect("it reads");
    assert_eq!(receive("room:joined").await["payload"]["roomId"], "lobby");
    let two = b"{\"type\":\"ping\",\"id\":1}\r\n\n{\"type\":\"ping\",\"id\":2}\n";
    write.write_all(two).await.expect("it reads");
    assert_eq!(receive("pong").await["id"], 1);
    assert_eq!(receive("pong").await["id"], 2);
    write.write_all(b"\xff\n").await.expect("it reads");
    assert_eq!(receive("close").await["payload"]["code"], 1007);
}

#[tokio::test]
async fn custom_transport_refuses_a_line_that_is_too_long() {
    let server = Server::start("custom_transport").await;
    let mut stream = TcpStream::connect(&server.address).await.expect("it listens");
    stream.write_all(&vec![b'x'; 1024 * 1024]).await.expect("it reads");
    let mut told = String::new();
    soon(stream.read_to_string(&mut told)).await.expect("it ends in order");
    let last = told.lines().last().expect("a line");
    assert!(last.contains("\"close\"") && last.contains("1009"), "{last}");
}

#[tokio::test]
async fn custom_transport_tells_whom_it_refuses_why() {
    let server = Server::start("custom_transport").await;
    let mut open = Vec::new();
    loop {
        let stream = TcpStream::connect(&server.address).await.expect("it listens");
        let mut lines = BufReader::new(stream).lines();
        let line = soon(lines.next_line()).await.expect("readable").expect("it is told something");
        let message: Value = serde_json::from_str(&line).expect("JSON");
        if message["type"] == "connected" && open.len() < 1000 {
            open.push(lines);
            continue;
        }
        let told = (open.len(), &message["type"], &message["payload"]["code"]);
        assert_eq!(told, (100, &json!("close"), &json!(4009)), "the 101st of a user");
        return;
    }
}

/// What an example prints that ends by itself.
async fn output(name: &str) -> String {
    let output = soon(example(name).output()).await.expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn worker_publishes() {
    let told = output("worker").await;
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines, ["0", "50", "100"].map(|p| format!("{p} %: handed to 1 node")));
}

#[tokio::test]
async fn cluster_reaches_across() {
    let told = output("cluster").await;
    let news =
        ["ada hears from the worker", "ada hears from node one", "bob hears from the worker"];
    let more = ["bob hears from node one", "bob hears for bob alone"];
    assert_eq!(told.lines().collect::<Vec<_>>(), [&news[..], &more].concat());
}

#[tokio::test]
async fn custom_bus_reaches_another_node() {
    let told = output("custom_bus").await;
    assert_eq!(told, "the other node hears news\nits link has ended: true\n");
}

#[tokio::test]
async fn test_your_app_passes() {
    assert_eq!(output("test_your_app").await, "2 tests passed\n");
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
