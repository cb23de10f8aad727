//! What is accepted, and which keys are.

use serde_json::{Value, json};
use tidings_core::{AuthError, Authenticator, ConnectRequest, Identity};

use super::*;
use crate::signature::Algorithm::{self, *};
use crate::{JwtAuthenticator, JwtConfig, KeyError, sign_hs256};

const FAMILIES: &[(&str, &str, &[Algorithm])] = &[
    ("rsa", RSA_PUB, &[RS256, RS384, RS512, PS256, PS384, PS512]),
    ("p256", P256_PUB, &[ES256]),
    ("p384", P384_PUB, &[ES384]),
    ("ed", ED_PUB, &[EdDSA]),
];

fn hs(config: JwtConfig) -> JwtAuthenticator {
    JwtAuthenticator::hs(SECRET, config).expect("a secret")
}

async fn identify(claims: &Value, config: JwtConfig) -> Result<Identity, AuthError> {
    hs(config).identify_at(&sign_hs256(SECRET, &claims.to_string()), at(NOW)).await
}

#[tokio::test]
async fn every_family_verifies_its_own_algorithms_and_no_others() {
    for (name, pem, own) in FAMILIES {
        let from_pem = JwtAuthenticator::from_pem(pem, JwtConfig::default()).expect("a key");
        let set = json!({ "keys": [jwk(name, "k")] }).to_string();
        let from_set = JwtAuthenticator::from_jwks(set, JwtConfig::default()).expect("a set");
        for (other, _, algorithms) in FAMILIES {
            for algorithm in *algorithms {
                for kid in [None, Some("k")] {
                    let token = token(other, *algorithm, kid);
                    for authenticator in [&from_pem, &from_set] {
                        let answer = authenticator.identify_at(&token, at(NOW)).await;
                        assert_eq!(answer.is_ok(), own.contains(algorithm), "{name} {algorithm:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_secret_verifies_every_hmac() {
    let secret = std::str::from_utf8(SECRET).expect("text");
    for algorithm in [HS256, HS384, HS512] {
        let token = token(secret, algorithm, Some("ignored"));
        assert!(hs(JwtConfig::default()).identify_at(&token, at(NOW)).await.is_ok());
    }
}

#[tokio::test]
async fn the_identity_holds_user_tenant_end_and_claims() {
    let claims = json!({ "sub": "ada", "exp": NOW + 9, "tenantId": "acme", "role": ["x"] });
    let ada = identify(&claims, JwtConfig::default()).await.expect("an identity");
    assert_eq!((ada.user.as_str(), ada.tenant.name()), ("ada", Some("acme")));
    assert_eq!(ada.expires_at, Some(NOW + 9));
    assert_eq!(ada.claims.get::<Vec<String>>("role"), Some(vec!["x".to_owned()]));
    let plain = identify(&super::claims(), JwtConfig::default()).await.expect("an identity");
    assert_eq!(plain.tenant.name(), None);
}

#[tokio::test]
async fn leeway_issuer_and_audience_are_as_configured() {
    let mut strict = JwtConfig::default();
    (strict.issuer, strict.audience) = (Some("me".into()), Some("us".into()));
    for good in [
        json!({ "sub": "a", "exp": NOW - 4, "nbf": NOW + 5, "iss": "me", "aud": "us" }),
        json!({ "sub": "a", "exp": NOW + 1, "iss": "me", "aud": ["x", "us"] }),
        json!({ "sub": "a", "exp": 100_000_000_000_u64, "iss": "me", "aud": ["us"] }),
    ] {
        assert!(identify(&good, strict.clone()).await.is_ok(), "{good}");
        assert!(identify(&good, JwtConfig::default()).await.is_ok(), "{good}");
    }
}

#[tokio::test]
async fn a_time_is_any_number_and_a_tenant_may_be_null() {
    for (exp, ends) in [
        ("1700000060.0", 60),
        ("1700000060.999", 60),
        ("1.70000006e9", 60),
        ("1e11", 98_300_000_000),
    ] {
        let claims = format!(
            r#"{{"sub":"a","exp":{exp},"nbf":1700000004.5,"iat":1699999999.25,"tenantId":null}}"#
        );
        let who = hs(JwtConfig::default()).identify_at(&sign_hs256(SECRET, &claims), at(NOW)).await;
        let who = who.expect(exp);
        assert_eq!(who.expires_at, Some(NOW + ends), "{exp}");
        assert_eq!(who.tenant.name(), None);
        assert_eq!(who.claims.get::<f64>("iat"), Some(1_699_999_999.25));
    }
}

#[tokio::test]
async fn ed25519_has_two_names() {
    let header = |alg| format!(r#"{{"alg":"{alg}","kid":"k"}}"#);
    let own = jwk("ed", "k");
    let mut named = own.clone();
    named["alg"] = json!("Ed25519");
    let mut older = own.clone();
    older["alg"] = json!("EdDSA");
    for key in [own, named, older] {
        let set = json!({ "keys": [&key] }).to_string();
        let who = JwtAuthenticator::from_jwks(set, JwtConfig::default()).expect("a set");
        for alg in ["Ed25519", "EdDSA"] {
            let token = signed(&header(alg), &claims().to_string(), &private("ed"), EdDSA);
            assert!(who.identify_at(&token, at(NOW)).await.is_ok(), "{key} {alg}");
        }
        let token = signed(&header("Ed448"), &claims().to_string(), &private("ed"), EdDSA);
        assert!(who.identify_at(&token, at(NOW)).await.is_err());
    }
}

#[tokio::test]
async fn a_token_of_just_the_allowed_length_is_looked_at() {
    let token = sign_hs256(SECRET, &claims().to_string());
    for (spare, is_taken) in [(0, true), (1, false)] {
        let max_token_bytes = token.len() - spare;
        let config = JwtConfig { max_token_bytes, ..JwtConfig::default() };
        assert_eq!(hs(config).identify_at(&token, at(NOW)).await.is_ok(), is_taken);
    }
}

#[tokio::test]
async fn no_token_is_missing_and_a_real_clock_runs() {
    let authenticator = hs(JwtConfig::default());
    let nobody = ConnectRequest::default();
    assert!(matches!(authenticator.authenticate(&nobody).await, Err(AuthError::Missing)));
    let good = json!({ "sub": "ada", "exp": clock::now().unix + 60 }).to_string();
    let request = nobody.clone().with_token(sign_hs256(SECRET, &good));
    assert!(authenticator.authenticate(&request).await.is_ok());
    let old = request.with_token(sign_hs256(SECRET, &claims().to_string()));
    assert!(matches!(authenticator.authenticate(&old).await, Err(AuthError::Refused(_))));
}

#[test]
fn a_pem_is_one_strong_public_key() {
    let take = |pem: &str| JwtAuthenticator::from_pem(pem, JwtConfig::default()).map(|_| ());
    assert_eq!(take(include_str!("keys/rsa.pkcs1.pub.pem")), Ok(()));
    assert_eq!(take(&RSA_PUB.replace('\n', "\r\n")), Ok(()));
    assert_eq!(take(include_str!("keys/rsa1024.pub.pem")), Err(KeyError::RsaSize(1024)));
    for wrong in [
        include_str!("keys/x25519.pub.pem"),
        include_str!("keys/p521.pub.pem"),
        include_str!("keys/k256.pub.pem"),
        include_str!("keys/ed.key"),
        include_str!("keys/rsa.key"),
        &format!("{ED_PUB}{ED_PUB}"),
        "-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----",
        "",
    ] {
        assert_eq!(take(wrong), Err(KeyError::NotAPublicKey), "{wrong}");
    }
    for secret in ["", RSA_PUB] {
        let answer = JwtAuthenticator::hs(secret, JwtConfig::default());
        assert_eq!(answer.map(|_| ()), Err(KeyError::NotASecret));
    }
}

#[test]
fn a_set_keeps_what_verifies_signatures() {
    let take = |keys: Value| {
        let json = json!({ "keys": keys }).to_string();
        JwtAuthenticator::from_jwks(json, JwtConfig::default()).map(|_| ())
    };
    let with = |key: &str, field: &str, value: Value| {
        let mut entry = jwk(key, "k");
        entry[field] = value;
        entry
    };
    for good in [
        with("p256", "use", json!("sig")),
        with("p256", "alg", json!("ES256")),
        with("p256", "key_ops", json!(["verify"])),
        with("rsa", "alg", json!("PS512")),
    ] {
        assert_eq!(take(json!([good])), Ok(()), "{good}");
    }
    for wrong in [
        json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0" }),
        json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256", "use": "sig" }),
        with("p256", "use", json!("enc")),
        with("p256", "use", json!(7)),
        with("p256", "alg", json!("ES384")),
        with("p256", "alg", json!("HS256")),
        with("p256", "alg", json!("none")),
        with("p256", "key_ops", json!(["encrypt"])),
        with("p256", "crv", json!("P-384")),
        with("p256", "x", json!("AA")),
        with("ed", "crv", json!("X25519")),
        with("rsa", "n", json!("AQAB")),
        with("rsa", "e", json!("AQ")),
        with("rsa", "e", json!("AAAAAAAB")),
        with("rsa", "n", json!("not base64url!")),
        json!("k"),
        json!(["OKP", "k", null, null, null, "Ed25519", null, null, jwk("ed", "k")["x"], null]),
    ] {
        let answer = take(json!([wrong]));
        assert!(matches!(answer, Err(KeyError::NoUsableKey(_))), "{wrong} {answer:?}");
        assert_eq!(take(json!([wrong, jwk("ed", "good")])), Ok(()));
    }
    let array = json!([[jwk("ed", "k")]]).to_string();
    for document in ["", "{}", "[]", &array, r#"{"keys":7}"#, &" ".repeat(300 * 1024)] {
        let answer = JwtAuthenticator::from_jwks(document, JwtConfig::default());
        assert!(matches!(answer, Err(KeyError::NotAJwks(_))));
    }
    let many = vec![jwk("ed", "k"); 65];
    assert!(matches!(take(json!(many)), Err(KeyError::NotAJwks(_))));
}
