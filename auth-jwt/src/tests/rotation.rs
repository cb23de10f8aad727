//! Keys that rotate, sources that fail.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use tidings_core::AuthError;
use tokio::sync::Notify;

use super::*;
use crate::signature::Algorithm::{ES256, EdDSA};
use crate::{
    Document, FileSource, Jwks, JwksConfig, JwtAuthenticator, JwtConfig, KeySource, SourceError,
};

/// A source that is told what to answer, and counts.
#[derive(Debug, Default, Clone)]
struct Told(Arc<Script>);

#[derive(Debug, Default)]
struct Script {
    answer: Mutex<Option<String>>,
    reads: AtomicUsize,
    /// What it says of how long its keys are fresh, in seconds.
    fresh_for: Mutex<Option<u64>>,
    /// When set, a read waits for `go`.
    slow: std::sync::atomic::AtomicBool,
    go: Notify,
}

impl Script {
    fn document(&self, text: String) -> Document {
        let fresh_for = self.fresh_for.lock().expect("a lock").map(Duration::from_secs);
        Document { fresh_for, ..text.into() }
    }
}

#[async_trait]
impl KeySource for Told {
    async fn fetch(&self) -> Result<Document, SourceError> {
        self.0.reads.fetch_add(1, SeqCst);
        if self.0.slow.load(SeqCst) {
            self.0.go.notified().await;
        }
        let answer = self.0.answer.lock().expect("a lock").clone();
        answer.map(|text| self.0.document(text)).ok_or_else(|| SourceError("down".into()))
    }
}

impl Told {
    fn answer(&self, keys: &[Value]) {
        let set = json!({ "keys": keys }).to_string();
        *self.0.answer.lock().expect("a lock") = Some(set);
    }

    fn fail(&self) {
        *self.0.answer.lock().expect("a lock") = None;
    }

    fn reads(&self) -> usize {
        self.0.reads.load(SeqCst)
    }

    /// The same after a read in the background, which this test's one thread gets to only in a pause.
    async fn reads_in_all(&self) -> usize {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.reads()
    }

    fn authenticator(&self) -> JwtAuthenticator {
        let jwks = Jwks::new(self.clone(), JwksConfig::default());
        JwtAuthenticator::rotating(jwks, JwtConfig::default())
    }
}

fn ed() -> String {
    token("ed", EdDSA, Some("one"))
}

fn ec() -> String {
    token("p256", ES256, Some("two"))
}

async fn is_refused(who: &JwtAuthenticator, token: &str, now: Now) -> bool {
    matches!(who.identify_at(token, now).await, Err(AuthError::Refused(_)))
}

async fn is_unavailable(who: &JwtAuthenticator, token: &str, now: Now) -> bool {
    matches!(who.identify_at(token, now).await, Err(AuthError::Unavailable(_)))
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_in_a_cooldown() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    source.answer(&[jwk("ed", "one"), jwk("p256", "two")]);
    // What was read as it came is final, what has not been looked for is not.
    assert!(is_refused(&who, &ec(), now).await);
    for seconds in [1, 29] {
        assert!(is_unavailable(&who, &ec(), later(now, seconds)).await);
        assert!(who.identify_at(&ed(), later(now, seconds)).await.is_ok());
    }
    assert_eq!(source.reads(), 1);
    assert!(who.identify_at(&ec(), later(now, 30)).await.is_ok());
    assert_eq!(source.reads(), 2);
    for kid in ["a", "b", "c"] {
        let stray = token("ed", EdDSA, Some(kid));
        assert!(is_unavailable(&who, &stray, later(now, 31)).await);
        assert!(who.identify_at(&ec(), later(now, 31)).await.is_ok());
    }
    assert_eq!(source.reads(), 2);
}

#[tokio::test]
async fn a_stray_key_keeps_no_new_key_out_for_good() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    // A stranger has the keys read just before they rotate.
    assert!(is_refused(&who, &token("ed", EdDSA, Some("stray")), later(now, 30)).await);
    source.answer(&[jwk("p256", "two")]);
    for seconds in [31, 59] {
        assert!(is_unavailable(&who, &ec(), later(now, seconds)).await, "after {seconds}");
    }
    assert!(who.identify_at(&ec(), later(now, 60)).await.is_ok());
    assert_eq!(source.reads(), 3);
}

#[tokio::test]
async fn who_comes_during_a_read_that_began_before_is_told_nothing_final() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    source.0.slow.store(true, SeqCst);
    let ask = |token: String, seconds| {
        let who = who.clone();
        crate::spawn::spawn(async move { who.identify_at(&token, later(now, seconds)).await })
    };
    let first = ask(ec(), 30);
    assert_eq!(source.reads_in_all().await, 2);
    let second = ask(ec(), 31);
    source.0.go.notify_one();
    assert!(matches!(first.await.expect("no panic"), Err(AuthError::Refused(_))));
    // The document may have been fetched before its key was published.
    assert!(matches!(second.await.expect("no panic"), Err(AuthError::Unavailable(_))));
    assert_eq!(source.reads(), 2);
}

