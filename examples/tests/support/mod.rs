//! A server of its own for each test, and clients that talk to it over real sockets.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes, for tests";
const PUBLISH_KEY: &str = "publish-key";

/// Waits for `what`, or fails the test.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A token of `user`, good for a minute, with more claims.
pub(crate) fn token_with(user: &str, more: &Value) -> String {
    let mut claims = json!({"sub": user, "exp": unix_now() + 60});
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    tidings_auth_jwt::sign_hs256(SECRET.as_bytes(), &claims.to_string())
}

pub(crate) fn token(user: &str) -> String {
    token_with(user, &json!({}))
}

pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// The built server as a process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts it on free ports with these limits. Tokens without a `rooms` claim open every room.
    pub(crate) fn start(limits: &[&str]) -> Self {
        let flags: Vec<_> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
        Self::with_flags(&flags)
    }

    /// The same with flags.
    pub(crate) fn with_flags(flags: &[&str]) -> Self {
        Self::at("127.0.0.1:0", flags)
    }

    /// The same at an address, where one that was started before may have been.
    pub(crate) fn at(listen: &str, flags: &[&str]) -> Self {
        Self::spawn(listen, &[&["--jwt-hs256-secret", SECRET], flags].concat())
    }

    /// Starts it with flags that also say which keys check tokens.
    pub(crate) fn with_keys(flags: &[&str]) -> Self {
        Self::spawn("127.0.0.1:0", flags)
    }

    fn spawn(listen: &str, flags: &[&str]) -> Self {
        let mut command = Self::command(listen);
        command.args(flags);
        Self::run(command)
    }

    /// What would start it in demo mode, for more flags, variables and outputs.
    pub(crate) fn command(listen: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-server"));
        command.args(["--listen", listen, "--admin-listen", "127.0.0.1:0", "--open-rooms"]).args([
            "--workers",
            "2",
            "--publish-key",
            PUBLISH_KEY,
        ]);
        command
    }

    /// Starts it by this command, and reads what it prints.
    pub(crate) fn run(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let output = Arc::default();
        let mut readers = vec![keep(child.stderr.take().expect("a pipe"), &output)];
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut address = |name: &str| -> SocketAddr {
            let mut line = String::new();
            lines.read_line(&mut line).expect("text");
            let url = line.strip_prefix(name).expect("the address").trim();
            let host = url.strip_prefix("http://").and_then(|u| u.split('/').next());
            host.and_then(|host| host.parse().ok()).expect("an address")
        };
        let (address, admin) = (address("page:"), address("admin:"));
        readers.push(keep(lines, &output));
        Self { child, address, admin, output, readers }
    }

    /// What it has printed since it runs, to both of its outputs.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("a lock").clone()
    }

    /// Waits for its end and its exit code.
    pub(crate) async fn exit_code(mut self) -> Option<i32> {
        soon("the server's end", async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Waits for its end; all that it has printed.
    pub(crate) async fn ended(mut self) -> String {
        soon("the server's end", async {
            while self.child.try_wait().expect("a child").is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        for reader in std::mem::take(&mut self.readers) {
            reader.join().expect("no panic");
        }
        self.output()
    }

    /// Sends bytes that need be no request, and reads to the end.
    pub(crate) async fn raw(address: SocketAddr, bytes: &str) -> Vec<u8> {
        soon("the end", async {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            let _ = socket.write_all(bytes.as_bytes()).await;
            let _ = socket.shutdown().await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            answer
        })
        .await
    }

    /// Ends it at once, with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child");
    }

    /// Files that it has open, sockets among them.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a process").count()
    }

    /// Memory that it has, in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches("kB").trim().parse().expect("a number")
    }

    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success());
    }

    /// One request on a connection of its own: the status and the body.
    pub(crate) async fn http(
        address: SocketAddr,
        head: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String) {
        let (status, _, body) = Self::http_with_head(address, head, headers, body).await;
        (status, body)
    }

    /// The same with the head of the answer, in lower case.
    pub(crate) async fn http_with_head(
        address: SocketAddr,
        head: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, String) {
        soon(head, async {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            let length = body.len();
            let request = format!(
                "{head} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
            );
            // A server that refuses a body need not read it to its end.
            let _ = socket.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            let answer = String::from_utf8(answer).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
            (status, head.to_ascii_lowercase(), body.to_owned())
        })
        .await
    }

    /// Publishes; every publication must be accepted.
    pub(crate) async fn publish(&self, publications: &Value) {
        Self::publish_at(self.address, publications).await;
    }

    /// The same at an address, as that of a proxy.
    pub(crate) async fn publish_at(address: SocketAddr, publications: &Value) {
        let key = format!("Authorization: Bearer {PUBLISH_KEY}\r\n");
        let body = publications.to_string();
        let (status, answer) = Self::http(address, "POST /publish", &key, &body).await;
        assert_eq!(status, 200, "{answer}");
        assert!(!answer.contains("error"), "{answer}");
    }

    pub(crate) async fn admin(&self, path: &str) -> Value {
        let (status, body) = Self::http(self.admin, &format!("GET {path}"), "", "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Asks administrators' `path` until the answer is `wanted`.
    pub(crate) async fn admin_shows(&self, path: &str, wanted: &Value) {
        let mut last = Value::Null;
        let asked = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.admin(path).await;
                if last == *wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(asked.await.is_ok(), "{path} still shows {last}, not {wanted}");
    }

    /// Posts a client message to an event stream; the status.
    pub(crate) async fn submit(&self, client: &str, token: &str, body: &str) -> u16 {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        Self::http(self.address, &format!("POST /events/{client}"), &bearer, body).await.0
    }
}

impl From<&Server> for SocketAddr {
    fn from(server: &Server) -> Self {
        server.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.output());
        }
    }
}

