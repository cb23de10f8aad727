//! Tidings in an axum application that has its own authentication.
//!
//! Run with: cargo run -p tidings-examples --example axum [PORT]
//!
//! The application's middleware puts a user into the extensions of a request. An `Authenticator`
//! reads it there, so that the application decides once who is who, also for WebSockets and SSE.
//! Connect a WebSocket client to `/ws`, or an `EventSource` to `/events?room=lobby`, with the header
//! `Cookie: session=s3cret-of-ada`.

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
use tidings_core::{AllowAll, AuthError, Authenticator, ConnectRequest, Hub, Identity, UserId};
use tidings_transport_sse::SseConfig;
use tidings_transport_ws::{WsConfig, tune};

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
        .route("/events", get(events))
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
    format!("Hello {}, {} users are connected.\n", user.name, hub.stats().users)
}

async fn websocket(State(hub): State<Hub>, mut request: Request) -> Response {
    tidings_transport_ws::serve(&hub, &mut request, &WsConfig::default()).map(Body::from)
}

async fn events(State(hub): State<Hub>, request: Request) -> Response {
    tidings_transport_sse::serve(&hub, request, &SseConfig::default()).await.map(Body::new)
}

/// Sessions and whose they are. A real application has them in a store.
const SESSIONS: [(&str, &str); 2] = [("s3cret-of-ada", "ada"), ("s3cret-of-bob", "bob")];
