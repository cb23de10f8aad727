//! Tells who a client is by its token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tidings_core::json::{Object, present};
use tidings_core::{AuthError, Authenticator, ConnectRequest, Identity};

use crate::claims::identify;
use crate::clock::{self, Now};
use crate::jwk::read_set;
use crate::jwks::Jwks;
use crate::key::{Key, KeyError, KeySet};
use crate::signature::Algorithm;

/// What a token must fulfil beyond its signature. Start from `JwtConfig::default()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtConfig {
    /// The `iss` every token must have; `None` (default) leaves `iss` unchecked.
    pub issuer: Option<String>,
    /// The `aud` every token must be for; `None` (default) leaves `aud` unchecked.
    pub audience: Option<String>,
    /// How far the clocks of issuer and server may differ; default 5 s.
    pub leeway: Duration,
    /// Longest token that is looked at, in bytes; default 8192.
    pub max_token_bytes: usize,
}

impl Default for JwtConfig {
    fn default() -> Self {
        let leeway = Duration::from_secs(5);
        Self { issuer: None, audience: None, leeway, max_token_bytes: 8192 }
    }
}

/// Tells who a client is by a signed JSON Web Token (RFC 7519).
///
/// A token needs `exp`, not past, and `sub`, which names the user; `nbf` must not be ahead;
/// `tenantId` names the tenant. Every claim is kept for authorizers and handlers. The key decides
/// which algorithms are accepted, and extensions named by `crit` are refused.
#[derive(Debug, Clone)]
pub struct JwtAuthenticator {
    keys: Keys,
    config: JwtConfig,
}

#[derive(Clone)]
enum Keys {
    Fixed(Arc<KeySet>),
    Rotating(Jwks),
}

impl JwtAuthenticator {
    /// Verifies HS256, HS384 and HS512 with a secret, which should have 32 random bytes or more.
    ///
    /// # Errors
    /// When the secret is empty or a PEM.
    pub fn hs(secret: impl AsRef<[u8]>, config: JwtConfig) -> Result<Self, KeyError> {
        let key = Key::from_secret(secret.as_ref())?;
        Ok(Self::fixed(KeySet::Single(key.into()), config))
    }

    /// Verifies with the public key in a PEM: RSA of 2048 bits or more (RS and PS), P-256 (ES256),
    /// P-384 (ES384) or Ed25519 (EdDSA).
    ///
    /// # Errors
    /// When the text holds no such key, or holds a private one.
    pub fn from_pem(pem: impl AsRef<[u8]>, config: JwtConfig) -> Result<Self, KeyError> {
        Ok(Self::fixed(KeySet::Single(Key::from_pem(pem.as_ref())?.into()), config))
    }

    /// Verifies with the keys of a JWKS document that does not change.
    ///
    /// Keys that are secret (`oct`), weak, or not for signatures are passed over.
    ///
    /// # Errors
    /// When it is no such document, or no key is left.
    pub fn from_jwks(json: impl AsRef<[u8]>, config: JwtConfig) -> Result<Self, KeyError> {
        Ok(Self::fixed(read_set(json.as_ref())?, config))
    }

    /// Verifies with keys that rotate.
    pub fn rotating(keys: Jwks, config: JwtConfig) -> Self {
        Self { keys: Keys::Rotating(keys), config }
    }

    fn fixed(keys: KeySet, config: JwtConfig) -> Self {
        Self { keys: Keys::Fixed(Arc::new(keys)), config }
    }

    /// Who a token belongs to at a given time.
    pub(crate) async fn identify_at(&self, token: &str, now: Now) -> Result<Identity, AuthError> {
        if token.len() > self.config.max_token_bytes {
            return Err(refused("the token is too long"));
        }
        let header = read_header(token)?;
        let id = header.kid.as_deref();
        let set = match &self.keys {
            Keys::Fixed(set) => set.clone(),
            Keys::Rotating(jwks) => jwks.keys_for(id, header.alg, now.steady).await?,
        };
        let key = set.find(id, header.alg).ok_or_else(|| refused("no such key"))?;
        let raw = read_claims(token, header.alg, key)?;
        identify(&raw, &self.config, Duration::from_secs(now.unix)).map_err(AuthError::Refused)
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.token.as_ref().ok_or(AuthError::Missing)?;
        self.identify_at(token.expose(), clock::now()).await
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keys) => keys.fmt(f),
            Self::Rotating(jwks) => jwks.fmt(f),
        }
    }
}

/// The parameters that are understood. What names a key from elsewhere (`jku`, `jwk`, `x5u`) is not.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    /// Read as values, whose depth is bounded, before it is passed over.
    #[serde(flatten)]
    _other: IgnoredAny,
}

fn read_header(token: &str) -> Result<Header, AuthError> {
    let (header, _) = token.split_once('.').ok_or_else(|| refused("not a token"))?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|e| refused(&e.to_string()))?;
    let Object(header): Object<Header> =
        serde_json::from_slice(&header).map_err(|e| refused(&e.to_string()))?;
    // RFC 7515, section 4.1.11: a parameter named critical must be understood, and none is.
    if header.crit.is_some() {
        return Err(refused("crit names what is not understood"));
    }
    Ok(header)
}

/// The claims of a token that this key has signed.
fn read_claims(token: &str, algorithm: Algorithm, key: &Key) -> Result<Box<RawValue>, AuthError> {
    let (message, signature) = token.rsplit_once('.').ok_or_else(|| refused("not a token"))?;
    let (_, claims) = message.split_once('.').ok_or_else(|| refused("not a token"))?;
    let decoded = |text| URL_SAFE_NO_PAD.decode(text).map_err(|e| refused(&e.to_string()));
    if !key.verifies(algorithm, message.as_bytes(), &decoded(signature)?) {
        return Err(refused("the signature is not of this key"));
    }
    serde_json::from_slice(&decoded(claims)?).map_err(|e| refused(&e.to_string()))
}

fn refused(why: &str) -> AuthError {
    AuthError::Refused(why.to_owned())
}
