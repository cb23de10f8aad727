//! The authenticators of core, and one of an application's own, keep the laws that are meant for them.

#![cfg(feature = "testing")]

use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::testing::authenticator_laws::AuthenticatorFixture;
use tidings_core::{
    Anonymous, AuthError, Authenticator, ConnectRequest, FirstOf, Identity, UserId,
};

/// Whom the application's own middleware found.
#[derive(Debug, Clone)]
struct SessionUser(&'static str);

/// Takes over the user of the application's session.
#[derive(Debug)]
struct FromSession;

#[async_trait]
impl Authenticator for FromSession {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let user = request.extensions.get::<SessionUser>().ok_or(AuthError::Missing)?;
        let user = UserId::new(user.0).map_err(|e| AuthError::Refused(e.to_string()))?;
        Ok(Identity::user(user))
    }
}

/// Knows two tokens.
#[derive(Debug)]
struct ByToken;

#[async_trait]
impl Authenticator for ByToken {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.token.as_ref().ok_or(AuthError::Missing)?;
        let known = TOKENS.iter().find(|(known, _)| *known == token.expose());
        let (_, user) = known.ok_or_else(|| AuthError::Refused("no such token".to_owned()))?;
        UserId::new(*user).map(Identity::user).map_err(|e| AuthError::Refused(e.to_string()))
    }
}

const TOKENS: [(&str, &str); 2] = [("the-token-of-ada-1", "ada"), ("the-token-of-bob-2", "bob")];

fn of_session(user: &'static str) -> ConnectRequest {
    let mut request = ConnectRequest::default();
    request.extensions.insert(SessionUser(user));
    request
}

fn with_token(token: &str) -> ConnectRequest {
    ConnectRequest::default().with_token(token)
}

struct First(Arc<FirstOf>);

impl AuthenticatorFixture for First {
    async fn start() -> Self {
        Self(Arc::new(FirstOf(vec![Arc::new(FromSession), Arc::new(ByToken)])))
    }

    fn authenticator(&self) -> Arc<dyn Authenticator> {
        self.0.clone()
    }

    fn good(&self) -> Vec<ConnectRequest> {
        let tokens = TOKENS.iter().map(|(token, _)| with_token(token));
        tokens.chain([of_session("cyd")]).collect()
    }

    fn bad(&self) -> Vec<ConnectRequest> {
        vec![with_token("the-token-of-nobody"), of_session("")]
    }
}

mod first_of {
    tidings_core::authenticator_laws!(super::First);
}

struct Session;

impl AuthenticatorFixture for Session {
    async fn start() -> Self {
        Self
    }

    fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(FromSession)
    }

    fn good(&self) -> Vec<ConnectRequest> {
        vec![of_session("ada"), of_session("bob")]
    }

    fn bad(&self) -> Vec<ConnectRequest> {
        vec![of_session("")]
    }
}

mod from_session {
    tidings_core::authenticator_laws! { super::Session:
        good_credentials_are_somebodys
        the_same_request_gets_the_same_answer
        no_credentials_are_missing
        bad_credentials_are_refused
        hostile_credentials_are_nobodys
        nothing_else_in_a_request_changes_who_it_is
        many_at_once_get_their_own
        secrets_are_not_shown
    }
}

struct Everybody;

impl AuthenticatorFixture for Everybody {
    async fn start() -> Self {
        Self
    }

    fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(Anonymous)
    }

    fn good(&self) -> Vec<ConnectRequest> {
        vec![ConnectRequest::default(), with_token("whatever it is")]
    }

    fn bad(&self) -> Vec<ConnectRequest> {
        Vec::new()
    }
}

mod anonymous {
    tidings_core::authenticator_laws! { super::Everybody:
        the_same_request_gets_the_same_answer
        a_token_means_the_same_wherever_it_is
        nothing_else_in_a_request_changes_who_it_is
        many_at_once_get_their_own
        secrets_are_not_shown
    }
}