#[tokio::test]
async fn claims_that_are_no_good_have_no_keys_read() {
    let source = Told::default();
    let config = JwtConfig { issuer: Some("me".into()), ..JwtConfig::default() };
    let jwks = Jwks::new(source.clone(), JwksConfig::default());
    let who = JwtAuthenticator::rotating(jwks, config);
    for claims in [
        json!({ "sub": "ada", "iss": "me", "exp": NOW - 60 }),
        json!({ "sub": "ada", "iss": "you", "exp": NOW + 60 }),
        json!({ "sub": 7, "iss": "me", "exp": NOW + 60 }),
    ] {
        let header = r#"{"alg":"EdDSA","kid":"stray"}"#;
        let stray = signed(header, &claims.to_string(), &private("ed"), EdDSA);
        assert!(is_refused(&who, &stray, at(NOW)).await, "{claims}");
    }
    assert_eq!(source.reads(), 0);
}

#[tokio::test]
async fn keys_without_names_rotate_too() {
    let nameless = |key: &str| {
        let mut entry = jwk(key, "");
        entry.as_object_mut().expect("an object").remove("kid");
        entry
    };
    let source = Told::default();
    // Of the same kind, and not the one that signs.
    let mut other = nameless("ed");
    other["x"] = URL_SAFE_NO_PAD.encode([1; 32]).into();
    source.answer(&[other]);
    let (who, now) = (source.authenticator(), at(NOW));
    for token in [token("ed", EdDSA, None), ed()] {
        assert!(is_refused(&who, &token, now).await);
        assert!(is_unavailable(&who, &token, later(now, 1)).await);
    }
    source.answer(&[nameless("ed")]);
    for token in [token("ed", EdDSA, None), ed()] {
        assert!(who.identify_at(&token, later(now, 30)).await.is_ok());
    }
    assert_eq!(source.reads(), 2);
}

#[tokio::test]
async fn all_who_wait_share_one_read() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    source.0.slow.store(true, SeqCst);
    let (who, now) = (source.authenticator(), at(NOW));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let who = who.clone();
            crate::spawn::spawn(async move { who.identify_at(&ed(), now).await.is_ok() })
        })
        .collect();
    while source.reads() == 0 {
        tokio::task::yield_now().await;
    }
    source.0.go.notify_one();
    for one in waiting {
        assert!(one.await.expect("no panic"));
    }
    assert_eq!(source.reads(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_undoes_no_read() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    source.0.slow.store(true, SeqCst);
    let (who, now) = (source.authenticator(), at(NOW));
    let gone = {
        let who = who.clone();
        crate::spawn::spawn(async move { who.identify_at(&ed(), now).await.is_ok() })
    };
    while source.reads() == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.is_err());
    source.0.go.notify_one();
    assert!(who.identify_at(&ed(), now).await.is_ok());
    assert_eq!(source.reads(), 1);
}

#[tokio::test]
async fn without_keys_it_is_unavailable_and_tried_again_after_the_cooldown() {
    let source = Told::default();
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(is_unavailable(&who, &ed(), now).await);
    assert!(is_unavailable(&who, &ed(), later(now, 1)).await);
    assert_eq!(source.reads(), 1);
    source.answer(&[jwk("ed", "one")]);
    assert!(who.identify_at(&ed(), later(now, 30)).await.is_ok());
}

#[tokio::test]
async fn good_keys_outlive_a_failing_source() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    source.fail();
    assert!(is_unavailable(&who, &ec(), later(now, 30)).await);
    assert!(who.identify_at(&ed(), later(now, 30)).await.is_ok());
    assert_eq!(source.reads_in_all().await, 2);
    // The token is judged at its own time; only the keys grow old.
    let broken = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    let answers = [(700, None), (800, Some("<html>".to_owned())), (900, Some(broken))];
    for (reads, (seconds, answer)) in (3..).zip(answers) {
        *source.0.answer.lock().expect("a lock") = answer;
        let old = Now { unix: NOW, ..later(now, seconds) };
        assert!(who.identify_at(&ed(), old).await.is_ok());
        assert_eq!(source.reads_in_all().await, reads);
        assert!(who.identify_at(&ed(), old).await.is_ok(), "after {seconds}");
        assert!(is_unavailable(&who, &ec(), old).await, "after {seconds}");
    }
}

#[tokio::test]
async fn nobody_with_a_known_key_waits_for_old_keys_to_be_read_again() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    source.answer(&[jwk("ed", "one"), jwk("p256", "two")]);
    source.0.slow.store(true, SeqCst);
    let old = Now { unix: NOW, ..later(now, 700) };
    let token = ed();
    for _ in 0..3 {
        // It answers when first polled; the source is not let go yet.
        tokio::select! {
            biased;
            answer = who.identify_at(&token, old) => assert!(answer.is_ok()),
            () = std::future::ready(()) => panic!("it waits"),
        }
        assert_eq!(source.reads_in_all().await, 2);
    }
    let waiting = crate::spawn::spawn({
        let who = who.clone();
        async move { who.identify_at(&ec(), old).await.is_ok() }
    });
    assert_eq!(source.reads_in_all().await, 2);
    assert!(!waiting.is_finished());
    source.0.go.notify_one();
    assert!(waiting.await.expect("no panic"));
    assert!(who.identify_at(&ed(), old).await.is_ok());
    assert_eq!(source.reads_in_all().await, 2);
}

