//! A whole endpoint: from the request to a stream that a hub serves, and the way back for what its client says.
#![expect(clippy::disallowed_methods, reason = "a connection is a task of its own")]

use std::error::Error;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tidings_core::{
    AttachError, AuthError, ConnectError, ConnectRequest, Hub, Identity, SubmitError,
};
use tokio::time::{sleep, timeout};

use crate::answer::{come_later, cors, foreign, preflight, status, text, wants_envelope};
use crate::connection::info;
use crate::{ENVELOPE, FRAMING, Hangup, SseBody, SseConfig, SseTransport, stream_response};

/// Answers all requests to the path of event streams, `/events` in the protocol: `GET` with a stream that is served in a
/// task of its own, and the `OPTIONS` of browsers.
///
/// | answer | when |
/// |---|---|
/// | 200, the stream | credentials are good; `room=`, `cursor=`, `presence=1` and `envelope=1` of the query count |
/// | 200, `retry:` and the event `close` | 1012 while the node drains, 1013 when it is full or cannot decide now, as when some of too many connections are of a node that is not heard from |
/// | 503 with `Retry-After` | the same, for a proxy that asks with `Tidings-Refusal: status` |
/// | 401 | credentials are missing or no good |
/// | 403 | the `Origin` may not connect; its [`ForeignOrigin`](tidings_core::ForeignOrigin) is among the extensions |
/// | 405 | another method |
/// | 429 | the user has too many connections |
///
/// Any status but 200 ends an `EventSource` for good, so it is for what does not pass by itself. An origin that may
/// connect is told so in every answer (CORS), where its pages may read `Retry-After`; a preflight holds for 600 s.
pub async fn serve<B>(hub: &Hub, request: Request<B>, config: &SseConfig) -> Response<SseBody> {
    let request = request.map(drop);
    let cors = match cors(&request, config) {
        Ok(cors) => cors,
        Err(why) => return foreign(why),
    };
    let mut response = match *request.method() {
        Method::GET => stream(hub, &request, config).await,
        Method::OPTIONS => preflight(),
        _ => not_allowed("GET, OPTIONS"),
    };
    // A client that is refused goes away, and its socket is wanted for others.
    if request.method() == Method::GET && request.version() <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().extend(cors);
    response
}

/// Answers all requests to the path of one client's stream, `/events/<clientId>` in the protocol: `POST` takes one
/// message of it, whichever node has the stream, and the answer to the message arrives there.
///
/// | answer | when |
/// |---|---|
/// | 202 | the message was taken |
/// | 400 | it cannot be read, or its handler calls it invalid |
/// | 401, 403 | credentials are missing or no good; the `Origin` may not connect, or the stream is another user's |
/// | 404 | no node has such a stream, or another tenant's |
/// | 405 | another method |
/// | 408 | the body did not come within `message_deadline` |
/// | 413 | it is longer than `message_bytes` |
/// | 429 | the client sends too many messages |
/// | 503 | it cannot be decided now; the message may have been taken |
pub async fn submit<B>(
    hub: &Hub,
    client: &str,
    request: Request<B>,
    config: &SseConfig,
) -> Response<SseBody>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, ());
    let cors = match cors(&request, config) {
        Ok(cors) => cors,
        Err(why) => return foreign(why),
    };
    let mut response = match *request.method() {
        Method::POST => post(hub, client, &request, body, config).await,
        Method::OPTIONS => preflight(),
        _ => not_allowed("POST, OPTIONS"),
    };
    response.headers_mut().extend(cors);
    response
}

async fn stream(hub: &Hub, request: &Request<()>, config: &SseConfig) -> Response<SseBody> {
    let connect = ConnectRequest::read(request, &config.cookie);
    let later = |reason| come_later(&connect, config, reason);
    let admission = match hub.admit(connect.peer.map(|peer| peer.ip())) {
        Ok(admission) => admission,
        Err(reason) => return later(reason),
    };
    let envelope = wants_envelope(&connect);
    let info = info(if envelope { ENVELOPE } else { FRAMING });
    let attachment = match hub.connect(&connect, info).await {
        Ok(attachment) => attachment,
        Err(ConnectError::Auth(error @ (AuthError::Missing | AuthError::Refused(_)))) => {
            return unauthorized(&error);
        }
        Err(ConnectError::Attach(AttachError::TooMany)) => {
            return text(StatusCode::TOO_MANY_REQUESTS, "too many connections of this user\n");
        }
        Err(error) => return later(error.close_reason()),
    };
    admission.keep();
    let (transport, body) =
        SseTransport::new(envelope, config.spread_retry(), attachment.mailbox());
    let response = stream_response(body);
    let hangup = request.extensions().get::<Hangup>().cloned();
    let deadline = hub.limits().close_deadline;
    tokio::spawn(async move {
        attachment.serve(transport).await;
        let Some(hangup) = hangup else { return };
        sleep(deadline).await;
        // Who has not read the end by now reads nothing; nothing else comes by this connection.
        hangup.cut();
    });
    response
}

async fn post<B>(
    hub: &Hub,
    client: &str,
    request: &Request<()>,
    body: B,
    config: &SseConfig,
) -> Response<SseBody>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connect = ConnectRequest::read(request, &config.cookie);
    let who = match hub.authenticate(&connect).await {
        Ok(who) => who,
        Err(AuthError::Unavailable(_)) => return status(StatusCode::SERVICE_UNAVAILABLE),
        Err(error) => return unauthorized(&error),
    };
    let limits = hub.limits();
    let body = Limited::new(body, limits.message_bytes).collect();
    let message = match timeout(limits.message_deadline, body).await {
        Ok(Ok(message)) => message.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(Err(_)) => return status(StatusCode::BAD_REQUEST),
        Err(_) => return status(StatusCode::REQUEST_TIMEOUT),
    };
    status(hand_in(hub, client, &who, message).await)
}

async fn hand_in(hub: &Hub, client: &str, who: &Identity, message: Bytes) -> StatusCode {
    let Ok(client) = client.parse() else { return StatusCode::NOT_FOUND };
    match hub.submit(client, who, message).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(SubmitError::Invalid) => StatusCode::BAD_REQUEST,
        Err(SubmitError::Forbidden) => StatusCode::FORBIDDEN,
        Err(SubmitError::NotFound) => StatusCode::NOT_FOUND,
        Err(SubmitError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        Err(SubmitError::RateLimited) => StatusCode::TOO_MANY_REQUESTS,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn unauthorized(error: &AuthError) -> Response<SseBody> {
    let missing = matches!(error, AuthError::Missing);
    text(StatusCode::UNAUTHORIZED, if missing { "Unauthorized\n" } else { "Invalid token\n" })
}

fn not_allowed(allow: &'static str) -> Response<SseBody> {
    let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}
