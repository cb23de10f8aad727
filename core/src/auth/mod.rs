//! Who a client is and what it may do: [`Authenticator`], [`Authorizer`] and what they speak of.

mod credentials;

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{RoomId, TenantId, Topic, UserId};

pub use credentials::{ConnectRequest, Token, redact_query};

/// Tells who is asking.
///
/// `tidings_core::testing::authenticator_laws!` proves what is promised here.
#[async_trait]
pub trait Authenticator: Debug + Send + Sync + 'static {
    /// Who sent the request.
    ///
    /// # Behavior
    /// - The same request gets the same answer while nothing outside has changed.
    /// - Hostile input, of whatever length, gets [`AuthError::Refused`] or [`AuthError::Missing`] soon, never a panic.
    /// - What may be good, but cannot be told now, is [`AuthError::Unavailable`]: a refused client does not come back.
    /// - Only the credentials decide: no other header or parameter makes a client another.
    /// - A token means the same in the header, as a subprotocol, in the query and in the cookie.
    /// - Neither `Debug` nor an error shows a secret, nor text of a token as it is: errors end in logs.
    ///
    /// # Errors
    /// [`AuthError`] says what the client is told.
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError>;
}

/// Why a request is nobody's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There are no credentials of this authenticator's kind; the next one may try. 401, or 1008 `Unauthorized`.
    #[error("no credentials")]
    Missing,
    /// The credentials are no good. Final; the client learns nothing more. 401, or 1008 `Invalid token`.
    #[error("credentials refused: {0}")]
    Refused(String),
    /// It cannot be told now. Not the client's fault: 503, or 1013.
    #[error("credentials cannot be checked now: {0}")]
    Unavailable(String),
}

/// Who a client is.
#[derive(Clone, PartialEq)]
pub struct Identity {
    /// Whose users and rooms it sees.
    pub tenant: TenantId,
    /// Which user it is.
    pub user: UserId,
    /// When this ends, in seconds since 1970; `None` for never.
    pub expires_at: Option<u64>,
    /// What else is known, for authorizers and handlers.
    pub claims: Claims,
}

impl Identity {
    /// A user of the default tenant, without an end and without claims.
    pub fn user(user: UserId) -> Self {
        Self { tenant: TenantId::default(), user, expires_at: None, claims: Claims::default() }
    }
}

impl Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("tenant", &self.tenant)
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What an authenticator knows beyond the name: a JSON object, kept as text.
#[derive(Clone, PartialEq, Default)]
pub struct Claims(Option<Bytes>);

impl Claims {
    /// Keeps a JSON object.
    ///
    /// # Errors
    /// [`ClaimsError`] when `json` is not one.
    pub fn new(json: impl Into<Bytes>) -> Result<Self, ClaimsError> {
        let json = json.into();
        let read = serde_json::from_slice::<Fields<'_>>(&json);
        read.map_err(|error| ClaimsError(error.to_string()))?;
        Ok(Self(Some(json)))
    }

    /// The claim of this name, when there is one and it is a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let fields: Fields<'_> = serde_json::from_slice(self.0.as_ref()?).ok()?;
        fields.get(name).and_then(|value| serde_json::from_str(value.get()).ok())
    }

    /// Whether there is a claim of this name, of whatever kind.
    pub fn has(&self, name: &str) -> bool {
        self.get::<serde::de::IgnoredAny>(name).is_some()
    }
}

impl Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(…)")
    }
}

/// Claims that are not a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("claims must be a JSON object: {0}")]
pub struct ClaimsError(String);

type Fields<'a> = std::collections::HashMap<std::borrow::Cow<'a, str>, &'a RawValue>;

/// Says what a client may do. There is no silent open door: a hub is given one by name.
#[async_trait]
pub trait Authorizer: Debug + Send + Sync + 'static {
    /// Whether `who` may do `action`.
    ///
    /// # Errors
    /// [`Denied`] says what the client is told.
    async fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied>;
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Join a room and read what it retains.
    Join(&'a RoomId),
    /// Publish to a topic, through the application's handler.
    Publish(&'a Topic),
}

/// Why an action is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// It is not allowed: `forbidden`.
    #[error("not allowed")]
    Forbidden,
    /// It cannot be told now: `unavailable`.
    #[error("cannot be decided now")]
    Unavailable,
}

/// Allows everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _: &Identity, _: Action<'_>) -> Result<(), Denied> {
        Ok(())
    }
}

/// Takes everyone for the user `anonymous`, for servers without accounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _: &ConnectRequest) -> Result<Identity, AuthError> {
        UserId::new("anonymous").map(Identity::user).map_err(|e| AuthError::Refused(e.to_string()))
    }
}

/// Asks one authenticator after another, until one does not say [`AuthError::Missing`].
#[derive(Debug, Clone, Default)]
pub struct FirstOf(pub Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for FirstOf {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        for authenticator in &self.0 {
            match authenticator.authenticate(request).await {
                Err(AuthError::Missing) => {}
                answer => return answer,
            }
        }
        Err(AuthError::Missing)
    }
}
