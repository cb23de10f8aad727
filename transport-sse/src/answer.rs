//! Answers that are no stream of a connection: refusals, preflights, and streams that only say when to come back.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use tidings_core::{CloseReason, ConnectRequest, ForeignOrigin, check_origin};

use crate::{SseBody, SseConfig, closing_response};

/// What the origin of a request is answered, or that it may not connect.
pub(crate) fn cors(request: &Request<()>, config: &SseConfig) -> Result<HeaderMap, ForeignOrigin> {
    check_origin(request, &config.allowed_origins)?;
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(HeaderMap::new()) };
    Ok(HeaderMap::from_iter([
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After")),
        (header::VARY, HeaderValue::from_static("Origin")),
    ]))
}

pub(crate) fn foreign(why: ForeignOrigin) -> Response<SseBody> {
    let mut response = text(StatusCode::FORBIDDEN, "this origin may not connect\n");
    response.extensions_mut().insert(why);
    response
}

/// 204 with what a browser may send, for [`PREFLIGHT_SECONDS`].
pub(crate) fn preflight() -> Response<SseBody> {
    let mut response = status(StatusCode::NO_CONTENT);
    let sent = HeaderValue::from_static("authorization, content-type, last-event-id");
    response.headers_mut().extend([
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, sent),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_SECONDS)),
    ]);
    response
}

/// Whether the data of an event is to be the whole message.
pub(crate) fn wants_envelope(connect: &ConnectRequest) -> bool {
    connect.query("envelope").any(|value| value == "1")
}

/// Sends a client away until later.
///
/// An `EventSource` ends for good on any status but 200, so it gets a stream that only says when to come back. A proxy
/// asks with [`BY_STATUS`] for a 503 instead, tries the next node, and gives such a stream itself when there is none.
pub(crate) fn come_later(
    connect: &ConnectRequest,
    config: &SseConfig,
    mut reason: CloseReason,
) -> Response<SseBody> {
    let retry = config.spread_retry();
    let delay = *reason.reconnect_after.get_or_insert(retry);
    if connect.headers.get(&BY_STATUS).is_some_and(|value| value == "status") {
        let seconds = HeaderValue::from(delay.as_secs_f64().ceil() as u64);
        let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        return response;
    }
    closing_response(wants_envelope(connect), retry, &reason)
}

pub(crate) fn status(status: StatusCode) -> Response<SseBody> {
    text(status, "")
}

pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<SseBody> {
    let mut response = Response::new(SseBody::text(text));
    *response.status_mut() = status;
    if !text.is_empty() {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    response
}

impl SseConfig {
    /// A time between `retry` and twice that.
    pub(crate) fn spread_retry(&self) -> Duration {
        let part = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        self.retry.mul_f64(1.0 + part)
    }
}

/// How long a browser asks no more before each POST; without it 5 s.
const PREFLIGHT_SECONDS: u32 = 600;

/// The header by which a proxy asks to be refused by a status.
const BY_STATUS: HeaderName = HeaderName::from_static("tidings-refusal");
