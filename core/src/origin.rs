//! Which pages of browsers may connect (RFC 6454).

use http::{HeaderMap, HeaderName, Request, header};

/// Whether a request may come from where it comes from: its `Origin` is its own host, or is among `allowed`, each
/// written as a browser does, `https://app.example`. Else a page of anyone could connect with the user's cookies.
///
/// A request without `Origin` comes from no page of another site, and passes.
///
/// ```
/// use tidings_core::origin_passes;
///
/// let request = http::Request::get("/events").header("host", "app.example");
/// let request = request.header("origin", "https://evil.example").body(())?;
/// assert!(!origin_passes(&request, &[]));
/// assert!(origin_passes(&request, &["https://evil.example".to_owned()]));
/// # Ok::<_, http::Error>(())
/// ```
pub fn origin_passes<B>(request: &Request<B>, allowed: &[String]) -> bool {
    let headers = request.headers();
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let Some(origin) = only(headers, &header::ORIGIN) else { return false };
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(headers, &header::HOST),
    };
    let bare = |host: &str| host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
    host.is_some_and(|host| !host.is_empty() && bare(host) == bare(authority))
}

/// The text of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| std::str::from_utf8(value.as_bytes()).ok()).flatten()
}
