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
    (config.leeway, config.max_token_bytes) = (leeway, cli.jwt_max_bytes);
    let Some(place) = &cli.jwt_jwks else {
        let secret = secret.unwrap_or_default();
        // RFC 7518, section 3.2.
        if secret.len() < 32 {
            eprintln!(
                "tidings-server: warning: --jwt-hs256-secret has fewer than 32 bytes: whoever has one token may guess it and sign others"
            );
        }
        return Ok(JwtAuthenticator::hs(secret, config)?);
    };
    if config.audience.is_none() {
        eprintln!(
            "tidings-server: warning: --jwt-jwks without --jwt-audience: tokens that were issued for other applications are good here too"
        );
    }
    let jwks = keys(cli, place)?;
    // A provider that is away must not keep the server from starting: it is asked again.
    if let Err(error) = jwks.warm().await {
        eprintln!("tidings-server: no keys yet, clients are told to try again: {error}");
    }
    Ok(JwtAuthenticator::rotating(jwks, config))
}

/// The keys at a URL or in a file.
fn keys(cli: &Cli, place: &str) -> Result<Jwks, Failure> {
    if !place.contains("://") {
        return Ok(Jwks::new(FileSource::new(place), JwksConfig::default()));
    }
    let source = match &cli.jwt_roots {
        Some(path) => {
            let pem = std::fs::read(path);
            let pem = pem.map_err(|e| format!("--jwt-roots {}: {e}", path.display()))?;
            HttpSource::with_roots(place, &pem)
        }
        None if cli.jwt_allow_http => HttpSource::over_http(place),
        None => HttpSource::new(place),
    };
    let is_http = place.starts_with("http://") && !cli.jwt_allow_http;
    let hint = if is_http { "; --jwt-allow-http takes http from any host" } else { "" };
    Ok(Jwks::new(source.map_err(|e| format!("--jwt-jwks: {e}{hint}"))?, JwksConfig::default()))
}
