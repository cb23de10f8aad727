//! Reads a JWKS document (RFC 7517) and keeps the keys that verify signatures.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_core::json::Object;

use crate::key::{Key, KeyError, KeySet, check_rsa_size, ec_algorithm};
use crate::signature::{Algorithm, Material, RSA};
use crate::source::MAX_DOCUMENT_BYTES;

/// The usable keys of a document. Keys for other purposes are passed over, as published sets hold both.
pub(crate) fn read_set(json: &[u8]) -> Result<KeySet, KeyError> {
    if json.len() > MAX_DOCUMENT_BYTES {
        return Err(KeyError::NotAJwks(format!("longer than {MAX_DOCUMENT_BYTES} bytes")));
    }
    let Object(set): Object<Document> =
        serde_json::from_slice(json).map_err(|e| KeyError::NotAJwks(e.to_string()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(KeyError::NotAJwks(format!("more than {MAX_KEYS} keys")));
    }
    let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
    for (place, raw) in set.keys.iter().enumerate() {
        match read_key(raw) {
            Ok(key) => keys.push(key),
            Err(why) => passed_over.push(format!("key {place}: {why}")),
        }
    }
    if keys.is_empty() {
        return Err(KeyError::NoUsableKey(passed_over.join("; ")));
    }
    Ok(KeySet::Named(keys))
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<Algorithm>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn read_key(raw: &RawValue) -> Result<Key, String> {
    let Object(jwk): Object<Jwk> =
        serde_json::from_str(raw.get()).map_err(|e| e.to_string().escape_debug().to_string())?;
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("its use is not sig".into());
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("its key_ops have no verify".into());
    }
    let (material, mut allowed) = read_material(&jwk)?;
    if let Some(only) = jwk.alg {
        if !allowed.contains(&only) {
            return Err(format!("alg {only:?} does not fit the key"));
        }
        allowed = vec![only];
    }
    Ok(Key::new(jwk.kid, material, &allowed))
}

/// The key itself, and the algorithms its kind allows. `oct` is refused: a published secret is none.
fn read_material(jwk: &Jwk) -> Result<(Material, Vec<Algorithm>), String> {
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let (n, e) = (bytes(jwk.n.as_ref(), "n")?, bytes(jwk.e.as_ref(), "e")?);
            check_rsa_size(&n).map_err(|e| e.to_string())?;
            if e.len() > 4 || e.last().is_none_or(|last| last % 2 == 0) || e == [1] {
                return Err("its exponent e is not usual".into());
            }
            Ok((Material::rsa(&n, &e), RSA.to_vec()))
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let half = if curve == "P-256" { 32 } else { 48 };
            let (x, y) = (bytes(jwk.x.as_ref(), "x")?, bytes(jwk.y.as_ref(), "y")?);
            if x.len() != half || y.len() != half {
                return Err("its point has another size than its curve".into());
            }
            let point = [&[4][..], &x, &y].concat();
            let algorithm = ec_algorithm(point.len()).ok_or("its curve is not supported")?;
            Ok((Material::Point(point), vec![algorithm]))
        }
        ("OKP", Some("Ed25519")) => {
            let x = bytes(jwk.x.as_ref(), "x")?;
            if x.len() != 32 {
                return Err("its x does not have 32 bytes".into());
            }
            Ok((Material::Point(x), vec![Algorithm::EdDSA]))
        }
        (kind, _) => Err(format!("kty {kind:?} with this crv is not supported")),
    }
}

fn bytes(field: Option<&String>, name: &str) -> Result<Vec<u8>, String> {
    let text = field.ok_or_else(|| format!("it has no {name}"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its {name} is not base64url"))
}

/// Most keys a set may have; published sets have a handful.
const MAX_KEYS: usize = 64;
