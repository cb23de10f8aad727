//! An authenticator of each kind of key keeps every law.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tidings_auth_jwt::{
    Document, Jwks, JwksConfig, JwtAuthenticator, JwtConfig, KeySource, SourceError,
};
use tidings_core::testing::authenticator_laws::AuthenticatorFixture;
use tidings_core::{Authenticator, ConnectRequest};

#[path = "../src/tests/signer.rs"]
mod signer;

use signer::Signer;

const SECRET: &[u8] = b"a secret of at least 32 bytes, as it should be";

/// A kind of key: what verifies, what signs.
trait Kind {
    const ALGORITHM: &str;
    fn authenticator() -> JwtAuthenticator;
    fn key() -> Signer;
}

struct Fixture<K>(Arc<dyn Authenticator>, std::marker::PhantomData<K>);

impl<K: Kind> Fixture<K> {
    fn token(claims: &Value, key: &Signer, algorithm: &str) -> ConnectRequest {
        let header = json!({"alg": algorithm, "kid": "one"}).to_string();
        let encoded = |part: &str| URL_SAFE_NO_PAD.encode(part);
        let message = format!("{}.{}", encoded(&header), encoded(&claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(algorithm, message.as_bytes()));
        ConnectRequest::default().with_token(format!("{message}.{signature}"))
    }

    fn signed(claims: &Value) -> ConnectRequest {
        Self::token(claims, &K::key(), K::ALGORITHM)
    }
}

impl<K: Kind> AuthenticatorFixture for Fixture<K> {
    async fn start() -> Self {
        Self(Arc::new(K::authenticator()), std::marker::PhantomData)
    }

    fn authenticator(&self) -> Arc<dyn Authenticator> {
        self.0.clone()
    }

    fn good(&self) -> Vec<ConnectRequest> {
        let exp = unix_now() + 600;
        vec![
            Self::signed(&json!({"sub": "ada", "exp": exp, "aud": "us"})),
            Self::signed(&json!({"sub": "bob", "exp": exp, "aud": ["us"], "tenantId": "t"})),
            Self::signed(&json!({"sub": "eve", "exp": exp as f64 + 0.5, "aud": "us"})),
        ]
    }

    fn bad(&self) -> Vec<ConnectRequest> {
        let exp = unix_now() + 600;
        let fine = json!({"sub": "ada", "exp": exp, "aud": "us"});
        let forger = Signer::secret(b"another secret of at least 32 bytes, as is usual");
        vec![
            Self::signed(&json!({"sub": "ada", "exp": exp - 700, "aud": "us"})),
            Self::signed(&json!({"sub": "ada", "exp": exp, "aud": "them"})),
            Self::signed(&json!({"sub": "ada", "exp": exp, "nbf": exp, "aud": "us"})),
            Self::signed(&json!({"sub": "", "exp": exp, "aud": "us"})),
            Self::signed(&json!({"sub": "ada", "aud": "us"})),
            Self::signed(&json!({"exp": exp, "aud": "us"})),
            Self::token(&fine, &forger, "HS256"),
        ]
    }
}

fn config() -> JwtConfig {
    let mut config = JwtConfig::default();
    config.audience = Some("us".to_owned());
    config
}

fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

fn der(pem: &str) -> Vec<u8> {
    let digits: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(digits).expect("base64")
}

macro_rules! kind {
    ($name:ident: $algorithm:literal, $authenticator:expr, $key:expr) => {
        mod $name {
            use super::*;

            struct This;

            impl Kind for This {
                const ALGORITHM: &str = $algorithm;
                fn authenticator() -> JwtAuthenticator {
                    $authenticator
                }
                fn key() -> Signer {
                    $key
                }
            }

            tidings_core::authenticator_laws!(Fixture<This>);
        }
    };
}

fn pem(text: &str) -> JwtAuthenticator {
    JwtAuthenticator::from_pem(text, config()).expect("a key")
}

fn set() -> String {
    let public = der(include_str!("../src/tests/keys/ed.pub.pem"));
    let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x}]}).to_string()
}

/// A set that never changes, behind a source that is read again for each token whose key is unknown.
#[derive(Debug)]
struct Published;

#[async_trait]
impl KeySource for Published {
    async fn fetch(&self) -> Result<Document, SourceError> {
        Ok(set().into())
    }
}

fn rotating() -> JwtAuthenticator {
    let mut often = JwksConfig::default();
    often.cooldown = Duration::ZERO;
    JwtAuthenticator::rotating(Jwks::new(Published, often), config())
}

fn ed() -> Signer {
    Signer::private("ed", &der(include_str!("../src/tests/keys/ed.key")))
}

kind!(hs: "HS256", JwtAuthenticator::hs(SECRET, config()).expect("a secret"), Signer::secret(SECRET));
kind!(rsa: "RS256", pem(include_str!("../src/tests/keys/rsa.pub.pem")),
    Signer::private("rsa", &der(include_str!("../src/tests/keys/rsa.key"))));
kind!(ec: "ES256", pem(include_str!("../src/tests/keys/p256.pub.pem")),
    Signer::private("p256", &der(include_str!("../src/tests/keys/p256.key"))));
kind!(eddsa: "EdDSA", pem(include_str!("../src/tests/keys/ed.pub.pem")), ed());
kind!(jwks: "EdDSA", JwtAuthenticator::from_jwks(set(), config()).expect("a set"), ed());
kind!(jwks_that_rotates: "EdDSA", rotating(), ed());
