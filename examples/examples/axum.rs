//! Tidings in an axum application that has its own authentication.
//!
//! Run with: cargo run -p tidings-examples --example axum [PORT]
//!
//! The application's middleware puts a user into the extensions of a request. An `Authenticator`
//! reads it there, so that the application decides once who is who, also for WebSockets.
//! Connect a WebSocket client to `/ws` with the header `Cookie: session=s3cret-of-ada`.
#![expect(clippy::disallowed_methods, reason = "a program may spawn where it likes")]

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use http::{StatusCode, header};
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, AuthError, Authenticator, CloseReason, ConnectOptions, ConnectRequest, FrameWriter,
    Hub, Identity, Transport, UserId,
};
use tidings_transport_ws::{WsConfig, accept, tune, upgraded};

/// The application's own user.
#[derive(Debug, Clone)]
struct CurrentUser {
    name: String,
}

/// The application's own middleware: it knows sessions and nothing of Tidings.
async fn session(mut request: Request, next: Next) -> Response {
    let cookie = request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok());
    let session = cookie.and_then(|cookie| cookie.strip_prefix("session="));
    let Some((_, name)) = SESSIONS.iter().find(|(id, _)| session == Some(*id)) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(CurrentUser { name: (*name).to_owned() });
    next.run(request).await
}

/// Takes over whom the middleware found.
#[derive(Debug)]
struct FromSession;

#[async_trait]
impl Authenticator for FromSession {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let user = request.extensions.get::<CurrentUser>().ok_or(AuthError::Missing)?;
        let user = UserId::new(&user.name).map_err(|e| AuthError::Refused(e.to_string()))?;
        Ok(Identity::user(user))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::builder(bus, Arc::new(FromSession), Arc::new(AllowAll)).start().await?;
    let app = axum::Router::new()
        .route("/", get(home))
        .route("/ws", get(websocket))
        .layer(from_fn(session))
        .with_state(hub);
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // An untuned connection works as well, only slower.
    let listener = listener.tap_io(|socket| drop(tune(socket)));
    Ok(axum::serve(listener, app).await?)
}

/// A page of the application, which asks the hub for what it shows.
async fn home(State(hub): State<Hub>, Extension(user): Extension<CurrentUser>) -> String {
    format!("Hello {}, {} users are connected.\n", user.name, hub.stats().await.users)
}

async fn websocket(State(hub): State<Hub>, mut request: Request) -> Response {
    let connect = ConnectRequest::read(&request, "");
    let identity = match hub.authenticate(&connect).await {
        Ok(identity) => identity,
        Err(_) => return StatusCode::UNAUTHORIZED.into_response(),
    };
    let (response, upgrade) = match accept(&mut request, &WsConfig::default()) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.map(Body::from),
    };
    tokio::spawn(async move {
        let Ok(transport) = upgraded(upgrade, hub.limits().message_bytes).await else { return };
        let options = ConnectOptions::default();
        match hub.attach(identity, options, transport.info()).await {
            Ok(attachment) => attachment.serve(transport).await,
            Err(error) => refuse(transport, &error.close_reason()).await,
        }
    });
    response.map(|()| Body::empty())
}

/// Tells a client that was not taken in why.
async fn refuse(transport: impl Transport, reason: &CloseReason) {
    let (_reader, mut writer) = transport.split();
    writer.close(reason).await;
}

/// Sessions and whose they are. A real application has them in a store.
const SESSIONS: [(&str, &str); 2] = [("s3cret-of-ada", "ada"), ("s3cret-of-bob", "bob")];
