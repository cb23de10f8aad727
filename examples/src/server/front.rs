//! What those in front are told: load balancers, and event streams that cannot be taken now.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidings_core::CloseReason;
use tidings_transport_sse::closing_response;

use crate::app::App;

/// Whether new connections may come here.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let not_ready = match (app.hub.is_draining(), app.hub.is_bus_up()) {
        (false, true) => return "ok\n".into_response(),
        (true, _) => "draining\n",
        (false, false) => "the bus is away\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, not_ready).into_response()
}

/// Sends an event stream away until later.
///
/// An `EventSource` ends for good on any status but 200, so it gets a stream that only says when to come back. A proxy
/// asks with [`BY_STATUS`] for a 503 instead, tries the next node, and gives such a stream itself when there is none.
pub(crate) fn come_later(
    headers: &HeaderMap,
    cors: HeaderMap,
    mut reason: CloseReason,
) -> Response {
    let delay = *reason.reconnect_after.get_or_insert_with(spread_retry);
    if headers.get(BY_STATUS.0).is_some_and(|value| value == BY_STATUS.1) {
        let seconds = HeaderValue::from(delay.as_secs_f64().ceil() as u64);
        let retry_after = [(header::RETRY_AFTER, seconds)];
        return (StatusCode::SERVICE_UNAVAILABLE, cors, retry_after).into_response();
    }
    (cors, closing_response(delay, &reason)).into_response()
}

/// Lets go of connections that could carry further requests, once the node drains.
pub(crate) async fn let_go(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if app.hub.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Between 2 and 4 seconds, so that clients of a node that died do not come back in step.
pub(crate) fn spread_retry() -> std::time::Duration {
    let random = getrandom::u32().unwrap_or_default();
    std::time::Duration::from_millis(2000 + u64::from(random % 2000))
}

/// The header by which a proxy asks to be refused by a status.
const BY_STATUS: (&str, &str) = ("tidings-refusal", "status");
