//! The text of a token (RFC 7515, section 7.1), taken apart; nothing of it is verified here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tidings_core::json::{Object, present};

use crate::signature::Algorithm;

/// What a token says of its key, and what its key has to have signed.
pub(crate) struct Signed<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    /// Header and payload as they were signed.
    pub(crate) message: &'a str,
    pub(crate) signature: Vec<u8>,
    /// The claims, as JSON.
    pub(crate) payload: Vec<u8>,
}

impl<'a> Signed<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What is wrong with it, in words that take nothing from it: they end in logs.
    pub(crate) fn read(token: &'a str) -> Result<Self, &'static str> {
        let (message, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let (header, payload) = message.split_once('.').ok_or("not a token")?;
        let decoded = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part is not base64url");
        let Object(header): Object<Header> = serde_json::from_slice(&decoded(header)?)
            .map_err(|_| "the header cannot be read, or its alg is not supported")?;
        // RFC 7515, section 4.1.11: a parameter named critical must be understood, and none is.
        if header.crit.is_some() {
            return Err("crit names what is not understood");
        }
        Ok(Self {
            algorithm: header.alg,
            key_id: header.kid,
            message,
            signature: decoded(signature)?,
            payload: decoded(payload)?,
        })
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
