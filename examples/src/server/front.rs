//! What load balancers in front are told.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Version, header};
use tidings_core::CloseReason;
use tidings_transport_sse::{SseConfig, closing_response};

use crate::app::App;
use crate::listen::LastFiles;

/// Whether new connections may come here.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let not_ready = match &app.hub {
        hub if hub.has_failed() => FAILED,
        hub if hub.is_draining() => "draining\n",
        hub if !hub.is_bus_up() => "the bus is away\n",
        _ if app.keys.as_ref().is_some_and(|keys| keys.age().is_none()) => NO_KEYS,
        _ => return format!("ok{}\n", away(&app)).into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, not_ready).into_response()
}

/// The parts of the bus that are away, if any, while the others go on.
fn away(app: &App) -> String {
    let partitions: Vec<_> = app.hub.partitions_away().iter().map(u16::to_string).collect();
    if partitions.is_empty() {
        return String::new();
    }
    let servers = app.redis.as_ref().map(|redis| redis.stats().servers).unwrap_or_default();
    let servers = servers.into_iter().filter(|server| server.away.is_some());
    let servers: Vec<_> = servers.map(|server| server.address).collect();
    let names = match servers.is_empty() {
        true => String::new(),
        false => format!(" ({})", servers.join(", ")),
    };
    format!(", but of the bus are away: partitions {}{names}", partitions.join(", "))
}

/// Whether the process may go on; if not, its supervisor is to start it again.
pub(crate) async fn alive(State(app): State<Arc<App>>) -> Response {
    match app.hub.has_failed() {
        true => (StatusCode::SERVICE_UNAVAILABLE, FAILED).into_response(),
        false => "ok\n".into_response(),
    }
}

const NO_KEYS: &str = "the keys of --jwt-jwks could not be read yet\n";
const FAILED: &str = "a task of the node has panicked\n";

/// Refuses a request that does not say for whom it is, or says it twice (RFC 9112, section 3.2).
pub(crate) async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts == 1 || hosts == 0 && request.version() == Version::HTTP_10 {
        return next.run(request).await;
    }
    (StatusCode::BAD_REQUEST, "a request has one `Host`\n").into_response()
}

/// Refuses all but probes when only the last files are left. A plain `EventSource` ends for good on a status, so it is
/// told by a stream to come back.
pub(crate) async fn keep_files(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_last = request.extensions().get::<LastFiles>().is_some();
    if !is_last || matches!(path, "/healthz" | "/readyz") {
        return next.run(request).await;
    }
    if path == "/events" && request.method() == Method::GET {
        let (retry, reason) = (SseConfig::default().retry * 2, CloseReason::TRY_AGAIN_LATER);
        return closing_response(false, retry, &reason).map(Body::new);
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "out of files\n")
        .into_response()
}

/// Lets go of connections that could carry further requests, once the node drains or their files are wanted.
pub(crate) async fn let_go(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_last = request.extensions().get::<LastFiles>().is_some();
    let mut response = next.run(request).await;
    let is_over = is_last || app.hub.is_draining();
    if is_over && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
