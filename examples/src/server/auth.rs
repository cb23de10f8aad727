//! Who clients are: which keys check their tokens.

use std::time::Duration;

use tidings_auth_jwt::{FileSource, HttpSource, Jwks, JwksConfig, JwtAuthenticator, JwtConfig};

use crate::Failure;
use crate::cli::Cli;

/// The authenticator that the flags say; `secret` is that of the flag or of demo mode.
pub(crate) async fn authenticator(
    cli: &Cli,
    secret: Option<&str>,
    leeway: Duration,
) -> Result<JwtAuthenticator, Failure> {
    let mut config = JwtConfig::default();
    (config.issuer, config.audience) = (cli.jwt_issuer.clone(), cli.jwt_audience.clone());
    config.leeway = leeway;
    let Some(place) = &cli.jwt_jwks else {
        return Ok(JwtAuthenticator::hs(secret.unwrap_or_default(), config)?);
    };
    let jwks = if place.contains("://") {
        let source = HttpSource::new(place).map_err(|e| format!("--jwt-jwks: {e}"))?;
        Jwks::new(source, JwksConfig::default())
    } else {
        Jwks::new(FileSource::new(place), JwksConfig::default())
    };
    // A provider that is away must not keep the server from starting: it is asked again.
    if let Err(error) = jwks.warm().await {
        eprintln!("tidings-server: no keys yet, clients are told to try again: {error}");
    }
    Ok(JwtAuthenticator::rotating(jwks, config))
}