/// Collects the lines of an output until it ends.
fn keep(from: impl Read + Send + 'static, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let output = output.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            *output.lock().expect("a lock") += &(line + "\n");
        }
    })
}

/// A WebSocket client.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) connected: Value,
}

impl Client {
    /// Upgrades and reads nothing yet.
    pub(crate) async fn upgrade(
        at: impl Into<SocketAddr>,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let url = format!("ws://{}/ws{query}", at.into());
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header value"));
        }
        let (socket, _) = soon("the upgrade", connect_async(request)).await?;
        Ok(Self { socket, connected: Value::Null })
    }

    /// Connects with a token; the first message must be `connected`.
    pub(crate) async fn open(at: impl Into<SocketAddr>, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let mut client = Self::upgrade(at, "", &headers).await.expect("an upgrade");
        client.connected = client.next().await;
        assert_eq!(client.connected["type"], "connected", "{}", client.connected);
        client
    }

    /// Connects as `user` and joins a room.
    pub(crate) async fn in_room(at: impl Into<SocketAddr>, token: &str, room: &str) -> Self {
        let mut client = Self::open(at, token).await;
        client.send(&json!({"type": "join:room", "payload": {"roomId": room}})).await;
        let joined = client.next().await;
        assert_eq!(joined["type"], "room:joined", "{joined}");
        assert_eq!(joined["payload"]["roomId"], room, "{joined}");
        client
    }

    pub(crate) fn id(&self) -> &str {
        self.connected["payload"]["clientId"].as_str().expect("a clientId")
    }

    pub(crate) async fn send_frame(&mut self, frame: Message) {
        self.socket.send(frame).await.expect("a frame is sent");
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_frame(Message::text(message.to_string())).await;
    }

    /// Waits for so many pings, which are answered.
    pub(crate) async fn pings(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            match soon("a ping", self.socket.next()).await {
                Some(Ok(Message::Ping(_))) => left -= 1,
                other => panic!("not a ping: {other:?} with {left} to come"),
            }
        }
    }

    /// Waits until the connection is cut without a close frame.
    pub(crate) async fn cut(&mut self) {
        match self.frame().await {
            None | Some(Err(_)) => {}
            Some(Ok(message)) => panic!("not cut: {message:?}"),
        }
    }

    async fn frame(&mut self) -> Option<Result<Message, Error>> {
        soon("a frame", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return other,
                }
            }
        })
        .await
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        match self.frame().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("not a message: {other:?}"),
        }
    }

    /// The type of the next message.
    pub(crate) async fn next_type(&mut self) -> String {
        self.next().await["type"].as_str().expect("a type").to_owned()
    }

    /// The messages that still come, and the code and the reason of the close.
    pub(crate) async fn until_closed(&mut self) -> (Vec<Value>, u16, String) {
        let mut messages = Vec::new();
        loop {
            match self.frame().await {
                Some(Ok(Message::Text(text))) => {
                    messages.push(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return (messages, close.code.into(), close.reason.to_string());
                }
                other => panic!("not a close: {other:?} after {} messages", messages.len()),
            }
        }
    }

    /// The code and the reason of the close, which must come next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let (messages, code, reason) = self.until_closed().await;
        assert!(messages.is_empty(), "{messages:?}");
        (code, reason)
    }
}

/// An event stream over a raw socket. HTTP/1.0, so the body is not in chunks.
pub(crate) struct Events {
    lines: tokio::io::Lines<tokio::io::BufReader<TcpStream>>,
    pub(crate) head: String,
    /// When the client is to come back, in milliseconds, as it was last told.
    pub(crate) retry: Option<u64>,
}

impl Events {
    pub(crate) async fn open(at: impl Into<SocketAddr>, query: &str, token: &str) -> Self {
        let address = at.into();
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let request = format!(
            "GET /events{query} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("a request is sent");
        let lines = tokio::io::BufReader::new(socket).lines();
        let mut events = Self { lines, head: String::new(), retry: None };
        loop {
            match events.line().await {
                line if line.is_empty() => return events,
                line => events.head += &(line.to_ascii_lowercase() + "\n"),
            }
        }
    }

    /// Waits for so many heartbeats.
    pub(crate) async fn pings(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            left -= usize::from(self.line().await == ": ping");
        }
    }

    async fn line(&mut self) -> String {
        let line = soon("a line", self.lines.next_line()).await;
        line.expect("text").expect("the stream goes on")
    }

    /// The next event: its type and its data.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let line = self.line().await;
            if let Some(value) = line.strip_prefix("event: ") {
                value.clone_into(&mut kind);
            } else if let Some(value) = line.strip_prefix("data: ") {
                data += value;
            } else if let Some(value) = line.strip_prefix("retry: ") {
                self.retry = value.parse().ok();
            } else if line.is_empty() && !kind.is_empty() {
                return (kind, serde_json::from_str(&data).expect("JSON"));
            }
        }
    }
}
