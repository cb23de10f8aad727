//! The answers to `GET /events` that are streams.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use tidings_core::CloseReason;

use crate::framing::{ENVELOPE, FRAMING, close_event};
use crate::pipe::{Pipe, SseBody};

/// `200` with the stream and the headers that keep proxies from holding it back.
pub fn stream_response(body: SseBody) -> Response<SseBody> {
    let mut response = Response::new(body);
    insert_headers(response.headers_mut());
    response
}

/// `200` with a stream that only says when to come back and why it ends; `retry:` says the later of `retry` and the
/// reason's own `reconnect_after`, since an `EventSource` keeps it for all tries to come. With `envelope` the data is the whole message, as of any event.
///
/// Any other status would end an `EventSource` for good.
pub fn closing_response(
    envelope: bool,
    retry: Duration,
    reason: &CloseReason,
) -> Response<SseBody> {
    let framing = if envelope { ENVELOPE } else { FRAMING };
    let pipe = Pipe::default();
    pipe.close(close_event(framing, reason));
    stream_response(SseBody::new(retry.max(reason.reconnect_after.unwrap_or_default()), pipe))
}

fn insert_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx and its kin buffer an answer unless they are told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}
