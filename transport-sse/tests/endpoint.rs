//! The endpoint as an HTTP server calls it: streams, messages, and every refusal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::hub_laws::scene::until;
use tidings_core::{
    AllowAll, AuthError, Authenticator, CloseReason, ConnectRequest, ForeignOrigin, Hub, Identity,
    Limits, UserId,
};
use tidings_transport_sse::{Hangup, SseBody, SseConfig, serve, submit};
use tokio::time::timeout;

/// A token is its user's name, but for two.
#[derive(Debug)]
struct Names;

#[async_trait]
impl Authenticator for Names {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        match request.token.as_ref().ok_or(AuthError::Missing)?.expose() {
            "nobody" => Err(AuthError::Refused("it is nobody's".into())),
            "away" => Err(AuthError::Unavailable("who knows it is away".into())),
            name => UserId::new(name)
                .map(Identity::user)
                .map_err(|error| AuthError::Refused(error.to_string())),
        }
    }
}

async fn hub(change: impl FnOnce(&mut Limits)) -> Hub {
    let mut limits = Limits::default();
    change(&mut limits);
    let bus = Arc::new(MemoryBus::default());
    let builder = Hub::builder(bus, Arc::new(Names), Arc::new(AllowAll)).limits(limits);
    builder.start().await.expect("the bus is there")
}

fn get(user: &str) -> http::request::Builder {
    Request::get(format!("/events?room=r&token={user}")).header("host", "app.example")
}

async fn ask(hub: &Hub, request: http::request::Builder) -> Response<SseBody> {
    serve(hub, request.body(()).expect("a request"), &config()).await
}

fn config() -> SseConfig {
    let mut config = SseConfig::default();
    config.allowed_origins.push("https://page.example".parse().expect("an origin"));
    config
}

async fn post(hub: &Hub, client: &str, user: &str, body: impl Into<Bytes>) -> u16 {
    let request = Request::post("/events/x").header("authorization", format!("Bearer {user}"));
    let request = request.body(Full::new(body.into())).expect("a request");
    submit(hub, client, request, &config()).await.status().as_u16()
}

/// A stream of which events are read.
struct Stream {
    body: SseBody,
    text: String,
}

impl Stream {
    fn of(answer: Response<SseBody>) -> Self {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), text: String::new() }
    }

    /// The next block of lines.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("it comes in time");
            let Ok(frame) = frame?;
            self.text += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
        }
    }

    /// The data of the next event, which is of this type.
    async fn event(&mut self, kind: &str) -> serde_json::Value {
        let block = self.next().await.unwrap_or_else(|| panic!("an end instead of {kind}"));
        let named = block.strip_prefix("event: ").and_then(|rest| rest.split_once('\n'));
        let (name, rest) = named.unwrap_or_else(|| panic!("{block} instead of {kind}"));
        assert_eq!(name, kind, "{block}");
        let data = rest.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        serde_json::from_str(data).expect("it is JSON")
    }

    /// The delay that the stream begins with, in milliseconds.
    async fn retry(&mut self) -> u64 {
        let first = self.next().await.expect("a beginning");
        first.strip_prefix("retry: ").expect("a delay").parse().expect("a number")
    }
}

