//! A JWKS behind a URL: a real server on a real socket, that counts and misbehaves.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tidings_core::AuthError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::signature::Algorithm::{ES256, EdDSA};
use crate::{HttpSource, Jwks, JwksConfig, JwtAuthenticator, JwtConfig, KeySource};

/// Answers each request with what it was told last, and counts.
#[derive(Clone)]
struct Provider(Arc<Script>);

struct Script {
    port: u16,
    requests: AtomicUsize,
    /// What is sent, by path; `{port}` stands for its own. Without an entry it never answers.
    answers: Mutex<Vec<(String, String)>>,
}

impl Provider {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (requests, answers) = (AtomicUsize::default(), Mutex::default());
        let provider = Self(Arc::new(Script { port, requests, answers }));
        let this = provider.clone();
        crate::spawn::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (this, tls) = (this.clone(), tls.clone());
                crate::spawn::spawn(async move {
                    match tls {
                        None => this.talk(socket).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => this.talk(socket).await,
                            Err(_) => Some(()),
                        },
                    }
                });
            }
        });
        provider
    }

    async fn talk(&self, mut socket: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        self.0.requests.fetch_add(1, SeqCst);
        let head = String::from_utf8(head).ok()?;
        let path = head.split(' ').nth(1)?;
        let answer =
            self.0.answers.lock().expect("a lock").iter().find(|(p, _)| p == path).cloned();
        let Some((_, answer)) = answer else { return std::future::pending().await };
        socket
            .write_all(answer.replace("{port}", &self.0.port.to_string()).as_bytes())
            .await
            .ok()?;
        socket.shutdown().await.ok()
    }

    fn says(&self, path: &str, answer: String) {
        let mut answers = self.0.answers.lock().expect("a lock");
        answers.retain(|(p, _)| p != path);
        answers.push((path.to_owned(), answer));
    }

    fn has(&self, keys: &[Value], header: &str) {
        self.says("/jwks", ok(&json!({ "keys": keys }).to_string(), header));
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.0.port)
    }

    fn requests(&self) -> usize {
        self.0.requests.load(SeqCst)
    }

    fn source(&self) -> HttpSource {
        HttpSource::new(&self.url("/jwks")).expect("a URL on loopback")
    }

    fn authenticator(&self) -> JwtAuthenticator {
        let jwks = Jwks::new(self.source(), JwksConfig::default());
        JwtAuthenticator::rotating(jwks, JwtConfig::default())
    }

    /// Why nothing could be read.
    async fn failure(&self) -> String {
        let fetched = tokio::time::timeout(Duration::from_secs(30), async {
            self.source().fetch().await.expect_err("nothing good was served").to_string()
        });
        fetched.await.expect("an answer in time")
    }
}

