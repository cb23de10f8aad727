//! The authenticator against good tokens, hostile tokens, and keys that rotate.

mod accepted;
mod attacks;
#[cfg(feature = "http")]
mod http;
mod rotation;
mod signer;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use self::signer::Signer;
use crate::clock::{self, Now};
use crate::signature::Algorithm;

pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const SECRET: &[u8] = b"a secret of at least 32 bytes, as it should be";
pub(crate) const RSA_PUB: &str = include_str!("keys/rsa.pub.pem");
pub(crate) const P256_PUB: &str = include_str!("keys/p256.pub.pem");
pub(crate) const P384_PUB: &str = include_str!("keys/p384.pub.pem");
pub(crate) const ED_PUB: &str = include_str!("keys/ed.pub.pem");

pub(crate) fn at(unix: u64) -> Now {
    Now { unix, ..clock::now() }
}

pub(crate) fn later(now: Now, seconds: u64) -> Now {
    let steady = now.steady + Duration::from_secs(seconds);
    Now { unix: now.unix + seconds, steady }
}

pub(crate) fn claims() -> Value {
    json!({ "sub": "ada", "exp": NOW + 60 })
}

pub(crate) fn der(pem: &str) -> Vec<u8> {
    let digits: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(digits).expect("base64")
}

pub(crate) fn private(name: &str) -> Signer {
    let key = match name {
        "rsa" => include_str!("keys/rsa.key"),
        "p256" => include_str!("keys/p256.key"),
        "p384" => include_str!("keys/p384.key"),
        "ed" => include_str!("keys/ed.key"),
        _ => return Signer::secret(name.as_bytes()),
    };
    Signer::private(name, &der(key))
}

/// A token of any header and any claims, signed with `algorithm` whatever its header says.
pub(crate) fn signed(header: &str, claims: &str, key: &Signer, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = key.sign(&format!("{algorithm:?}"), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A good token of this key and algorithm.
pub(crate) fn token(key: &str, algorithm: Algorithm, kid: Option<&str>) -> String {
    let mut header = json!({ "alg": format!("{algorithm:?}") });
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    signed(&header.to_string(), &claims().to_string(), &private(key), algorithm)
}

/// The public key as an entry of a JWKS.
pub(crate) fn jwk(key: &str, kid: &str) -> Value {
    let tail = |pem: &str, n: usize| {
        let der = der(pem);
        der[der.len() - n..].to_vec()
    };
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match key {
        "rsa" => {
            let public = tail(include_str!("keys/rsa.pkcs1.pub.pem"), 256 + 5);
            let (n, e) = (&public[..256], &public[256 + 2..]);
            json!({ "kty": "RSA", "kid": kid, "n": text(n), "e": text(e) })
        }
        "ed" => {
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(&tail(ED_PUB, 32)) })
        }
        _ => {
            let (pem, half, crv) =
                if key == "p256" { (P256_PUB, 32, "P-256") } else { (P384_PUB, 48, "P-384") };
            let point = tail(pem, 2 * half);
            let (x, y) = point.split_at(half);
            json!({ "kty": "EC", "crv": crv, "kid": kid, "x": text(x), "y": text(y) })
        }
    }
}
