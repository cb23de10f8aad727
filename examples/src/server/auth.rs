//! Who clients are: which keys check their tokens.

use std::time::Duration;

use tidings_auth_jwt::{FileSource, HttpSource, Jwks, JwksConfig, JwtAuthenticator, JwtConfig};
use tokio::time::sleep;

use crate::Failure;
use crate::cli::Cli;
use crate::log::say;

/// The authenticator that the flags say, and its keys when they rotate; `secret` is that of the flag or of demo mode.
pub(crate) async fn authenticator(
    cli: &Cli,
    secret: Option<&str>,
    leeway: Duration,
) -> Result<(JwtAuthenticator, Option<Jwks>), Failure> {
    let mut config = JwtConfig::default();
    config.issuer.clone_from(&cli.jwt_issuer);
    config.audience.clone_from(&cli.jwt_audience);
    config.leeway = leeway;
    config.max_token_bytes = cli.jwt_max_bytes;
    let Some(place) = &cli.jwt_jwks else {
        let secret = secret.unwrap_or_default();
        // RFC 7518, section 3.2.
        if secret.len() < 32 {
            say(
                "tidings-server: warning: --jwt-hs256-secret has fewer than 32 bytes: whoever has one token may guess it and sign others",
            );
        }
        return Ok((JwtAuthenticator::hs(secret, config)?, None));
    };
    if config.audience.is_none() {
        say(
            "tidings-server: warning: --jwt-jwks without --jwt-audience: tokens that were issued for other applications are good here too",
        );
    }
    let jwks = keys(cli, place)?;
    if let Err(error) = jwks.warm().await {
        if !place.contains("://") {
            return Err(format!("--jwt-jwks {place}: {error}").into());
        }
        // A provider that is away must not keep the server from starting: it is asked again.
        say(format_args!("tidings-server: no keys yet, clients are told to try again: {error}"));
        tokio::spawn(read_again(jwks.clone()));
    }
    Ok((JwtAuthenticator::rotating(jwks.clone(), config), Some(jwks)))
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

/// Reads keys until there are some: a node that is not ready has no clients whose tokens would have them read.
async fn read_again(jwks: Jwks) {
    while jwks.age().is_none() {
        sleep(AGAIN_AFTER).await;
        let _ = jwks.warm().await;
    }
    say("tidings-server: the keys are here");
}

const AGAIN_AFTER: Duration = Duration::from_secs(3);
