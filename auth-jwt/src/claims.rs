//! What a token must say of itself, once its signature is known to be good.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_core::json::{Object, present};
use tidings_core::{Claims, Identity, TenantId, UserId};

use crate::authenticator::JwtConfig;

/// The identity that verified claims give at the time `now`, in seconds since 1970.
///
/// # Errors
/// Why they give none.
pub(crate) fn identify(
    raw: &RawValue,
    config: &JwtConfig,
    now: Duration,
) -> Result<Identity, String> {
    let Object(claims): Object<Registered> =
        serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
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
        expires_at: Some(claims.exp),
        claims: Claims::new(Bytes::copy_from_slice(raw.get().as_bytes()))
            .map_err(|e| e.to_string())?,
    })
}

fn check_time(claims: &Registered, leeway: Duration, now: Duration) -> Result<(), String> {
    if claims.exp > LATEST_EXP {
        return Err("exp is not in seconds".into());
    }
    if now >= Duration::from_secs(claims.exp).saturating_add(leeway) {
        return Err("expired".into());
    }
    if claims.nbf.is_some_and(|nbf| Duration::from_secs(nbf) > now.saturating_add(leeway)) {
        return Err("not valid yet".into());
    }
    Ok(())
}

/// The claims that are understood. One given twice is refused, and so is one that is `null`.
#[derive(Deserialize)]
struct Registered {
    exp: u64,
    sub: String,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(default, rename = "tenantId", deserialize_with = "present")]
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Latest `exp`, in the year 5138: beyond it somebody counted milliseconds.
const LATEST_EXP: u64 = 100_000_000_000;
