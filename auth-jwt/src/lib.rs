//! JSON Web Tokens for Tidings: [`JwtAuthenticator`] tells who a client is, [`RoomPatterns`] which
//! rooms its token opens.
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
mod source;
mod spawn;

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
