//! Where clients connect: `/ws`, `/events` and its POST, and the page.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{HeaderName, StatusCode, Uri, Version, header};
use serde::Deserialize;

use crate::app::App;
use crate::front::{alive, keep_files, let_go, ready};
use crate::peer::{host_name, is_forwarded, is_loopback};

type Shared = State<Arc<App>>;

/// All that clients and publishers see.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/ws", any(websocket))
        .route("/events", any(events))
        .route("/events/{client}", any(submit))
        .route("/publish", post(crate::publish::publish))
        .route("/demo/token", get(demo_token))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .merge(crate::page::router())
        .layer(from_fn(keep_files))
        .layer(from_fn_with_state(app.clone(), let_go))
        .with_state(app)
}

async fn websocket(State(app): Shared, mut request: Request) -> Response {
    tidings_transport_ws::serve(&app.hub, &mut request, &app.ws).map(Body::from)
}

async fn events(State(app): Shared, request: Request) -> Response {
    tidings_transport_sse::serve(&app.hub, request, &app.sse).await.map(Body::new)
}

async fn submit(State(app): Shared, Path(client): Path<String>, request: Request) -> Response {
    tidings_transport_sse::submit(&app.hub, &client, request, &app.sse).await.map(Body::new)
}

#[derive(Deserialize)]
struct TokenFor {
    user: String,
}

/// A token for the page; only in demo mode, which is on loopback only: not for the clients of a proxy, and not for a page
/// whose name leads here.
async fn demo_token(
    State(app): Shared,
    Query(TokenFor { user }): Query<TokenFor>,
    request: Request,
) -> Response {
    let Some(secret) = &app.demo_secret else { return StatusCode::NOT_FOUND.into_response() };
    if !is_of_this_machine(&request) {
        let why = "demo tokens are for this machine alone: start the server with --jwt-hs256-secret or --jwt-jwks\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let expires_at = unix_now() + DEMO_TOKEN_SECONDS;
    let claims = serde_json::json!({"sub": user, "exp": expires_at, "rooms": ["*"]}).to_string();
    let token = tidings_auth_jwt::sign_hs256(secret.as_bytes(), &claims);
    axum::Json(serde_json::json!({ "token": token })).into_response()
}

/// Whether a request comes from this machine, as far as it can be known. A proxy that rewrites `Host` and says nothing is
/// known by its HTTP/1.0, as nginx speaks unless it is told otherwise, or by the page that its clients are on.
fn is_of_this_machine(request: &Request) -> bool {
    let headers = request.headers();
    let is_foreign = |name: &HeaderName| {
        let page = headers.get(name).and_then(|page| page.to_str().ok()?.parse::<Uri>().ok());
        headers.contains_key(name) && !page.is_some_and(|page| page.host().is_some_and(is_loopback))
    };
    request.version() >= Version::HTTP_11
        && !is_forwarded(headers)
        && host_name(headers).is_some_and(is_loopback)
        && !is_foreign(&header::ORIGIN)
        && !is_foreign(&header::REFERER)
}

fn unix_now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

const DEMO_TOKEN_SECONDS: u64 = 12 * 3600;
