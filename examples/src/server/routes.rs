//! Where clients connect: `/ws`, `/events` and its POST, and the page.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tidings_core::{
    AttachError, AuthError, CloseReason, ConnectOptions, ConnectRequest, Identity, SubmitError,
    TransportInfo,
};
use tidings_transport_sse::{ENVELOPE, FRAMING, SseTransport, stream_response};
use tidings_transport_ws::{WsConfig, origin_passes};

use crate::app::App;
use crate::front::{come_later, let_go, ready, spread_retry};
use crate::listen::Hangup;

type Shared = State<Arc<App>>;

/// All that clients and publishers see.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/ws", get(websocket))
        .route("/events", get(events).options(preflight))
        .route("/events/{client}", post(submit).options(preflight))
        .route("/publish", post(crate::publish::publish))
        .route("/demo/token", get(demo_token))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(crate::page::router())
        .layer(from_fn_with_state(app.clone(), let_go))
        .with_state(app)
}

async fn websocket(State(app): Shared, mut request: Request) -> Response {
    tidings_transport_ws::serve(&app.hub, &mut request, &ws_config(&app)).map(Body::from)
}

async fn events(State(app): Shared, request: Request) -> Response {
    let Some(cors) = cors(&app, &request) else { return StatusCode::FORBIDDEN.into_response() };
    if let Err(reason) = app.hub.admit() {
        return come_later(request.headers(), cors, reason);
    }
    let connect = ConnectRequest::read(&request, &app.cli.cookie);
    let identity = match app.hub.authenticate(&connect).await {
        Ok(identity) => identity,
        Err(AuthError::Unavailable(_)) => {
            return come_later(request.headers(), cors, CloseReason::TRY_AGAIN_LATER);
        }
        Err(error) => return (StatusCode::UNAUTHORIZED, cors, told(&error)).into_response(),
    };
    let envelope = connect.query("envelope").any(|v| v == "1");
    let framing = if envelope { ENVELOPE } else { FRAMING };
    let info = TransportInfo { name: "sse", binary: false, answers_heartbeats: false, framing };
    let options = ConnectOptions::of(&connect);
    match app.hub.attach(identity, options, info).await {
        Ok(attachment) => {
            let mailbox = attachment.mailbox();
            let (transport, body) = SseTransport::new(envelope, spread_retry(), mailbox);
            let hangup = request.extensions().get::<Hangup>().cloned();
            let deadline = app.hub.limits().close_deadline;
            tokio::spawn(async move {
                attachment.serve(transport).await;
                tokio::time::sleep(deadline).await;
                // Who has not read the end by now reads nothing; nothing else comes by this connection.
                hangup.into_iter().for_each(|hangup| hangup.cut());
            });
            (cors, [(header::CONNECTION, "close")], stream_response(body)).into_response()
        }
        Err(AttachError::TooMany) => {
            (StatusCode::TOO_MANY_REQUESTS, cors, "too many connections of this user\n")
                .into_response()
        }
        Err(error) => come_later(request.headers(), cors, error.close_reason()),
    }
}

async fn submit(State(app): Shared, Path(client): Path<String>, request: Request) -> Response {
    let Some(cors) = cors(&app, &request) else { return StatusCode::FORBIDDEN.into_response() };
    let connect = ConnectRequest::read(&request, &app.cli.cookie);
    let who = match app.hub.authenticate(&connect).await {
        Ok(who) => who,
        Err(AuthError::Unavailable(_)) => {
            return (StatusCode::SERVICE_UNAVAILABLE, cors).into_response();
        }
        Err(error) => return (StatusCode::UNAUTHORIZED, cors, told(&error)).into_response(),
    };
    let limits = app.hub.limits();
    let (most, deadline) = (limits.message_bytes, limits.handshake_deadline);
    let body = match crate::body::read(request.into_body(), most, deadline).await {
        Ok(body) => body,
        Err(status) => return (status, cors).into_response(),
    };
    (post_to(&app, &client, &who, body).await, cors).into_response()
}

async fn post_to(app: &App, client: &str, who: &Identity, body: bytes::Bytes) -> StatusCode {
    let Ok(client) = client.parse() else { return StatusCode::NOT_FOUND };
    match app.hub.submit(client, who, body).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(SubmitError::Invalid) => StatusCode::BAD_REQUEST,
        Err(SubmitError::Forbidden) => StatusCode::FORBIDDEN,
        Err(SubmitError::NotFound) => StatusCode::NOT_FOUND,
        Err(SubmitError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        Err(SubmitError::RateLimited) => StatusCode::TOO_MANY_REQUESTS,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn preflight(State(app): Shared, request: Request) -> Response {
    let Some(cors) = cors(&app, &request) else { return StatusCode::FORBIDDEN.into_response() };
    let allow = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, last-event-id"),
    ];
    (StatusCode::NO_CONTENT, cors, allow).into_response()
}

#[derive(Deserialize)]
struct TokenFor {
    user: String,
}

/// A token for the page; only in demo mode, which is on loopback only.
async fn demo_token(State(app): Shared, Query(TokenFor { user }): Query<TokenFor>) -> Response {
    let Some(secret) = &app.demo_secret else { return StatusCode::NOT_FOUND.into_response() };
    let expires_at = unix_now() + DEMO_TOKEN_SECONDS;
    let claims = serde_json::json!({"sub": user, "exp": expires_at, "rooms": ["*"]}).to_string();
    let token = tidings_auth_jwt::sign_hs256(secret.as_bytes(), &claims);
    axum::Json(serde_json::json!({ "token": token })).into_response()
}

/// What an allowed origin is answered; `None` for one that is not allowed.
fn cors(app: &App, request: &http::Request<Body>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Some(headers) };
    if !origin_passes(request, &ws_config(app)) {
        return None;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, http::HeaderValue::from_static("true"));
    headers.insert(header::VARY, http::HeaderValue::from_static("Origin"));
    debug_assert!([Method::GET, Method::POST, Method::OPTIONS].contains(request.method()));
    Some(headers)
}

fn ws_config(app: &App) -> WsConfig {
    let mut config = WsConfig::default();
    config.allowed_origins.clone_from(&app.cli.allow_origin);
    config.cookie.clone_from(&app.cli.cookie);
    config
}

fn told(error: &AuthError) -> &'static str {
    if matches!(error, AuthError::Missing) { "Unauthorized\n" } else { "Invalid token\n" }
}

fn unix_now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

const DEMO_TOKEN_SECONDS: u64 = 12 * 3600;
