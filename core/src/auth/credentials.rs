//! What a client says of itself when it connects, read from header, cookie and query.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use http::{Extensions, HeaderMap, HeaderName, Uri, header};

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
    /// The first token found, what a page says before what its browser adds: `Authorization: Bearer`, the
    /// WebSocket subprotocol `tidings.token.<token>`, `?token=`, the cookie.
    ///
    /// An empty one counts as none, and so does an `Authorization` of another scheme. The first that is there is the
    /// only one: when it is no good, those after it are not tried.
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
    let query = || parameters(uri).filter(|(name, _)| name == "token");
    bearer(headers)
        .or_else(|| subprotocol(headers))
        .or_else(|| query().find_map(|(_, value)| Token::new(value)))
        .or_else(|| from_cookie(headers, cookie))
}

/// RFC 6750, section 2.1; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<Token> {
    texts(headers, &header::AUTHORIZATION).find_map(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Token::new(token.trim())).flatten()
    })
}

/// What a page offers by `new WebSocket(url, ["tidings.v1.json", "tidings.token." + token])`.
fn subprotocol(headers: &HeaderMap) -> Option<Token> {
    texts(headers, &header::SEC_WEBSOCKET_PROTOCOL).find_map(|offers| {
        offers.split(',').find_map(|offer| Token::new(offer.trim().strip_prefix(TOKEN_PROTOCOL)?))
    })
}

/// RFC 6265, section 4.2.1: pairs divided by semicolons, values perhaps in quotes.
fn from_cookie(headers: &HeaderMap, cookie: &str) -> Option<Token> {
    texts(headers, &header::COOKIE).find_map(|line| {
        line.split(';').filter_map(|pair| pair.split_once('=')).find_map(|(name, value)| {
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            (name.trim() == cookie).then(|| Token::new(bare)).flatten()
        })
    })
}

/// The lines of a header. One with bytes that are no text is there all the same: it must not hide a token beside them,
/// nor give way to the next credential.
fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Cow<'a, str>> {
    headers.get_all(name).into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()))
}

fn parameters(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

/// What a subprotocol begins with that is a token. It is never the one that is chosen.
const TOKEN_PROTOCOL: &str = "tidings.token.";

#[cfg(test)]
mod tests {
    use super::*;

    fn token(build: impl Fn(http::request::Builder) -> http::request::Builder) -> Option<String> {
        let request = build(http::Request::builder()).body(()).expect("a request");
        ConnectRequest::read(&request, "wsToken").token.map(|t| t.expose().to_owned())
    }

    /// Each place where a token may be, in the order in which they count.
    const PLACES: [(&str, &str); 4] = [
        ("authorization", "Bearer header"),
        ("sec-websocket-protocol", "tidings.v1.json, tidings.token.protocol"),
        ("query", "token=query"),
        ("cookie", "a=b; wsToken=\"cookie\""),
    ];

    fn found(places: &[(&str, &str)]) -> Option<String> {
        token(|mut request| {
            for (name, value) in places {
                request = match *name {
                    "query" => request.uri(format!("/ws?x=1&{value}")),
                    name => request.header(name, *value),
                };
            }
            request
        })
    }

    #[test]
    fn what_a_page_says_goes_before_what_its_browser_adds() {
        for (place, first) in ["header", "protocol", "query", "cookie"].iter().enumerate() {
            assert_eq!(found(&PLACES[place..]).as_deref(), Some(*first));
        }
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("query", "token=a%2Bb")]).as_deref(), Some("a+b"));
        let two_lines =
            [("sec-websocket-protocol", "chat"), ("sec-websocket-protocol", "tidings.token.a.b.c")];
        assert_eq!(found(&two_lines).as_deref(), Some("a.b.c"));
    }

    #[test]
    fn what_is_empty_or_of_another_kind_is_no_token() {
        let none = [
            ("authorization", "Basic YTpi"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer  "),
            ("authorization", "Bearerheader x"),
            ("sec-websocket-protocol", "tidings.v1.json"),
            ("sec-websocket-protocol", "tidings.token., tidings.tokenx, xtidings.token.x"),
            ("query", "token=&mytoken=x"),
            ("cookie", "wsToken=; other=x; xwsToken=y"),
        ];
        for one in none {
            assert_eq!(found(&[one]), None, "{one:?}");
            // The next place is looked at.
            let after = PLACES.iter().filter(|(place, _)| *place == "cookie" && one.0 != "cookie");
            let both: Vec<_> = std::iter::once(one).chain(after.copied()).collect();
            assert_eq!(found(&both).is_some(), both.len() == 2, "{one:?}");
        }
    }

    #[test]
    fn what_is_there_and_no_good_hides_what_comes_after_it() {
        for (name, value) in [
            ("authorization", "bearer two words"),
            ("authorization", "Bearer \u{e4}"),
            ("sec-websocket-protocol", "tidings.token.no/good="),
            ("query", "token=%ff"),
        ] {
            let first = found(&[(name, value), PLACES[3]]).expect("a token");
            assert_ne!(first, "cookie", "{value}");
        }
        // Another application's cookie hides nothing.
        assert_eq!(
            found(&[("cookie", "name=J\u{e4}n; wsToken=cookie")]).as_deref(),
            Some("cookie")
        );
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
            .header("sec-websocket-protocol", "tidings.v1.json, tidings.token.SECRET")
            .body(())
            .expect("a request");
        let request = ConnectRequest::read(&request, "wsToken");
        assert!(request.token.is_some() && !format!("{request:?}").contains("SECRET"));
        assert_eq!(redact_query("/ws?token=a=b&room=x"), "/ws?token=[redacted]&room=x");
        assert_eq!(redact_query("/ws?mytoken=x"), "/ws?mytoken=x");
        assert_eq!(redact_query("/ws"), "/ws");
    }
}
