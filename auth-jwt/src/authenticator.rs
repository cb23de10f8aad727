//! Tells who a client is by its token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{AuthError, Authenticator, ConnectRequest, Identity};

use crate::claims::identify;
use crate::clock::{self, Now};
use crate::jwk::read_set;
use crate::jwks::Jwks;
use crate::key::{FORGED, Key, KeyError, KeySet, NO_KEY, Verdict};
use crate::token::Signed;

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
/// A token needs `exp`, not past, and `sub`, a string that names the user; `nbf` must not be ahead;
/// `tenantId` names the tenant, `null` or none the default one. Times may have fractions, which are
/// rounded so that a token is never accepted longer than it says. Every claim is kept for authorizers and
/// handlers. The key decides which algorithms are accepted, and extensions named by `crit` are refused.
///
/// A number as `sub` is refused (RFC 7519, section 4.1.2): it has several spellings, and large ones are
/// read alike. Have the issuer write it as a string.
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
    /// Verifies HS256, HS384 and HS512 with a secret. It should have 32 random bytes or more (RFC 7518,
    /// section 3.2): with one token at hand, a shorter one can be guessed.
    ///
    /// # Errors
    /// When the secret is empty or a PEM.
    pub fn hs(secret: impl AsRef<[u8]>, config: JwtConfig) -> Result<Self, KeyError> {
        let key = Key::from_secret(secret.as_ref())?;
        Ok(Self::fixed(KeySet::Single(key.into()), config))
    }

    /// Verifies with the public key in a PEM: RSA of 2048 bits or more (RS and PS), P-256 (ES256),
    /// P-384 (ES384) or Ed25519 (Ed25519 and EdDSA).
    ///
    /// # Errors
    /// When the text holds no such key, or holds a private one.
    pub fn from_pem(pem: impl AsRef<[u8]>, config: JwtConfig) -> Result<Self, KeyError> {
        Ok(Self::fixed(KeySet::Single(Key::from_pem(pem.as_ref())?.into()), config))
    }

    /// Verifies with the keys of a JWKS document that does not change.
    ///
    /// Keys that are secret (`oct`), weak, or not for signatures are passed over. A key without `kid` verifies a
    /// token that names another or none when it is the only one that can be meant.
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
            return Err(refused("the token is longer than max_token_bytes"));
        }
        let token = Signed::read(token).map_err(refused)?;
        // Claims that are not valid under any key must not have keys looked for.
        let who = identify(&token.payload, &self.config, Duration::from_secs(now.unix))
            .map_err(AuthError::Refused)?;
        match &self.keys {
            Keys::Rotating(jwks) => jwks.verify(&token, now.steady).await?,
            Keys::Fixed(set) => match set.judge(&token) {
                Verdict::Good => {}
                Verdict::Forged => return Err(refused(FORGED)),
                Verdict::Unknown => return Err(refused(NO_KEY)),
            },
        }
        Ok(who)
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

fn refused(why: &str) -> AuthError {
    AuthError::Refused(why.to_owned())
}
