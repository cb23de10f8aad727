//! What a token must say of itself, whatever key signed it.

use std::time::Duration;

use serde::Deserialize;
use tidings_core::json::{Object, present};
use tidings_core::{Claims, Identity, TenantId, UserId};

use crate::authenticator::JwtConfig;

/// The identity that claims give at the time `now`, in seconds since 1970, provided that their signature is good.
///
/// # Errors
/// Why they give none, in words that take nothing from the claims: they end in logs.
pub(crate) fn identify(json: &[u8], config: &JwtConfig, now: Duration) -> Result<Identity, String> {
    let Object(claims): Object<Registered> = serde_json::from_slice(json)
        .map_err(|e| format!("a claim is not as it must be, at byte {}", e.column()))?;
    check_time(&claims, config.leeway, now)?;
    if let Some(issuer) = &config.issuer {
        let given = claims.iss.ok_or("no iss")?;
        if given != *issuer {
            return Err("iss is another".into());
        }
    }
    if let Some(audience) = &config.audience {
        let meant = match claims.aud.ok_or("no aud")? {
            Audience::One(one) => one == *audience,
            Audience::Many(many) => many.contains(audience),
        };
        if !meant {
            return Err("aud is another".into());
        }
    }
    let tenant = claims.tenant.map(TenantId::new).transpose();
    Ok(Identity {
        tenant: tenant.map_err(|e| format!("tenantId: {e}"))?.unwrap_or_default(),
        user: UserId::new(claims.sub).map_err(|e| format!("sub: {e}"))?,
        // Rounded down: it is never accepted longer than it says.
        expires_at: Some(claims.exp as u64),
        claims: Claims::new(json.to_vec()).map_err(|_| "the claims are not an object")?,
    })
}

fn check_time(claims: &Registered, leeway: Duration, now: Duration) -> Result<(), String> {
    if !(0.0..=LATEST_EXP).contains(&claims.exp) {
        return Err("exp is not in seconds since 1970".into());
    }
    if now >= Duration::from_secs(claims.exp as u64).saturating_add(leeway) {
        return Err("expired".into());
    }
    let Some(begin) = claims.nbf else { return Ok(()) };
    if begin < 0.0 {
        return Err("nbf is not in seconds since 1970".into());
    }
    // Rounded up, for the same reason; what is too large for the type becomes the largest there is.
    if Duration::from_secs(begin.ceil() as u64) > now.saturating_add(leeway) {
        return Err("not valid yet".into());
    }
    Ok(())
}

/// The claims that are understood. One given twice is refused, and so is one that is `null`, but for `tenantId`.
///
/// A time is a number with or without a fraction (RFC 7519, section 2). `sub` is a string (section 4.1.2) and never a
/// number: 7, 7.0 and 7e0 would be one user or three, and beyond 2^53 two users could become one.
#[derive(Deserialize)]
struct Registered {
    exp: f64,
    sub: String,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    /// Many serializers write `null` for none.
    #[serde(default, rename = "tenantId")]
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Latest `exp`, in the year 5138: beyond it somebody counted milliseconds.
const LATEST_EXP: f64 = 100_000_000_000.0;
