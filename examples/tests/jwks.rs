//! `--jwt-jwks` with a URL: the built server and a provider on a real socket.
#![expect(clippy::disallowed_methods, reason = "a test spawns its provider")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::Ed25519KeyPair;
use serde_json::json;
use support::{Client, Server, soon, unix_now};
use tidings_examples::front::free_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Serves a set with one Ed25519 key; answers its URL and how often it was asked.
async fn provider() -> (String, Arc<AtomicUsize>) {
    provider_at("127.0.0.1:0").await
}

async fn provider_at(address: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.expect("a free port");
    let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await;
            count.fetch_add(1, SeqCst);
            let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": public_key()}]});
            let (body, length) = (set.to_string(), set.to_string().len());
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

/// The last 32 bytes of the public key's DER.
fn public_key() -> String {
    let der = der(include_str!("../../auth-jwt/src/tests/keys/ed.pub.pem"));
    URL_SAFE_NO_PAD.encode(&der[der.len() - 32..])
}

fn der(pem: &str) -> Vec<u8> {
    let digits: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(digits).expect("base64")
}

fn token(kid: &str) -> String {
    let der = der(include_str!("../../auth-jwt/src/tests/keys/ed.key"));
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("a key");
    let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
    let claims = json!({"sub": "ada", "exp": unix_now() + 60}).to_string();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

async fn close_code(server: &Server, token: &str) -> u16 {
    let query = format!("?token={token}");
    Client::upgrade(server, &query, &[]).await.expect("an upgrade").closed().await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_with_the_keys_behind_the_url() {
    let (url, asked) = provider().await;
    let server = Server::with_keys(&["--jwt-jwks", &url]);
    assert_eq!(asked.load(SeqCst), 1, "the keys are read before the server says that it runs");
    let ada = Client::open(&server, &token("one")).await;
    assert_eq!(ada.connected["payload"]["userId"], "ada");
    // Strangers with invented keys cannot make the server flood the provider.
    for n in 0..20 {
        assert_eq!(close_code(&server, &token(&format!("invented {n}"))).await, 1013);
    }
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn a_provider_that_is_away_is_not_the_clients_fault() {
    // Nobody listens on port 1.
    let server = Server::with_keys(&["--jwt-jwks", "http://127.0.0.1:1/jwks.json"]);
    assert_eq!(close_code(&server, &token("one")).await, 1013);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_once_its_keys_were_read() {
    let address = free_address().to_string();
    let server = Server::with_keys(&["--jwt-jwks", &format!("http://{address}/jwks.json")]);
    let ready = async || Server::http(server.address, "GET /readyz", "", "").await;
    let (status, why) = ready().await;
    assert!(status == 503 && why.contains("--jwt-jwks"), "{status} {why}");
    assert_eq!(Server::http(server.address, "GET /healthz", "", "").await.0, 200);
    let metrics = async || Server::http(server.admin, "GET /metrics", "", "").await.1;
    assert!(!metrics().await.contains("tidings_keys_age_seconds "));
    // Nobody has to come with a token first.
    let (_url, asked) = provider_at(&address).await;
    soon("the keys", async {
        while ready().await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(asked.load(SeqCst), 1);
    assert!(metrics().await.contains("tidings_keys_age_seconds "));
    Client::open(&server, &token("one")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_from_any_host_is_taken_where_it_is_allowed() {
    let (url, asked) = provider().await;
    // The same machine under a name that is not a loopback one.
    let url = url.replace("127.0.0.1", "0.0.0.0");
    let server = Server::with_keys(&["--jwt-jwks", &url, "--jwt-allow-http"]);
    Client::open(&server, &token("one")).await;
    assert_eq!(asked.load(SeqCst), 1);
    server.terminate();
    assert!(server.ended().await.contains("warning: --jwt-jwks without --jwt-audience"));
    let server =
        Server::with_keys(&["--jwt-jwks", &url, "--jwt-allow-http", "--jwt-audience", "us"]);
    server.terminate();
    assert!(!server.ended().await.contains("warning"));
}

#[tokio::test]
async fn a_secret_that_is_short_is_warned_of() {
    for (bytes, is_warned) in [(1, true), (31, true), (32, false)] {
        let server = Server::with_keys(&["--jwt-hs256-secret", &"x".repeat(bytes)]);
        server.terminate();
        let told = server.ended().await;
        let warning = "warning: --jwt-hs256-secret has fewer than 32 bytes";
        assert_eq!(told.contains(warning), is_warned, "{bytes}: {told}");
    }
}

#[tokio::test]
async fn the_longest_token_is_what_the_flag_says() {
    let mine = support::token("ada");
    for (spare, is_taken) in [(0, true), (1, false)] {
        let bytes = (mine.len() - spare).to_string();
        let server = Server::with_flags(&["--jwt-max-bytes", &bytes]);
        match is_taken {
            true => drop(Client::open(&server, &mine).await),
            false => assert_eq!(close_code(&server, &mine).await, 1008),
        }
    }
}

#[test]
fn flags_that_cannot_be_meant_say_what_to_write() {
    let keys = ["--jwt-jwks", "http://login.example/jwks.json"];
    for (flags, told) in [
        (&keys[..], "must be https, or http on loopback; --jwt-allow-http"),
        (&["--jwt-jwks", "https://login.example/", "--jwt-roots", "/no/such.pem"], "/no/such.pem"),
        (&["--jwt-roots", "/no/such.pem"], "--jwt-jwks"),
        (&["--allow-origin", "*"], "as in https://app.example"),
        (&["--allow-origin", "app.example"], "as in https://app.example"),
        (&["--allow-origin", "https://app.example/"], "as in https://app.example"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidings-server"))
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(flags)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(told), "{flags:?}: {said}");
    }
}