fn ok(body: &str, header: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{header}\r\n{body}", body.len())
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn unknown_keys_in_a_thunder_make_one_request() {
    let provider = Provider::start().await;
    provider.has(&[jwk("ed", "one")], "");
    let (who, now) = (provider.authenticator(), at(NOW));
    assert!(who.identify_at(&token("ed", EdDSA, Some("one")), now).await.is_ok());
    assert_eq!(provider.requests(), 1);
    provider.has(&[jwk("ed", "one"), jwk("p256", "two")], "");
    let then = later(now, 30);
    let thunder: Vec<_> = (0..100)
        .map(|n| {
            let token = match n % 2 {
                0 => token("p256", ES256, Some("two")),
                _ => token("ed", EdDSA, Some(&format!("no such key {n}"))),
            };
            let who = who.clone();
            crate::spawn::spawn(async move { who.identify_at(&token, then).await.is_ok() })
        })
        .collect();
    for (n, one) in thunder.into_iter().enumerate() {
        assert_eq!(one.await.expect("no panic"), n % 2 == 0, "token {n}");
    }
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn errors_keep_the_old_keys() {
    let provider = Provider::start().await;
    provider.has(&[jwk("ed", "one")], "");
    let (who, now) = (provider.authenticator(), at(NOW));
    let good = token("ed", EdDSA, Some("one"));
    assert!(who.identify_at(&good, now).await.is_ok());
    let failures = [
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        "no HTTP at all\r\n\r\n".to_owned(),
        // Cut off in the middle.
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"keys\":[".to_owned(),
        ok("<html>Sign in</html>", ""),
        ok(r#"{"keys":[]}"#, ""),
    ];
    for (n, failure) in failures.into_iter().enumerate() {
        provider.says("/jwks", failure);
        let then = Now { unix: NOW, ..later(now, 600 + 30 * n as u64) };
        assert!(who.identify_at(&good, then).await.is_ok(), "failure {n}");
        let unknown = who.identify_at(&token("p256", ES256, Some("two")), then).await;
        assert!(matches!(unknown, Err(AuthError::Unavailable(_))), "failure {n}: {unknown:?}");
        assert_eq!(provider.requests(), 2 + n, "failure {n}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused_whether_it_says_so_or_not() {
    let provider = Provider::start().await;
    let long = " ".repeat(256 * 1024 + 1);
    provider.says("/jwks", ok(&long, ""));
    assert!(provider.failure().await.contains("longer than"));
    let unsaid = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{long}");
    provider.says("/jwks", unsaid);
    assert!(provider.failure().await.contains("longer than"));
    provider.says("/jwks", ok(&long[1..], ""));
    assert_eq!(provider.source().fetch().await.expect("just short enough").text.len(), 256 * 1024);
    let many: Vec<_> = (0..65).map(|n| jwk("ed", &n.to_string())).collect();
    provider.has(&many, "");
    let (who, good) = (provider.authenticator(), token("ed", EdDSA, Some("1")));
    let told = who.identify_at(&good, at(NOW)).await;
    assert!(matches!(told, Err(AuthError::Unavailable(_))), "{told:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let provider = Provider::start().await;
    let fetch_timeout = Duration::from_millis(50);
    let config = JwksConfig { fetch_timeout, ..JwksConfig::default() };
    let who =
        JwtAuthenticator::rotating(Jwks::new(provider.source(), config), JwtConfig::default());
    let told = who.identify_at(&token("ed", EdDSA, Some("one")), at(NOW)).await;
    assert!(matches!(told, Err(AuthError::Unavailable(_))), "{told:?}");
    // One that begins and does not end is no better.
    provider.says("/jwks", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned());
    assert!(!provider.failure().await.is_empty());
}

#[tokio::test]
async fn redirects_stay_at_home() {
    let provider = Provider::start().await;
    let elsewhere = Provider::start().await;
    elsewhere.has(&[jwk("ed", "one")], "");
    for to in [
        elsewhere.url("/jwks"),
        "http://localhost:{port}/moved".to_owned(),
        "https://127.0.0.1:{port}/moved".to_owned(),
        "//127.0.0.2:{port}/moved".to_owned(),
        "moved".to_owned(),
        String::new(),
    ] {
        provider.says("/jwks", redirect(&to));
        assert!(provider.failure().await.contains("redirect"), "{to}");
    }
    assert_eq!(elsewhere.requests(), 0);
    provider.says("/jwks", redirect("/jwks"));
    assert!(provider.failure().await.contains("more than 3 redirects"));
    assert_eq!(provider.requests(), 6 + 4);
    provider.says("/jwks", redirect("/moved"));
    provider.says("/moved", redirect("http://127.0.0.1:{port}/again?x=1"));
    provider.says("/again?x=1", ok("{}", ""));
    assert_eq!(provider.source().fetch().await.expect("at home").text, "{}");
}

#[tokio::test]
async fn it_says_how_long_keys_are_fresh() {
    let provider = Provider::start().await;
    for (header, seconds) in [
        ("", None),
        ("Cache-Control: max-age=900\r\n", Some(900)),
        ("Cache-Control: public, Max-Age=\"15\", must-revalidate\r\n", Some(15)),
        ("Cache-Control: public\r\nCache-Control: max-age=7\r\n", Some(7)),
        ("Cache-Control: max-age=900, no-store\r\n", Some(0)),
        ("Cache-Control: no-cache\r\n", Some(0)),
        ("Cache-Control: max-age=soon, s-maxage=5\r\n", None),
    ] {
        provider.has(&[], header);
        let document = provider.source().fetch().await.expect("a document");
        assert_eq!(document.fresh_for, seconds.map(Duration::from_secs), "{header}");
    }
}

#[test]
fn a_url_is_https_or_on_loopback_and_holds_no_password() {
    for url in [
        "https://login.example/jwks",
        "https://login.example:8443/jwks?tenant=1",
        "http://127.0.0.1:1/jwks",
        "http://127.9.9.9/jwks",
        "http://[::1]:1/jwks",
        "http://localhost/jwks",
    ] {
        assert!(HttpSource::new(url).is_ok(), "{url}");
    }
    for url in [
        "http://login.example/jwks",
        "http://localhost.example/jwks",
        "http://127.0.0.1.example/jwks",
        "http://0.0.0.0/jwks",
        "ftp://login.example/jwks",
        "https://user:password@login.example/jwks",
        "/jwks",
        "login.example",
        "",
    ] {
        assert!(HttpSource::new(url).is_err(), "{url}");
    }
    for (url, is_taken) in [
        ("http://idp.svc/jwks", true),
        ("https://login.example/jwks", true),
        ("ftp://idp.svc/jwks", false),
        ("http://user:password@idp.svc/jwks", false),
    ] {
        assert_eq!(HttpSource::over_http(url).is_ok(), is_taken, "{url}");
    }
    let error = HttpSource::with_roots("https://login.example", b"no PEM").expect_err("no roots");
    assert!(error.to_string().contains("has none"), "{error}");
}

#[tokio::test]
async fn tls_is_checked() {
    let issued =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|c| {
            c.with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key)
        })
        .expect("a server's configuration");
    let provider = Provider::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await;
    provider.has(&[jwk("ed", "one")], "");
    let pem = issued.cert.pem();
    let url = format!("https://localhost:{}/jwks", provider.0.port);
    let trusting = HttpSource::with_roots(&url, pem.as_bytes()).expect("roots");
    let jwks = Jwks::new(trusting, JwksConfig::default());
    let who = JwtAuthenticator::rotating(jwks, JwtConfig::default());
    assert!(who.identify_at(&token("ed", EdDSA, Some("one")), at(NOW)).await.is_ok());
    assert_eq!(provider.requests(), 1);

    let wary = HttpSource::new(&url).expect("a URL");
    assert!(
        wary.fetch().await.expect_err("nobody vouches for it").to_string().contains("ertificate")
    );
    let other_name = format!("https://127.0.0.1:{}/jwks", provider.0.port);
    let misled = HttpSource::with_roots(&other_name, pem.as_bytes()).expect("roots");
    assert!(misled.fetch().await.is_err());
    assert_eq!(provider.requests(), 1);
}