#[tokio::test]
async fn a_withdrawn_key_ends_when_the_keys_are_old() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one"), jwk("p256", "two")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    source.answer(&[jwk("p256", "two")]);
    let almost = Now { unix: NOW, ..later(now, 599) };
    assert!(who.identify_at(&ed(), almost).await.is_ok());
    let old = Now { unix: NOW, ..later(now, 600) };
    // This one has them read again; from then on the key is unknown.
    assert!(who.identify_at(&ed(), old).await.is_ok());
    assert_eq!(source.reads_in_all().await, 2);
    assert!(is_refused(&who, &ed(), old).await);
    assert!(who.identify_at(&ec(), old).await.is_ok());
    assert_eq!(source.reads_in_all().await, 2);
}

#[tokio::test]
async fn a_source_says_within_bounds_how_long_its_keys_are_fresh() {
    for (said, age) in [(0, 60), (15, 60), (90, 90), (u64::MAX, 3600)] {
        let source = Told::default();
        source.answer(&[jwk("ed", "one")]);
        *source.0.fresh_for.lock().expect("a lock") = Some(said);
        let (who, now) = (source.authenticator(), at(NOW));
        for (seconds, reads) in [(0, 1), (age - 1, 1), (age, 2)] {
            let then = Now { unix: NOW, ..later(now, seconds) };
            assert!(who.identify_at(&ed(), then).await.is_ok());
            assert_eq!(source.reads_in_all().await, reads, "{said} said, after {seconds}");
        }
    }
}

#[tokio::test]
async fn keys_do_not_outlive_a_failing_source_for_ever() {
    let source = Told::default();
    source.answer(&[jwk("ed", "one")]);
    let (who, now) = (source.authenticator(), at(NOW));
    assert!(who.identify_at(&ed(), now).await.is_ok());
    source.fail();
    let day = 24 * 3600;
    let almost = Now { unix: NOW, ..later(now, day - 1) };
    assert!(who.identify_at(&ed(), almost).await.is_ok());
    let too_old = Now { unix: NOW, ..later(now, day) };
    assert!(is_unavailable(&who, &ed(), too_old).await);
    source.answer(&[jwk("ed", "one")]);
    let back = Now { unix: NOW, ..later(now, day + 30) };
    assert!(who.identify_at(&ed(), back).await.is_ok());
}

#[tokio::test]
async fn warm_keys_make_nobody_wait() {
    let source = Told::default();
    let jwks = Jwks::new(source.clone(), JwksConfig::default());
    assert_eq!(jwks.warm().await, Err(SourceError("down".into())));
    source.answer(&[jwk("ed", "one")]);
    assert_eq!(jwks.warm().await, Ok(()));
    let who = JwtAuthenticator::rotating(jwks, JwtConfig::default());
    let token = signed(
        r#"{"alg":"EdDSA","kid":"one"}"#,
        &json!({ "sub": "ada", "exp": clock::now().unix + 60 }).to_string(),
        &private("ed"),
        EdDSA,
    );
    assert!(who.identify_at(&token, clock::now()).await.is_ok());
    assert_eq!(source.reads(), 2);
}

#[tokio::test]
async fn a_source_that_hangs_is_given_up() {
    let source = Told::default();
    source.0.slow.store(true, SeqCst);
    let fetch_timeout = Duration::from_millis(20);
    let jwks = Jwks::new(source, JwksConfig { fetch_timeout, ..JwksConfig::default() });
    let who = JwtAuthenticator::rotating(jwks, JwtConfig::default());
    assert!(is_unavailable(&who, &ed(), at(NOW)).await);
}

#[derive(Debug)]
struct Panics;

#[async_trait]
impl KeySource for Panics {
    async fn fetch(&self) -> Result<Document, SourceError> {
        panic!("a source with a bug")
    }
}

#[tokio::test]
async fn a_source_that_panics_is_unavailable() {
    let jwks = Jwks::new(Panics, JwksConfig::default());
    let who = JwtAuthenticator::rotating(jwks, JwtConfig::default());
    assert!(is_unavailable(&who, &ed(), at(NOW)).await);
}

#[tokio::test]
async fn a_file_is_a_source() {
    let path = std::env::temp_dir().join(format!("tidings-jwks-{}.json", std::process::id()));
    let jwks = Jwks::new(FileSource::new(&path), JwksConfig::default());
    let (who, now) = (JwtAuthenticator::rotating(jwks, JwtConfig::default()), at(NOW));
    assert!(is_unavailable(&who, &ed(), now).await);
    let set = json!({ "keys": [jwk("ed", "one")] }).to_string();
    std::fs::write(&path, set).expect("a file");
    let answer = who.identify_at(&ed(), later(now, 30)).await;
    std::fs::remove_file(&path).expect("a file");
    assert!(answer.is_ok());
}
