//! Signs tokens, for demos and tests; a server that issues tokens has its own issuer.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

/// A token with these claims, a JSON object, signed with HS256. The claims are signed as they are.
pub fn sign_hs256(secret: &[u8], claims_json: &str) -> String {
    crate::key::install_provider();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims_json));
    let key = EncodingKey::from_secret(secret);
    // HMAC takes secrets of any length. Were signing ever to fail, the token would verify nowhere.
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap_or_default())
}
