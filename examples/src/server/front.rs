//! What load balancers in front are told.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::app::App;

/// Whether new connections may come here.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let not_ready = match &app.hub {
        hub if hub.has_failed() => FAILED,
        hub if hub.is_draining() => "draining\n",
        hub if !hub.is_bus_up() => "the bus is away\n",
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

const FAILED: &str = "a task of the node has panicked\n";

/// Lets go of connections that could carry further requests, once the node drains.
pub(crate) async fn let_go(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if app.hub.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
