//! What load balancers in front are told.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

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

/// Lets go of connections that could carry further requests, once the node drains.
pub(crate) async fn let_go(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if app.hub.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
