//! Keys, each with the algorithms it verifies, and sets of them.

use std::fmt;

use crate::pem::{PublicKey, read_public_key};
use crate::signature::{Algorithm, HMAC, Material, RSA, significant};

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
    pub(crate) id: Option<String>,
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

    /// Whether the key made this signature by an algorithm that it allows.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.allows(algorithm) && self.material.verifies(algorithm, message, signature)
    }

    pub(crate) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
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

impl KeySet {
    /// The key for a token: the one it names or, when it names none, the only one that could be meant.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        match self {
            Self::Single(key) => Some(&**key).filter(|key| key.allows(algorithm)),
            Self::Named(keys) => {
                let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
                let mut fitting = keys.iter().filter(named).filter(|key| key.allows(algorithm));
                let first = fitting.next()?;
                (id.is_some() || fitting.next().is_none()).then_some(first)
            }
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
