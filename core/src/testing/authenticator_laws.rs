//! What every [`Authenticator`] promises, one function per law.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request};

use super::bus_node::in_time;
use crate::{AuthError, Authenticator, ConnectRequest, Identity};

/// How the laws get an authenticator and what it judges.
pub trait AuthenticatorFixture: Sized {
    /// Makes an authenticator.
    fn start() -> impl Future<Output = Self>;

    /// The authenticator.
    fn authenticator(&self) -> Arc<dyn Authenticator>;

    /// Requests of at least two users, with credentials that are good for the next minutes.
    fn good(&self) -> Vec<ConnectRequest>;

    /// Requests with credentials of its kind that are no good: expired, forged, made for somebody else.
    fn bad(&self) -> Vec<ConnectRequest>;
}

/// Makes one `#[test]` of each law of an [`Authenticator`](crate::Authenticator), for an
/// [`AuthenticatorFixture`](crate::testing::authenticator_laws::AuthenticatorFixture). One that is not
/// about tokens, or lets everybody in, names the laws that are meant for it: `authenticator_laws! { Fixture: law … }`.
#[macro_export]
macro_rules! authenticator_laws {
    ($fixture:ty) => {
        $crate::authenticator_laws! { $fixture:
            good_credentials_are_somebodys
            the_same_request_gets_the_same_answer
            no_credentials_are_missing
            bad_credentials_are_refused
            hostile_credentials_are_nobodys
            a_changed_token_is_nobodys
            a_token_means_the_same_wherever_it_is
            nothing_else_in_a_request_changes_who_it_is
            many_at_once_get_their_own
            secrets_are_not_shown
        }
    };
    ($fixture:ty: $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                $crate::testing::bus_laws::run($crate::testing::authenticator_laws::$law::<$fixture>());
            }
        )*
    };
}

/// Good credentials give an identity with a user.
pub async fn good_credentials_are_somebodys<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let mut users = Vec::new();
    for request in fixture.good() {
        let who = known(&fixture.authenticator(), &request).await;
        assert!(!who.user.as_str().is_empty(), "a user has a name");
        assert_ne!(who.tenant.name(), Some(""), "a tenant that is named has a name");
        users.push((who.tenant, who.user));
    }
    users.dedup();
    assert!(users.len() >= 2, "the fixture gives requests of two users in turn");
}

/// While nothing outside has changed, the same request gets the same answer.
pub async fn the_same_request_gets_the_same_answer<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let authenticator = fixture.authenticator();
    for request in fixture.good().iter().chain(&fixture.bad()) {
        let first = judge(&authenticator, request).await;
        for _ in 0..5 {
            let again = judge(&authenticator, request).await;
            assert_eq!(first.as_ref().ok(), again.as_ref().ok());
        }
    }
}

/// A request without credentials is [`AuthError::Missing`], so that the next authenticator may try.
pub async fn no_credentials_are_missing<F: AuthenticatorFixture>() {
    let authenticator = F::start().await.authenticator();
    let bare = read(Request::builder().uri("/ws?room=a&token="));
    let other = read(Request::builder().uri("/ws").header("cookie", "theme=dark"));
    let basic = read(Request::builder().uri("/ws").header("authorization", "Basic YTpi"));
    for request in [ConnectRequest::default(), bare, other, basic] {
        let answer = judge(&authenticator, &request).await;
        assert!(matches!(answer, Err(AuthError::Missing)), "{answer:?}");
    }
}

/// Credentials of its kind that are no good are [`AuthError::Refused`]: final, and not the next one's.
pub async fn bad_credentials_are_refused<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let bad = fixture.bad();
    assert!(!bad.is_empty(), "the fixture gives bad credentials");
    for (place, request) in bad.iter().enumerate() {
        let answer = judge(&fixture.authenticator(), request).await;
        assert!(matches!(answer, Err(AuthError::Refused(_))), "{place}: {answer:?}");
    }
}

/// What is no credential at all is nobody's, soon and without a panic, however long it is.
pub async fn hostile_credentials_are_nobodys<F: AuthenticatorFixture>() {
    let authenticator = F::start().await.authenticator();
    for token in hostile() {
        let answer = judge(&authenticator, &with_token(&token)).await;
        let nobody = matches!(answer, Err(AuthError::Refused(_) | AuthError::Missing));
        assert!(nobody, "{} bytes, {answer:?}", token.len());
    }
}

/// A good token that is cut, grown or changed anywhere is not another's.
pub async fn a_changed_token_is_nobodys<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let authenticator = fixture.authenticator();
    for token in tokens(&fixture.good()) {
        for changed in changes(&token) {
            let answer = judge(&authenticator, &with_token(&changed)).await;
            assert!(matches!(answer, Err(AuthError::Refused(_))), "{answer:?} for a changed token");
        }
        known(&authenticator, &with_token(&token)).await;
    }
}

/// By header, as a subprotocol, by query, by cookie: the same token is the same identity.
pub async fn a_token_means_the_same_wherever_it_is<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let authenticator = fixture.authenticator();
    for token in tokens(&fixture.good()) {
        let who = known(&authenticator, &with_token(&token)).await;
        let encoded: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        for request in [
            Request::builder().header("authorization", format!("Bearer {token}")),
            Request::builder().header("cookie", format!("theme=dark; {COOKIE}={token}")),
            Request::builder().header("sec-websocket-protocol", format!("tidings.token.{token}")),
            Request::builder().uri(format!("/ws?room=a&token={encoded}")),
        ] {
            assert_eq!(known(&authenticator, &read(request)).await, who);
        }
    }
}

