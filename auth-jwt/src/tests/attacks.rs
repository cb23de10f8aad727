//! Hostile tokens: each is refused, none panics.

use serde_json::json;
use tidings_core::AuthError;

use super::*;
use crate::signature::Algorithm::{EdDSA, HS256, RS256};
use crate::{JwtAuthenticator, JwtConfig, sign_hs256};

fn authenticators() -> [JwtAuthenticator; 3] {
    let set = json!({ "keys": [jwk("rsa", "k"), jwk("ed", "e")] }).to_string();
    [
        JwtAuthenticator::hs(SECRET, JwtConfig::default()).expect("a secret"),
        JwtAuthenticator::from_pem(RSA_PUB, JwtConfig::default()).expect("a key"),
        JwtAuthenticator::from_jwks(set, JwtConfig::default()).expect("a set"),
    ]
}

async fn all_refuse(token: &str, what: &str) {
    for authenticator in authenticators() {
        let answer = authenticator.identify_at(token, at(NOW)).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn the_same_tokens_without_malice_are_accepted() {
    let [hs, pem, set] = authenticators();
    let plain = r#"{"sub":"a","exp":1700000060}"#;
    assert!(hs.identify_at(&sign_hs256(SECRET, plain), at(NOW)).await.is_ok());
    let rsa = signed(r#"{"alg":"RS256"}"#, plain, &private("rsa"), RS256);
    assert!(pem.identify_at(&rsa, at(NOW)).await.is_ok());
    assert!(set.identify_at(&rsa, at(NOW)).await.is_ok());
}

#[tokio::test]
async fn hostile_headers_are_refused() {
    let good = claims().to_string();
    let secret = Signer::secret(SECRET);
    for alg in ["none", "None", "NONE", "nOnE", "", "HS1", "ES512", "RSA-OAEP"] {
        let header = json!({ "alg": alg }).to_string();
        let token = signed(&header, &good, &secret, HS256);
        all_refuse(&token, alg).await;
        let unsigned = token.rsplit_once('.').map(|(message, _)| format!("{message}."));
        all_refuse(&unsigned.expect("dots"), alg).await;
    }
    for header in [
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":"x"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"typ":"JWT"}"#,
        "[]",
        r#"["HS256"]"#,
        "null",
        "",
        "\u{0}",
    ] {
        all_refuse(&signed(header, &good, &secret, HS256), header).await;
        let rsa = header.replace("HS256", "RS256");
        all_refuse(&signed(&rsa, &good, &private("rsa"), RS256), &rsa).await;
    }
    let nested = format!(r#"{{"alg":"HS256","x":{}1{}}}"#, "[".repeat(2000), "]".repeat(2000));
    all_refuse(&signed(&nested, &good, &secret, HS256), "a deep header").await;
}

#[tokio::test]
async fn what_a_token_says_stands_in_no_error() {
    let good = claims().to_string();
    let secret = Signer::secret(SECRET);
    let forged = "\\nGET /publish 200 0ms\\u001b[31m\\u202eRED";
    let mut tokens = Vec::new();
    for header in [
        "{\"alg\":\"F\"}",
        "{\"alg\":{\"F\":1}}",
        "{\"F\":1,\"alg\":7}",
        "\"F\"",
        "{\"alg\":\"RS256\",\"kid\":\"F\"}",
    ] {
        tokens.push(signed(&header.replace('F', forged), &good, &secret, HS256));
    }
    for claims in [
        "{\"sub\":[\"F\"]}",
        "{\"exp\":\"F\"}",
        "\"F\"",
        "{\"F\":1}",
        r#"{"sub":"F","exp":1700000060}"#,
    ] {
        tokens.push(sign_hs256(SECRET, &claims.replace('F', forged)));
        tokens.push(signed(
            r#"{"alg":"RS256","kid":"k"}"#,
            &claims.replace('F', forged),
            &private("rsa"),
            RS256,
        ));
    }
    for token in tokens.iter().map(String::as_str).chain(["\nRED.\u{1b}[31m.x", "e30.RED\n.x"]) {
        for authenticator in authenticators() {
            let Err(error) = authenticator.identify_at(token, at(NOW)).await else {
                panic!("accepted: {token}");
            };
            let told = error.to_string();
            assert!(!told.contains(|c: char| c.is_control()) && !told.contains("RED"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let [_, pem, set] = authenticators();
    let point = der(RSA_PUB);
    for secret in [RSA_PUB.as_bytes(), RSA_PUB.trim_end().as_bytes(), &point] {
        let token = sign_hs256(secret, &claims().to_string());
        let kid = r#"{"alg":"HS256","kid":"k"}"#;
        let named = signed(kid, &claims().to_string(), &Signer::secret(secret), HS256);
        for authenticator in [&pem, &set] {
            for token in [&token, &named] {
                let answer = authenticator.identify_at(token, at(NOW)).await;
                assert!(matches!(answer, Err(AuthError::Refused(_))), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_kid_is_a_name_and_nothing_else() {
    let [_, _, set] = authenticators();
    for kid in ["../../dev/null", "/dev/null", "k\0", "K", "", "' OR 1=1", "http://x/k", "e"] {
        let answer = set.identify_at(&token("rsa", RS256, Some(kid)), at(NOW)).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{kid}");
    }
    assert!(set.identify_at(&token("rsa", RS256, Some("k")), at(NOW)).await.is_ok());
}

#[tokio::test]
async fn a_token_that_names_no_key_must_leave_no_choice() {
    let set = json!({ "keys": [jwk("rsa", "a"), jwk("rsa", "b"), jwk("ed", "e")] }).to_string();
    let set = JwtAuthenticator::from_jwks(set, JwtConfig::default()).expect("a set");
    let nameless = set.identify_at(&token("rsa", RS256, None), at(NOW)).await;
    assert!(matches!(nameless, Err(AuthError::Refused(_))));
    assert!(set.identify_at(&token("rsa", RS256, Some("b")), at(NOW)).await.is_ok());
    assert!(set.identify_at(&token("ed", EdDSA, None), at(NOW)).await.is_ok());
    // Nor does a name that no key has, among keys that have none.
    let nameless = |key: &str| {
        let mut entry = jwk(key, "");
        entry.as_object_mut().expect("an object").remove("kid");
        entry
    };
    for (keys, is_taken) in [
        (vec![nameless("rsa")], true),
        (vec![nameless("rsa"), nameless("ed"), jwk("rsa", "b")], true),
        (vec![nameless("rsa"), nameless("rsa")], false),
        (vec![nameless("ed"), jwk("rsa", "b")], false),
    ] {
        let set = json!({ "keys": keys }).to_string();
        let set = JwtAuthenticator::from_jwks(set, JwtConfig::default()).expect("a set");
        let answer = set.identify_at(&token("rsa", RS256, Some("x")), at(NOW)).await;
        assert_eq!(answer.is_ok(), is_taken, "{keys:?} {answer:?}");
    }
}

#[tokio::test]
async fn hostile_claims_are_refused() {
    for claims in [
        // exp
        r#"{"sub":"a"}"#.to_owned(),
        r#"{"sub":"a","exp":"1700000060"}"#.into(),
        r#"{"sub":"a","exp":1e30}"#.into(),
        r#"{"sub":"a","exp":1e400}"#.into(),
        r#"{"sub":"a","exp":NaN}"#.into(),
        r#"{"sub":"a","exp":Infinity}"#.into(),
        r#"{"sub":"a","exp":"NaN"}"#.into(),
        r#"{"sub":"a","exp":-1}"#.into(),
        r#"{"sub":"a","exp":-1700000060.5}"#.into(),
        r#"{"sub":"a","exp":100000000000.5}"#.into(),
        r#"{"sub":"a","exp":null}"#.into(),
        r#"{"sub":"a","exp":0}"#.into(),
        r#"{"sub":"a","exp":100000000001}"#.into(),
        r#"{"sub":"a","exp":18446744073709551615}"#.into(),
        r#"{"sub":"a","exp":18446744073709551616}"#.into(),
        r#"{"sub":"a","exp":1700000060,"exp":1700000060}"#.into(),
        format!(r#"{{"sub":"a","exp":{}}}"#, NOW - 5),
        // Rounded down: a token ends no later than it says.
        format!(r#"{{"sub":"a","exp":{}.999}}"#, NOW - 5),
        // nbf
        format!(r#"{{"sub":"a","exp":1700000060,"nbf":{}}}"#, NOW + 6),
        // Rounded up: it begins no sooner than it says.
        format!(r#"{{"sub":"a","exp":1700000060,"nbf":{}.001}}"#, NOW + 5),
        r#"{"sub":"a","exp":1700000060,"nbf":-0.5}"#.into(),
        r#"{"sub":"a","exp":1700000060,"nbf":"1"}"#.into(),
        r#"{"sub":"a","exp":1700000060,"nbf":null}"#.into(),
        r#"{"sub":"a","exp":1700000060,"nbf":1e300}"#.into(),
        // sub
        r#"{"exp":1700000060}"#.into(),
        r#"{"sub":"","exp":1700000060}"#.into(),
        r#"{"sub":7,"exp":1700000060}"#.into(),
        r#"{"sub":7.5,"exp":1700000060}"#.into(),
        r#"{"sub":null,"exp":1700000060}"#.into(),
        r#"{"sub":["a"],"exp":1700000060}"#.into(),
        r#"{"sub":"a\nb","exp":1700000060}"#.into(),
        r#"{"sub":"a","sub":"b","exp":1700000060}"#.into(),
        r#"{"sub":"a","s\u0075b":"b","exp":1700000060}"#.into(),
        format!(r#"{{"sub":"{}","exp":1700000060}}"#, "x".repeat(256)),
        // tenantId
        r#"{"sub":"a","exp":1700000060,"tenantId":""}"#.into(),
        r#"{"sub":"a","exp":1700000060,"tenantId":7}"#.into(),
        r#"{"sub":"a","exp":1700000060,"tenantId":null,"tenantId":"x"}"#.into(),
        r#"{"sub":"a","exp":1700000060,"tenantId":"\u0000"}"#.into(),
        r#"{"sub":"a","exp":1700000060,"tenantId":"x","tenantId":"y"}"#.into(),
        // no object
        String::new(),
        "null".into(),
        r#"["a",1700000060]"#.into(),
        r#"[1700000060,"a"]"#.into(),
        r#"{"sub":"a","exp":1700000060} x"#.into(),
        r#"{"sub":"a","exp":1700000060"#.into(),
        "[".repeat(5000),
    ] {
        all_refuse(&sign_hs256(SECRET, &claims), &claims).await;
    }
}

#[tokio::test]
async fn deep_nesting_neither_overflows_nor_matters() {
    let [hs, _, _] = authenticators();
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    let claims = format!(r#"{{"sub":"a","exp":1700000060,"x":{deep}}}"#);
    let ada = hs.identify_at(&sign_hs256(SECRET, &claims), at(NOW)).await.expect("an identity");
    assert!(ada.claims.has("x") && ada.claims.get::<serde_json::Value>("x").is_none());
}

#[tokio::test]
async fn wrong_or_missing_issuer_and_audience_are_refused() {
    let mut config = JwtConfig::default();
    (config.issuer, config.audience) = (Some("me".into()), Some("us".into()));
    let hs = JwtAuthenticator::hs(SECRET, config).expect("a secret");
    for (iss, aud) in [
        (json!("me"), json!("them")),
        (json!("me"), json!([])),
        (json!("me"), json!(["them"])),
        (json!("me"), json!(["us", 7])),
        (json!("me"), json!({ "us": 1 })),
        (json!("me"), json!(null)),
        (json!("me"), json!(5)),
        (json!("you"), json!("us")),
        (json!(["me"]), json!("us")),
        (json!({}), json!("us")),
        (json!(null), json!("us")),
        (json!("ME"), json!("us")),
    ] {
        let claims = json!({ "sub": "a", "exp": NOW + 9, "iss": iss, "aud": aud }).to_string();
        let answer = hs.identify_at(&sign_hs256(SECRET, &claims), at(NOW)).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{claims}");
    }
    for (present, value) in [("iss", "me"), ("aud", "us")] {
        let claims = json!({ "sub": "a", "exp": NOW + 9, present: value }).to_string();
        let answer = hs.identify_at(&sign_hs256(SECRET, &claims), at(NOW)).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{claims}");
    }
}

#[tokio::test]
async fn misshapen_tokens_are_refused() {
    let good = sign_hs256(SECRET, &claims().to_string());
    let (message, signature) = good.rsplit_once('.').expect("dots");
    let (header, payload) = message.split_once('.').expect("a dot");
    let other = sign_hs256(SECRET, r#"{"sub":"eve","exp":1700000060}"#);
    let other = other.split('.').nth(1).expect("claims");
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        "ä.ö.ü".into(),
        message.into(),
        format!("{message}."),
        format!("{good}."),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        format!(".{good}"),
        format!("{header}..{signature}"),
        format!("{header}.{other}.{signature}"),
        format!("{header}.{payload}.{}", &signature[1..]),
        format!("{header}.{payload}.{}", "A".repeat(43)),
        sign_hs256(b"another secret", &claims().to_string()),
        "x".repeat(1 << 20),
        format!("{header}.{}.{signature}", "A".repeat(1 << 20)),
        ".".repeat(8000),
    ] {
        all_refuse(&token, &token[..token.len().min(80)]).await;
    }
    let long = json!({ "sub": "a", "exp": NOW + 9, "x": "y".repeat(1 << 20) }).to_string();
    all_refuse(&sign_hs256(SECRET, &long), "1 MiB, well signed").await;
}
