//! The opening handshake (RFC 6455, section 4.2).

use http::header::{
    ALLOW, CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use tidings_core::check_origin;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::WsConfig;

/// The subprotocol: JSON in text frames. A client that offers none gets it unnamed. A browser that offers its token as
/// `tidings.token.<token>` must offer this beside it, since it ends a connection for which none of its offers is chosen.
pub const SUBPROTOCOL: &str = "tidings.v1.json";

/// Answers the opening handshake: 101 and what [`upgraded`](crate::upgraded) waits for, or a refusal.
///
/// Which pages may connect is told by [`check_origin`] with [`WsConfig::allowed_origins`]; the
/// [`ForeignOrigin`](tidings_core::ForeignOrigin) of a refusal is among its extensions, for a log.
///
/// # Errors
/// The refusal to send: 403 for the origin, 405 and 505 for method and version of HTTP, 426 where
/// no WebSocket or another version of it is asked for, 400 for the rest.
#[expect(clippy::result_large_err, reason = "a refusal is sent as it is, and once per connection")]
pub fn accept<B>(
    request: &mut Request<B>,
    config: &WsConfig,
) -> Result<(Response<()>, OnUpgrade), Response<String>> {
    check(request).map_err(Refusal::into_response)?;
    if let Err(foreign) = check_origin(request, &config.allowed_origins) {
        let mut response = FOREIGN.into_response();
        response.extensions_mut().insert(foreign);
        return Err(response);
    }
    let key = key(request.headers()).map_err(Refusal::into_response)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key)).map_err(|_| BAD_KEY.into_response());
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept?);
    if tokens(request.headers(), &SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == SUBPROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok((response, hyper::upgrade::on(request)))
}

fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET");
        return Err(refusal.with(&[(ALLOW, "GET")]));
    }
    if request.version() != Version::HTTP_11 {
        let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        return Err(Refusal::new(status, "a WebSocket begins with HTTP/1.1"));
    }
    let names = |header, token| tokens(headers, header).any(|t| t.eq_ignore_ascii_case(token));
    if !names(&UPGRADE, "websocket") || !names(&CONNECTION, "upgrade") {
        let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "this is for WebSockets");
        return Err(refusal.with(ASK_FOR_UPGRADE));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "the WebSocket version is 13");
        return Err(refusal.with(ASK_FOR_UPGRADE));
    }
    Ok(())
}

/// The client's key: the base64 of 16 bytes.
fn key(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let key = only(headers, &SEC_WEBSOCKET_KEY).ok_or(BAD_KEY)?;
    // 22 characters of six bits are four bits more than 16 bytes, which are zero; then two of padding.
    let [digits @ .., last, b'=', b'='] = key else { return Err(BAD_KEY) };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let whole = digits.len() == 21 && digits.iter().all(is_digit);
    if whole && matches!(last, b'A' | b'Q' | b'g' | b'w') { Ok(key) } else { Err(BAD_KEY) }
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// The members of a comma-separated header, over all of its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Why there is no WebSocket.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    text: &'static str,
    headers: &'static [(HeaderName, &'static str)],
}

impl Refusal {
    const fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text, headers: &[] }
    }

    const fn with(mut self, headers: &'static [(HeaderName, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    fn into_response(self) -> Response<String> {
        let mut response = Response::new(self.text.to_owned());
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

const FOREIGN: Refusal = Refusal::new(StatusCode::FORBIDDEN, "this origin may not connect");
const BAD_KEY: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "`Sec-WebSocket-Key` is not the base64 of 16 bytes");
const ASK_FOR_UPGRADE: &[(HeaderName, &str)] =
    &[(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_VERSION, "13")];

#[cfg(test)]
mod tests;