/// Headers and parameters that are not its credentials make nobody another.
pub async fn nothing_else_in_a_request_changes_who_it_is<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let authenticator = fixture.authenticator();
    for mut request in fixture.good() {
        let who = known(&authenticator, &request).await;
        for name in
            ["x-user", "x-user-id", "x-forwarded-user", "x-tenant-id", "remote-user", "host"]
        {
            let value = HeaderValue::from_static("root");
            request.headers.insert(HeaderName::from_static(name), value);
        }
        request.uri = "/ws?user=root&tenant=other&userId=root".parse().expect("a path is a URI");
        request.peer = Some(([127, 0, 0, 1], 1).into());
        assert_eq!(known(&authenticator, &request).await, who);
    }
}

/// Requests that are judged at the same time each get their own answer.
pub async fn many_at_once_get_their_own<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let authenticator = fixture.authenticator();
    let (good, bad) = (fixture.good(), fixture.bad());
    let mut alone = Vec::new();
    for request in good.iter().chain(&bad) {
        alone.push(judge(&authenticator, request).await.ok());
    }
    let rounds = (0..20).flat_map(|_| good.iter().chain(&bad));
    let together = join_all(rounds.map(|request| judge(&authenticator, request))).await;
    for (answer, expected) in together.into_iter().zip(alone.iter().cycle()) {
        assert_eq!(answer.ok(), *expected);
    }
}

/// No `Debug` and no error shows a token.
pub async fn secrets_are_not_shown<F: AuthenticatorFixture>() {
    let fixture = F::start().await;
    let authenticator = fixture.authenticator();
    let bad = fixture.bad();
    let hostile = hostile().into_iter().map(|token| with_token(&token)).collect::<Vec<_>>();
    for request in fixture.good().iter().chain(&bad).chain(&hostile) {
        let answer = judge(&authenticator, request).await;
        let mut shown = format!("{authenticator:?} {request:?} {answer:?}");
        let mut cause = answer.as_ref().err().map(|error| error as &dyn Error);
        while let Some(error) = cause {
            shown += &format!(" {error}");
            cause = error.source();
        }
        // What is shorter may be a part of any text.
        let token = request.token.as_ref().map(crate::Token::expose).filter(|t| t.len() > 12);
        assert!(token.is_none_or(|token| !shown.contains(token)), "a token is shown");
        // Nor a part of it, such as a signature.
        let parts = token.into_iter().flat_map(|token| token.split('.')).filter(|p| p.len() > 30);
        for part in parts {
            assert!(!shown.contains(part), "a part of a token is shown");
        }
    }
}

async fn judge(
    authenticator: &Arc<dyn Authenticator>,
    request: &ConnectRequest,
) -> Result<Identity, AuthError> {
    in_time("an answer", authenticator.authenticate(request)).await
}

async fn known(authenticator: &Arc<dyn Authenticator>, request: &ConnectRequest) -> Identity {
    match judge(authenticator, request).await {
        Ok(who) => who,
        Err(error) => panic!("good credentials: {error}"),
    }
}

fn read(request: http::request::Builder) -> ConnectRequest {
    ConnectRequest::read(&request.body(()).expect("a law's request is one"), COOKIE)
}

fn with_token(token: &str) -> ConnectRequest {
    ConnectRequest::default().with_token(token)
}

fn tokens(requests: &[ConnectRequest]) -> Vec<String> {
    let tokens = requests.iter().filter_map(|request| request.token.as_ref());
    let tokens: Vec<_> = tokens.map(|token| token.expose().to_owned()).collect();
    assert!(!tokens.is_empty(), "this law is about tokens, and the fixture gives none");
    tokens
}

/// Cut short, grown, and with another character at each of many places.
fn changes(token: &str) -> Vec<String> {
    let chars: Vec<char> = token.chars().collect();
    let mut changed = vec![format!("{token}A"), format!("A{token}"), format!("{token}.{token}")];
    let step = (chars.len() / 16).max(1);
    for place in (0..chars.len()).step_by(step) {
        let mut other = chars.clone();
        other[place] = if other[place] == 'A' { 'B' } else { 'A' };
        changed.push(other.into_iter().collect());
        if place > 0 {
            changed.push(chars[..place].iter().collect());
        }
    }
    changed
}

fn hostile() -> Vec<String> {
    let mut tokens: Vec<String> = [
        ".",
        "..",
        "...",
        "a.b.c",
        "null",
        "undefined",
        "true",
        "{}",
        "[]",
        "\"\"",
        "\0",
        "\u{feff}",
        "../../etc/passwd",
        "' OR 1=1 --",
        "eyJhbGciOiJub25lIn0.e30.",
        "Bearer Bearer Bearer",
        "ü.ü.ü",
        "%00%ff%n%s",
        "${jndi:ldap://x}",
        "\r\nX-User: root",
        "😀😀😀.😀😀😀",
    ]
    .map(str::to_owned)
    .into();
    tokens.extend(
        ["x", ".", "a.", "{", "[", "\u{10ffff}"].map(|part| part.repeat(LONG / part.len())),
    );
    tokens.extend((1..=255u8).map(|byte| char::from(byte).to_string().repeat(usize::from(byte))));
    tokens
}

/// Where a browser keeps the token.
const COOKIE: &str = "wsToken";
/// Far longer than any token, in bytes.
const LONG: usize = 1 << 20;
