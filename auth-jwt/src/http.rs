//! A JWKS document behind a URL. It keeps nothing: [`Jwks`](crate::Jwks) says when it is read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::source::{Document, KeySource, MAX_DOCUMENT_BYTES, SourceError};

/// A JWKS document that an identity provider publishes.
///
/// The URL is `https`, or `http` on loopback; [`over_http`](HttpSource::over_http) takes other hosts. A redirect is followed at most three times and only to the
/// same scheme, host and port. The answer must be a 200 of at most 256 KiB; its `Cache-Control: max-age`
/// tells [`Jwks`](crate::Jwks) when to read again.
///
/// ```
/// use tidings_auth_jwt::{HttpSource, Jwks, JwksConfig, JwtAuthenticator, JwtConfig};
///
/// let source = HttpSource::new("https://login.example/.well-known/jwks.json")?;
/// let who = JwtAuthenticator::rotating(Jwks::new(source, JwksConfig::default()), JwtConfig::default());
/// # Ok::<(), tidings_auth_jwt::SourceError>(())
/// ```
pub struct HttpSource {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl HttpSource {
    /// The document at `url`, whose server is trusted by the public certificate authorities.
    ///
    /// # Errors
    /// When the URL is none, or neither `https` nor on loopback.
    pub fn new(url: &str) -> Result<Self, SourceError> {
        Self::with_public_roots(read_url(url, false)?)
    }

    /// The same, but `http` on any host too, as inside a cluster. Whoever can change what that network carries can
    /// log in as anybody.
    ///
    /// # Errors
    /// When the URL is none, or neither `https` nor `http`.
    pub fn over_http(url: &str) -> Result<Self, SourceError> {
        Self::with_public_roots(read_url(url, true)?)
    }

    fn with_public_roots(url: Uri) -> Result<Self, SourceError> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring::default_provider())
            .map_err(|e| SourceError(format!("no TLS: {e}")))?;
        Ok(Self::over(url, connector.https_or_http().enable_http1().build()))
    }

    /// The same, but trusting only the certificates in a PEM: for a provider of one's own.
    ///
    /// # Errors
    /// As [`new`](HttpSource::new), and when there is no certificate in the PEM.
    pub fn with_roots(url: &str, pem: &[u8]) -> Result<Self, SourceError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let added = certificate.map(|der| roots.add(der)).map_err(|e| e.to_string());
            added.and_then(|r| r.map_err(|e| e.to_string())).map_err(|e| not_roots(&e))?;
        }
        if roots.is_empty() {
            return Err(not_roots("it has none"));
        }
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| SourceError(format!("no TLS: {e}")))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config);
        Ok(Self::over(read_url(url, false)?, connector.https_or_http().enable_http1().build()))
    }

    fn over(url: Uri, connector: HttpsConnector<HttpConnector>) -> Self {
        // Reads are minutes apart: a connection kept for the next one would only be found dead.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { url, client }
    }

    async fn read(&self) -> Result<Document, String> {
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.client.get(url.clone()).await.map_err(|e| chain(&e))?;
            if answer.status() == StatusCode::OK {
                let fresh_for = max_age(answer.headers());
                return Ok(Document { text: body(answer).await?, fresh_for });
            }
            url = redirected(&url, answer.status(), answer.headers())?;
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }
}

#[async_trait]
impl KeySource for HttpSource {
    async fn fetch(&self) -> Result<Document, SourceError> {
        self.read().await.map_err(|why| SourceError(format!("{}: {why}", self.url)))
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpSource").field(&self.url).finish()
    }
}

fn read_url(text: &str, any_http: bool) -> Result<Uri, SourceError> {
    let wrong = |why: &str| SourceError(format!("a JWKS URL {why}"));
    let url: Uri = text.parse().map_err(|e| wrong(&format!("must be one: {e}")))?;
    let authority = url.authority().ok_or_else(|| wrong("names a host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("holds no password"));
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if any_http || is_loopback(authority.host()) => Ok(url),
        _ => Err(wrong("must be https, or http on loopback")),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Where an answer that is no 200 sends us, if we may go there.
fn redirected(from: &Uri, status: StatusCode, headers: &HeaderMap) -> Result<Uri, String> {
    if !status.is_redirection() {
        return Err(format!("status {status}"));
    }
    let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to: Uri = to.and_then(|to| to.parse().ok()).ok_or("a redirect to nowhere")?;
    let Some(authority) = to.authority() else {
        // Two slashes begin another host (RFC 3986, section 4.2).
        let own =
            |path: &&PathAndQuery| path.path().starts_with('/') && !path.path().starts_with("//");
        let path = to.path_and_query().filter(own).ok_or("a redirect that is no path")?;
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(path.clone());
        return Uri::from_parts(parts).map_err(|e| e.to_string());
    };
    if to.scheme() != from.scheme() || Some(authority) != from.authority() {
        return Err(format!("a redirect elsewhere, to {authority}"));
    }
    Ok(to)
}

/// `max-age` of `Cache-Control` (RFC 9111, section 5.2.2.1); nothing for one that forbids keeping.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let mut age = None;
    for directive in values.flat_map(|value| value.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") && age.is_none() {
            age = value.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

async fn body<B>(answer: Response<B>) -> Result<Bytes, String>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES);
    let collected = body.collect().await.map_err(|e| {
        if e.is::<LengthLimitError>() {
            format!("longer than {MAX_DOCUMENT_BYTES} bytes")
        } else {
            chain(&*e)
        }
    })?;
    Ok(collected.to_bytes())
}

/// An error with what caused it: "client error (Connect)" alone tells nobody anything.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn not_roots(why: &str) -> SourceError {
    SourceError(format!("not a PEM of root certificates: {why}"))
}

const MAX_REDIRECTS: usize = 3;