#[tokio::test]
async fn what_a_client_posts_is_answered_on_its_stream() {
    let hub = hub(|limits| limits.message_burst = 3).await;
    let mut stream = Stream::of(ask(&hub, get("ada")).await);
    assert!((2000..=4000).contains(&stream.retry().await));
    let connected = stream.event("connected").await;
    let client = connected["clientId"].as_str().expect("an id");
    assert_eq!(stream.event("room:joined").await["roomId"], "r");

    assert_eq!(post(&hub, client, "ada", r#"{"type":"ping"}"#).await, 202);
    assert!(stream.event("pong").await["timestamp"].is_u64());

    let ping = r#"{"type":"ping"}"#;
    assert_eq!(post(&hub, client, "ada", "not JSON").await, 400);
    assert_eq!(post(&hub, client, "nobody", ping).await, 401);
    assert_eq!(post(&hub, client, "bob", ping).await, 403);
    assert_eq!(post(&hub, "unknown", "ada", ping).await, 404);
    assert_eq!(post(&hub, client, "ada", "x".repeat(64 * 1024 + 1)).await, 413);
    assert_eq!(post(&hub, client, "away", ping).await, 503);
    let posts = async { while post(&hub, client, "ada", ping).await != 429 {} };
    timeout(PATIENCE, posts).await.expect("too many at last");

    drop(stream);
    until(async || hub.stats().users == 0).await;
    assert_eq!(post(&hub, client, "ada", ping).await, 404);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_does_not_come_is_not_waited_for() {
    let hub = hub(|limits| limits.message_deadline = Duration::from_millis(50)).await;
    let request = || Request::post("/events/x?token=ada");
    let never = StreamBody::new(Never).boxed();
    let answer = submit(&hub, "x", request().body(never).expect("a request"), &config()).await;
    assert_eq!(answer.status(), 408);
    let broken = Full::<Bytes>::from("{").map_err(|never| match never {}).boxed();
    let broken = broken.with_trailers(async { Some(Err(std::io::Error::other("broken off"))) });
    let answer = submit(&hub, "x", request().body(broken).expect("a request"), &config()).await;
    assert_eq!(answer.status(), 400);
}

/// A body of which nothing comes.
struct Never;

impl futures_core::Stream for Never {
    type Item = Result<http_body::Frame<Bytes>, std::io::Error>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}

async fn text(answer: Response<SseBody>) -> (u16, String) {
    let (status, length) = (answer.status().as_u16(), answer.body().size_hint().exact());
    let Ok(body) = answer.into_body().collect().await;
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
    assert_eq!(length, Some(text.len() as u64), "a refusal has a length");
    (status, text)
}

#[tokio::test]
async fn what_does_not_pass_by_itself_is_refused_by_a_status() {
    let hub = hub(|limits| limits.connections_per_user = 1).await;
    let unauthorized = ask(&hub, Request::get("/events")).await;
    assert_eq!(text(unauthorized).await, (401, "Unauthorized\n".into()));
    assert_eq!(text(ask(&hub, get("nobody")).await).await, (401, "Invalid token\n".into()));
    let _open = ask(&hub, get("ada")).await;
    assert_eq!(text(ask(&hub, get("ada")).await).await.0, 429);

    for method in ["POST", "HEAD", "DELETE"] {
        let answer = ask(&hub, get("ada").method(method)).await;
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()["allow"], "GET, OPTIONS");
    }
    let request = Request::get("/events/x").body(Full::<Bytes>::default()).expect("a request");
    let answer = submit(&hub, "x", request, &config()).await;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.headers()["allow"], "POST, OPTIONS");
}

#[tokio::test]
async fn what_passes_is_told_by_a_stream_or_to_a_proxy_by_a_status() {
    let hub = hub(|_| {}).await;
    let mut stream = Stream::of(ask(&hub, get("away")).await);
    assert!((2000..=4000).contains(&stream.retry().await));
    assert!(stream.next().await.expect("the close").contains("\"code\":1013"));
    assert_eq!(stream.next().await, None);

    let answer = ask(&hub, get("away").header("tidings-refusal", "status")).await;
    let seconds: u64 =
        answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!(answer.status() == 503 && (2..=4).contains(&seconds));
    assert_eq!(text(answer).await.1, "");

    let mut open = Stream::of(ask(&hub, get("ada")).await);
    let read = async {
        while !open.next().await.expect("the close").contains("\"code\":1012") {}
        assert_eq!(open.next().await, None);
    };
    let end = async { tokio::join!(hub.shutdown(CloseReason::RESTART), read) };
    timeout(PATIENCE, end).await.expect("it ends");
    // Before anything else is looked at.
    for user in ["bob", "nobody"] {
        let answer = ask(&hub, get(user)).await;
        assert_eq!(answer.headers()["connection"], "close");
        let mut stream = Stream::of(answer);
        assert!((2000..=4000).contains(&stream.retry().await), "a browser keeps it");
        assert!(stream.next().await.expect("the close").contains("\"code\":1012"));
    }
}

#[tokio::test]
async fn origins_are_told_in_every_answer_that_they_may_connect() {
    let hub = hub(|_| {}).await;
    let allowed = |headers: &HeaderMap, origin: &str| {
        assert_eq!(headers["access-control-allow-origin"], origin);
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["access-control-expose-headers"], "Retry-After");
        assert_eq!(headers["vary"], "Origin");
    };
    for origin in ["https://page.example", "https://app.example"] {
        for user in ["ada", "nobody", "away"] {
            let answer = ask(&hub, get(user).header("origin", origin)).await;
            allowed(answer.headers(), origin);
        }
        let answer = ask(&hub, get("ada").method("OPTIONS").header("origin", origin)).await;
        assert_eq!(answer.status(), 204);
        allowed(answer.headers(), origin);
        assert_eq!(answer.headers()["access-control-allow-methods"], "GET, POST, OPTIONS");
        assert_eq!(answer.headers()["access-control-max-age"], "600");
        for (method, kept) in [("POST", None), ("OPTIONS", Some("600"))] {
            let request = get("ada").method(method).header("origin", origin);
            let request = request.body(Full::<Bytes>::default()).expect("a request");
            let answer = submit(&hub, "x", request, &config()).await;
            allowed(answer.headers(), origin);
            let age = answer.headers().get("access-control-max-age");
            assert_eq!(age.map(|age| age.to_str().expect("text")), kept, "{method}");
        }
    }
    let no_browser = ask(&hub, get("ada")).await;
    assert!(!no_browser.headers().contains_key("access-control-allow-origin"));

    for (site, status) in [("same-origin", 200), ("cross-site", 403), ("same-site", 403)] {
        let image = ask(&hub, get("bob").header("sec-fetch-site", site)).await;
        assert_eq!(image.status(), status, "{site}");
        assert_eq!(image.extensions().get::<ForeignOrigin>().is_some(), status == 403);
    }
    for method in ["GET", "OPTIONS"] {
        let foreign = get("ada").method(method).header("origin", "https://evil.example");
        let answer = ask(&hub, foreign).await;
        assert_eq!(answer.status(), 403);
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
    }
    let foreign = get("ada").method("POST").header("origin", "https://evil.example");
    let foreign = foreign.body(Full::<Bytes>::default()).expect("a request");
    assert_eq!(submit(&hub, "x", foreign, &config()).await.status(), 403);
}

#[tokio::test]
async fn the_connection_of_an_ended_stream_is_hung_up() {
    let hub = hub(|limits| limits.close_deadline = Duration::from_millis(10)).await;
    let hangup = Hangup::default();
    let answer = ask(&hub, get("ada").extension(hangup.clone())).await;
    assert_eq!(answer.headers()["connection"], "close");
    // Nothing is read of it.
    timeout(PATIENCE, hub.shutdown(CloseReason::GOING_AWAY)).await.expect("it ends");
    timeout(PATIENCE, hangup.asked()).await.expect("the cut");
    drop(answer);
}

const PATIENCE: Duration = Duration::from_secs(30);
