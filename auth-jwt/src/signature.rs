//! What signs a token (RFC 7518, section 3.1; RFC 8037) and what verifies it.

use ring::hmac;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;

/// An algorithm by the name that tokens and keys give it. There is no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    /// On the curve Ed25519; RFC 9864 names it after the curve.
    #[serde(alias = "Ed25519")]
    EdDSA,
}

pub(crate) const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
pub(crate) const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What a signature is verified with.
pub(crate) enum Material {
    Secret(Vec<u8>),
    /// Modulus and exponent, without leading zeros.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point of P-256 or P-384, or an Ed25519 key.
    Point(Vec<u8>),
}

impl Material {
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let (n, e) = (significant(modulus).to_vec(), significant(exponent).to_vec());
        Self::Rsa(RsaPublicKeyComponents { n, e })
    }

    /// Whether this key and this algorithm, which must fit each other, made the signature.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], made: &[u8]) -> bool {
        match self {
            Self::Secret(secret) => {
                let hash = match algorithm {
                    Algorithm::HS256 => hmac::HMAC_SHA256,
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => return false,
                };
                hmac::verify(&hmac::Key::new(hash, secret), message, made).is_ok()
            }
            Self::Rsa(key) => {
                let padding = match algorithm {
                    Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                key.verify(padding, message, made).is_ok()
            }
            Self::Point(point) => {
                let curve: &dyn VerificationAlgorithm = match algorithm {
                    Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &signature::ED25519,
                    _ => return false,
                };
                UnparsedPublicKey::new(curve, point).verify(message, made).is_ok()
            }
        }
    }
}

/// The digits of a number, without the zeros before it.
pub(crate) fn significant(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|&byte| byte != 0).unwrap_or(number.len());
    &number[start..]
}
