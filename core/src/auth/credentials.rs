//! What a client says of itself when it connects, read from header, cookie and query.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use http::{Extensions, HeaderMap, Uri, header};

/// A request to connect, as an authenticator sees it. Its `Debug` shows no credentials.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The requested path and query.
    pub uri: Uri,
    /// The headers of the request; empty on a transport that has none.
    pub headers: HeaderMap,
    /// What earlier layers found out, such as the user of the application's own session.
    pub extensions: Extensions,
    /// Where the request came from, when whoever accepted its connection says so: [`read`](Self::read) takes a
    /// [`SocketAddr`] among the request's extensions. Behind a proxy it is the proxy's.
    pub peer: Option<SocketAddr>,
    /// The first token found: `Authorization: Bearer`, then the cookie, then `?token=`.
    pub token: Option<Token>,
}

impl ConnectRequest {
    /// Reads a request; `cookie` names the cookie that may hold the token.
    pub fn read<B>(request: &http::Request<B>, cookie: &str) -> Self {
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        let token = find_token(&headers, &uri, cookie);
        let extensions = request.extensions().clone();
        Self { uri, headers, peer: extensions.get().copied(), extensions, token }
    }

    /// The same request with another token, as when a client renews it.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::new(token);
        self
    }

    /// The values of a parameter of the query, in order.
    pub fn query<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> + 'a {
        parameters(&self.uri).filter(move |(key, _)| key == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("uri", &redact_query(&self.uri.to_string()))
            .field("peer", &self.peer)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// A secret that a client presents. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, unless it is empty.
    pub fn new(token: impl Into<String>) -> Option<Self> {
        Some(token.into()).filter(|t| !t.is_empty()).map(Self)
    }

    /// The secret itself. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A path and query for a log: the value of every `token` parameter is replaced.
pub fn redact_query(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let shown: Vec<_> = query.split('&').map(redact_parameter).collect();
    format!("{path}?{}", shown.join("&"))
}

fn redact_parameter(parameter: &str) -> Cow<'_, str> {
    // The name may be spelled with percent escapes; what the server reads as `token` is hidden in any spelling.
    let is_token = form_urlencoded::parse(parameter.as_bytes()).any(|(name, _)| name == "token");
    match parameter.split_once('=') {
        Some((name, _)) if is_token => Cow::Owned(format!("{name}=[redacted]")),
        _ => Cow::Borrowed(parameter),
    }
}

fn find_token(headers: &HeaderMap, uri: &Uri, cookie: &str) -> Option<Token> {
    bearer(headers).or_else(|| from_cookie(headers, cookie)).or_else(|| {
        let values = parameters(uri).filter(|(name, _)| name == "token");
        values.map(|(_, value)| value.into_owned()).find_map(Token::new)
    })
}

/// RFC 6750, section 2.1; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<Token> {
    headers.get_all(header::AUTHORIZATION).iter().find_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Token::new(token.trim())).flatten()
    })
}

/// RFC 6265, section 4.2.1: pairs divided by semicolons, values perhaps in quotes.
fn from_cookie(headers: &HeaderMap, cookie: &str) -> Option<Token> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| {
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        (name.trim() == cookie).then(|| Token::new(bare)).flatten()
    })
}

fn parameters(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(build: impl Fn(http::request::Builder) -> http::request::Builder) -> Option<String> {
        let request = build(http::Request::builder()).body(()).expect("a request");
        ConnectRequest::read(&request, "wsToken").token.map(|t| t.expose().to_owned())
    }

    #[test]
    fn the_first_token_wins_header_then_cookie_then_query() {
        let all = token(|r| {
            r.uri("/ws?token=query")
                .header("cookie", "wsToken=cookie")
                .header("authorization", "Bearer header")
        });
        assert_eq!(all.as_deref(), Some("header"));
        let two = token(|r| r.uri("/ws?token=query").header("cookie", "a=b; wsToken=\"cookie\""));
        assert_eq!(two.as_deref(), Some("cookie"));
        let one = token(|r| r.uri("/ws?x=1&token=a%2Bb").header("authorization", "Basic abc"));
        assert_eq!(one.as_deref(), Some("a+b"));
    }

    #[test]
    fn an_empty_token_is_none() {
        assert_eq!(token(|r| r.uri("/ws?token=").header("authorization", "Bearer  ")), None);
        assert_eq!(token(|r| r.uri("/ws").header("cookie", "wsToken=; other=x")), None);
        assert_eq!(token(|r| r.uri("/ws").header("cookie", "xwsToken=y")), None);
    }

    #[test]
    fn the_peer_is_among_the_extensions() {
        let mut request = http::Request::new(());
        assert_eq!(ConnectRequest::read(&request, "wsToken").peer, None);
        let peer = SocketAddr::from(([127, 0, 0, 1], 7));
        request.extensions_mut().insert(peer);
        assert_eq!(ConnectRequest::read(&request, "wsToken").peer, Some(peer));
    }

    #[test]
    fn a_token_is_shown_in_no_log() {
        let request = http::Request::builder()
            .uri("/ws?room=a&token=SECRET&%74oken=SECRET")
            .body(())
            .expect("a request");
        let request = ConnectRequest::read(&request, "wsToken");
        assert!(request.token.is_some() && !format!("{request:?}").contains("SECRET"));
        assert_eq!(redact_query("/ws?token=a=b&room=x"), "/ws?token=[redacted]&room=x");
        assert_eq!(redact_query("/ws?mytoken=x"), "/ws?mytoken=x");
        assert_eq!(redact_query("/ws"), "/ws");
    }
}
