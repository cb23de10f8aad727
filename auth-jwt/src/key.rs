//! Keys, each with the algorithms it verifies, and sets of them.

use std::fmt;

use crate::pem::{PublicKey, read_public_key};
use crate::signature::{Algorithm, HMAC, Material, RSA, significant};
use crate::token::Signed;

/// Why a key or a set of keys is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is empty, or it is a PEM. Give `from_pem` the public key instead.
    #[error("a secret must be neither empty nor a PEM")]
    NotASecret,
    /// The text is not a PEM of an RSA, P-256, P-384 or Ed25519 public key.
    #[error("not a PEM of an RSA, P-256, P-384 or Ed25519 public key")]
    NotAPublicKey,
    /// The RSA key is too small to be safe or too large to be verified quickly.
    #[error("an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, this one has {0}")]
    RsaSize(usize),
    /// The text is not a JWKS document, or it is too long.
    #[error("not a JWKS document: {0}")]
    NotAJwks(String),
    /// The set has no key that verifies signatures. The text says why each key was passed over.
    #[error("no usable key in the set: {0}")]
    NoUsableKey(String),
}

/// A key and what it may verify.
pub(crate) struct Key {
    id: Option<String>,
    material: Material,
    algorithms: Vec<Algorithm>,
}

impl Key {
    pub(crate) fn new(id: Option<String>, material: Material, allowed: &[Algorithm]) -> Self {
        Self { id, material, algorithms: allowed.to_vec() }
    }

    /// A secret both sides know: HS256, HS384, HS512.
    pub(crate) fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.is_empty() || secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::NotASecret);
        }
        Ok(Self::new(None, Material::Secret(secret.to_vec()), HMAC))
    }

    /// The public key in a PEM; its kind decides the algorithms.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        match read_public_key(pem).ok_or(KeyError::NotAPublicKey)? {
            PublicKey::Rsa { modulus, exponent } => {
                check_rsa_size(&modulus)?;
                Ok(Self::new(None, Material::rsa(&modulus, &exponent), RSA))
            }
            PublicKey::Ec(point) => {
                let algorithm = ec_algorithm(point.len()).ok_or(KeyError::NotAPublicKey)?;
                Ok(Self::new(None, Material::Point(point), &[algorithm]))
            }
            PublicKey::Ed(key) => Ok(Self::new(None, Material::Point(key), &[Algorithm::EdDSA])),
        }
    }

    fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    fn has_signed(&self, token: &Signed<'_>) -> bool {
        let Signed { algorithm, message, signature, .. } = token;
        self.allows(*algorithm) && self.material.verifies(*algorithm, message.as_bytes(), signature)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, algorithms, .. } = self;
        f.debug_struct("Key").field("id", id).field("algorithms", algorithms).finish()
    }
}

/// The keys of one authenticator at one time.
#[derive(Debug)]
pub(crate) enum KeySet {
    /// The one key there is, whatever a token calls it.
    Single(Box<Key>),
    /// Keys that tokens name.
    Named(Vec<Key>),
}

/// What a set says of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Good,
    /// The key that was meant has not signed it.
    Forged,
    /// The key that was meant is not here, as far as can be told.
    Unknown,
}

impl KeySet {
    /// Checks a token with the key that it names. Where there is none of that name, and for a token that names none,
    /// it is the only key that could be meant; that it was not meant cannot be excluded.
    pub(crate) fn judge(&self, token: &Signed<'_>) -> Verdict {
        let keys = match self {
            Self::Single(key) if key.has_signed(token) => return Verdict::Good,
            Self::Single(_) => return Verdict::Forged,
            Self::Named(keys) => keys.iter().filter(|key| key.allows(token.algorithm)),
        };
        let id = token.key_id.as_deref();
        if id.is_some()
            && let Some(key) = keys.clone().find(|key| key.id.as_deref() == id)
        {
            return if key.has_signed(token) { Verdict::Good } else { Verdict::Forged };
        }
        let mut possible = keys.filter(|key| id.is_none() || key.id.is_none());
        match (possible.next(), possible.next()) {
            (Some(only), None) if only.has_signed(token) => Verdict::Good,
            _ => Verdict::Unknown,
        }
    }
}

/// The algorithm of an elliptic curve, told by the length of an uncompressed point.
pub(crate) fn ec_algorithm(point_bytes: usize) -> Option<Algorithm> {
    match point_bytes {
        65 => Some(Algorithm::ES256),
        97 => Some(Algorithm::ES384),
        _ => None,
    }
}

/// Refuses RSA keys that are unsafe, and those that take long.
pub(crate) fn check_rsa_size(modulus: &[u8]) -> Result<(), KeyError> {
    let digits = significant(modulus);
    let unused = digits.first().map_or(0, |byte| byte.leading_zeros() as usize);
    match digits.len() * 8 - unused {
        MIN_RSA_BITS..=MAX_RSA_BITS => Ok(()),
        bits => Err(KeyError::RsaSize(bits)),
    }
}

/// Smallest RSA key (RFC 7518, section 3.3).
const MIN_RSA_BITS: usize = 2048;
/// Largest RSA key: the time that a signature takes grows with the square of it.
const MAX_RSA_BITS: usize = 4096;
/// Why tokens are refused for their keys' sake.
pub(crate) const FORGED: &str = "the signature is not that of its key";
pub(crate) const NO_KEY: &str = "no key is known to have signed it";
