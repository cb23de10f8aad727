//! Which pages of browsers may connect (RFC 6454).

use std::fmt;
use std::str::FromStr;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, header};

/// Where a page comes from: scheme, host and port.
///
/// ```
/// use tidings_core::Origin;
///
/// let origin = Origin::new("https://app.example")?;
/// assert_eq!(origin, Origin::new("https://APP.example:443")?);
/// assert!(Origin::new("app.example").is_err());
/// # Ok::<_, tidings_core::OriginError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    /// None for the scheme's own.
    port: Option<u16>,
}

impl Origin {
    /// Reads an origin as a browser writes it: `https://app.example`, `http://localhost:5173`, `capacitor://localhost`.
    /// The case does not matter, nor whether the scheme's own port is written.
    ///
    /// # Errors
    /// [`OriginError`] for anything else: without a scheme, with a path, if only a slash, with `*`, or `null`.
    pub fn new(text: &str) -> Result<Self, OriginError> {
        Self::read(text).ok_or_else(|| OriginError(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) || authority.contains(['@', '*']) {
            return None;
        }
        let authority: Authority = authority.parse().ok()?;
        let host = authority.host();
        // What follows the host is nothing, or a port.
        let port = match authority.as_str().len() - host.len() {
            0 => None,
            _ => Some(authority.port_u16()?),
        };
        let scheme = scheme.to_ascii_lowercase();
        let own = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let host = Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty())?;
        Some(Self { scheme, host, port: port.filter(|&port| Some(port) != own) })
    }

    /// Whether a page of this origin comes from the host that it asks.
    fn is_of(&self, host: &str) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
            && Self::read(&format!("{}://{host}", self.scheme)).is_some_and(|own| own == *self)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::new(text)
    }
}

/// A text that is no origin. Write it as a browser does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an origin: write scheme and host, and the port where it is not the scheme's own, without a path and without `*`, as in https://app.example"
)]
pub struct OriginError(String);

/// Checks that a request comes from where it may: from no page, from a page of the host that it asks, or from one of
/// the origins in `allowed`. Else a page of anyone could connect with the user's cookies.
///
/// A request without `Origin` is not a script's of another origin. It may be an image's or a link's, of which a browser
/// says `Sec-Fetch-Site`: it passes when that is `same-origin`, `none` or absent, as of what is no browser.
///
/// ```
/// use tidings_core::{Origin, check_origin};
///
/// let request = http::Request::get("/events").header("host", "app.example");
/// let request = request.header("origin", "https://page.example").body(())?;
/// assert!(check_origin(&request, &[]).is_err());
/// assert!(check_origin(&request, &[Origin::new("https://page.example")?]).is_ok());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ForeignOrigin`] for the log; the client is told 403. The transports leave it among their answer's extensions.
pub fn check_origin<B>(request: &Request<B>, allowed: &[Origin]) -> Result<(), ForeignOrigin> {
    let headers = request.headers();
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => only(headers, &header::HOST).unwrap_or_default(),
    };
    let name = match headers.contains_key(header::ORIGIN) {
        true => header::ORIGIN,
        false => SEC_FETCH_SITE,
    };
    if !headers.contains_key(&name) {
        return Ok(());
    }
    let sent = only(headers, &name).unwrap_or_default();
    let passes = match Origin::read(sent) {
        _ if name == SEC_FETCH_SITE => matches!(sent, "same-origin" | "none"),
        Some(origin) => origin.is_of(host) || allowed.contains(&origin),
        None => false,
    };
    if passes {
        return Ok(());
    }
    let shown = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
    let (sent, host) = (shown(sent), shown(host));
    Err(ForeignOrigin(format!("{name} {sent:?} is not of the host {host:?} nor among {allowed:?}")))
}

/// Why a request comes from where it may not: what was compared with what, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ForeignOrigin(String);

/// The text of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| std::str::from_utf8(value.as_bytes()).ok()).flatten()
}

/// Fetch Metadata Request Headers, section 2.3.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// So many characters of a header are shown.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_a_browser_writes_it() {
        for (text, shown) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("moz-extension://0b5e", "moz-extension://0b5e"),
        ] {
            assert_eq!(Origin::new(text).map(|origin| origin.to_string()), Ok(shown.to_owned()));
        }
        for text in [
            "*",
            "",
            "null",
            "app.example",
            "app.example:443",
            "//app.example",
            "://app.example",
            "https://",
            "https:///",
            "https://app.example/",
            "https://app.example/chat",
            "https://app.example?x",
            "https://app.example:",
            "https://app.example:port",
            "https://app.example:99999",
            "https://*.example",
            "https://ada@app.example",
            "https://bücher.example",
            " https://app.example",
            "https://app.example https://b.example",
            "https://app.example\r\n",
        ] {
            let told = Origin::new(text).expect_err(text).to_string();
            assert!(told.contains("https://app.example") && !told.contains('\n'), "{told}");
        }
    }

    fn check(headers: &[(&str, &str)], allowed: &[&str]) -> Result<(), ForeignOrigin> {
        let mut request = Request::get("/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let allowed: Vec<_> =
            allowed.iter().map(|text| Origin::new(text).expect("an origin")).collect();
        check_origin(&request.body(()).expect("a request"), &allowed)
    }

    #[test]
    fn the_port_of_the_scheme_is_the_same_written_or_not() {
        let ask = |origin, host, allowed: &[&str]| {
            check(&[("origin", origin), ("host", host)], allowed).is_ok()
        };
        for origin in ["https://page.example", "https://page.example:443"] {
            for allowed in ["https://page.example", "https://page.example:443"] {
                assert!(ask(origin, "app.example", &[allowed]));
            }
            assert!(!ask(
                origin,
                "app.example",
                &["http://page.example", "https://page.example:80"]
            ));
            assert!(ask(origin, "page.example", &[]));
            assert!(ask(origin, "page.example:443", &[]));
            assert!(!ask(origin, "page.example:80", &[]));
        }
    }

    #[test]
    fn a_refusal_says_what_was_compared_with_what() {
        let headers = [("origin", "https://evil.example"), ("host", "app.example:8080")];
        let told = check(&headers, &["https://page.example"]).expect_err("foreign").to_string();
        assert_eq!(
            told,
            r#"origin "https://evil.example" is not of the host "app.example:8080" nor among ["https://page.example"]"#
        );
        let long = format!("https://{}", "x".repeat(1000));
        assert!(check(&[("origin", &long)], &[]).expect_err("foreign").to_string().len() < 300);
        let odd =
            check(&[("origin", "\u{9b}31m"), ("host", "a\u{202e}")], &[]).expect_err("foreign");
        assert!(odd.to_string().is_ascii(), "{odd}");
    }

    #[test]
    fn what_a_page_of_another_site_has_a_browser_fetch_is_refused_without_an_origin_too() {
        let host = ("host", "app.example");
        for (site, passes) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
            ("same-origin, cross-site", false),
        ] {
            assert_eq!(check(&[host, ("sec-fetch-site", site)], &[]).is_ok(), passes, "{site}");
        }
        let twice = [host, ("sec-fetch-site", "none"), ("sec-fetch-site", "none")];
        assert!(check(&twice, &[]).is_err());
        // What is no browser says nothing, and an allowed origin may be of another site.
        assert!(check(&[host], &[]).is_ok());
        let page = ("origin", "https://page.example");
        let allowed = ["https://page.example"];
        assert!(check(&[host, page, ("sec-fetch-site", "cross-site")], &allowed).is_ok());
        assert!(check(&[host, page, ("sec-fetch-site", "same-origin")], &[]).is_err());
    }
}
