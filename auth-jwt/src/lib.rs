//! JSON Web Tokens for Tidings: [`JwtAuthenticator`] tells who a client is, [`RoomPatterns`] which
//! rooms its token opens.
//!
//! ```
//! use tidings_auth_jwt::{JwtAuthenticator, JwtConfig, sign_hs256};
//! use tidings_core::{Authenticator, ConnectRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = "a secret of at least thirty-two bytes";
//! let authenticator = JwtAuthenticator::hs(secret, JwtConfig::default())?;
//! let token = sign_hs256(secret.as_bytes(), r#"{"sub":"ada","exp":4102444800,"rooms":["team-*"]}"#);
//!
//! let request = ConnectRequest::default().with_token(token);
//! assert_eq!(authenticator.authenticate(&request).await?.user.as_str(), "ada");
//! assert!(authenticator.authenticate(&request.with_token("nonsense")).await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! The key decides which algorithms it verifies, never the token. Keys are a shared secret, a PEM,
//! a JWKS document, or a [`Jwks`] that reads a [`KeySource`] again when keys rotate: a file or, with
//! the feature `http`, a URL.

mod authenticator;
mod claims;
mod clock;
#[cfg(feature = "http")]
mod http;
mod jwk;
mod jwks;
mod key;
mod pem;
mod rooms;
mod sign;
mod signature;
mod source;
mod spawn;
mod token;

#[cfg(test)]
mod tests;

pub use authenticator::{JwtAuthenticator, JwtConfig};
#[cfg(feature = "http")]
pub use http::HttpSource;
pub use jwks::{Jwks, JwksConfig};
pub use key::KeyError;
pub use rooms::RoomPatterns;
pub use sign::sign_hs256;
pub use source::{Document, FileSource, KeySource, SourceError};
