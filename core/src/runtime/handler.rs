//! The application's own messages: [`Handler`], and what it can do with a [`Context`].

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::handling::Handling;
use super::hub::Hub;
use super::inbox::ShardHandle;
use super::observer::Event;
use super::types::PublishError;
use crate::machines::ConnectionKey;
use crate::{
    Action, BusError, ClientId, CloseReason, Denied, ErrorCode, Identity, Message, Outgoing,
    Publication, Receipt, RoomId, Topic,
};

/// What an application does with its clients' own messages.
///
/// ```
/// # use tidings_core::{CloseReason, Context, Handler, HandlerError, Message, Reply, RoomId};
/// #[derive(Debug)]
/// struct Lobby;
///
/// #[async_trait::async_trait]
/// impl Handler for Lobby {
///     /// Everyone begins in the lobby.
///     async fn on_connect(&self, context: &Context) -> Result<(), CloseReason> {
///         let lobby = RoomId::new("lobby").map_err(|_| CloseReason::INTERNAL)?;
///         context.join(lobby).await.map_err(|_| CloseReason::TRY_AGAIN_LATER)
///     }
///
///     async fn on_message(&self, _: &Context, _: &Message) -> Result<Reply, HandlerError> {
///         Ok(Reply::Unknown)
///     }
///
///     async fn on_disconnect(&self, _: &Context) {}
/// }
/// ```
///
/// A panic in it ends the connection that it was called for, with 1011, and no other.
///
/// A connection that ends takes its call along: `on_connect` and `on_message` may be dropped at any `await`. What must be
/// done to its end belongs into a task of its own.
#[async_trait]
pub trait Handler: Debug + Send + Sync + 'static {
    /// A client has connected and has been told so.
    ///
    /// # Errors
    /// The reason with which the connection then ends.
    async fn on_connect(&self, context: &Context) -> Result<(), CloseReason>;

    /// A client sent a message of the application's own.
    ///
    /// # Errors
    /// [`HandlerError`] is what the client gets as `error`.
    async fn on_message(&self, context: &Context, message: &Message)
    -> Result<Reply, HandlerError>;

    /// A client is gone. Called once for each [`on_connect`](Self::on_connect) that returned `Ok`, and for no other.
    ///
    /// What is sent to the client is lost. It counts as in its rooms while this runs, so that they can be told, for at
    /// most `close_deadline`: then this is dropped.
    async fn on_disconnect(&self, context: &Context);
}

/// What a handler answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing; the client gets `ok` when its message had an `id`.
    None,
    /// This message.
    Message(Message),
    /// The handler knows no such type: `unknown_type`.
    Unknown,
}

/// Why a handler did not do what a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// The payload is not what this type takes: `invalid_message`.
    #[error("the payload is not what this type takes")]
    Invalid,
    /// The client may not do this: `forbidden`.
    #[error("not allowed")]
    Forbidden,
    /// It cannot be done now: `unavailable`.
    #[error("cannot be done now")]
    Unavailable,
    /// The connection is in as many rooms as it may be: `too_many_rooms`.
    #[error("in too many rooms")]
    TooManyRooms,
    /// No answer came in time, so that it may have been done or not: `unavailable`, with a text that says so.
    #[error("no answer in time; it may have been done or not")]
    Unanswered,
    /// It is too long: `too_large`.
    #[error("too large")]
    TooLarge,
    /// The application's fault: `internal`.
    #[error("internal error")]
    Internal,
}

impl HandlerError {
    pub(crate) fn told(self) -> (ErrorCode, &'static str) {
        match self {
            Self::Invalid => (ErrorCode::InvalidMessage, "the payload is not what this type takes"),
            Self::Forbidden => (ErrorCode::Forbidden, "not allowed"),
            Self::Unavailable => (ErrorCode::Unavailable, "cannot be done now, try again"),
            Self::TooManyRooms => (ErrorCode::TooManyRooms, "this connection is in too many rooms"),
            Self::Unanswered => (
                ErrorCode::Unavailable,
                "no answer in time; it may have been done or not, so look before you repeat it",
            ),
            Self::TooLarge => (ErrorCode::TooLarge, "too large"),
            Self::Internal => (ErrorCode::Internal, "internal error"),
        }
    }
}

impl From<PublishError> for HandlerError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { .. } => Self::TooLarge,
            PublishError::Reserved => Self::Invalid,
            PublishError::Forbidden => Self::Forbidden,
            PublishError::Bus(BusError::TimedOut) => Self::Unanswered,
            PublishError::Bus(_) => Self::Unavailable,
        }
    }
}

/// Knows no messages: every one is answered `unknown_type`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHandler;

#[async_trait]
impl Handler for NoHandler {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }
    async fn on_message(&self, _: &Context, _: &Message) -> Result<Reply, HandlerError> {
        Ok(Reply::Unknown)
    }
    async fn on_disconnect(&self, _: &Context) {}
}

/// The connection that a handler is called for.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) hub: Hub,
    pub(crate) shard: ShardHandle,
    /// Which shard it is.
    pub(crate) number: usize,
    /// There while a handler runs.
    pub(crate) handling: Option<Arc<Handling>>,
    pub(crate) key: ConnectionKey,
    pub(crate) client: ClientId,
    pub(crate) identity: Arc<Identity>,
    /// Whether `on_connect` has returned `Ok`.
    pub(crate) accepted: Arc<AtomicBool>,
}

impl Context {
    /// Asks the handler whether the client may stay.
    pub(crate) async fn accept(&self) -> Result<(), CloseReason> {
        self.hub.0.handler.on_connect(self).await?;
        self.accepted.store(true, Ordering::Release);
        Ok(())
    }

    /// Who the client is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Which connection it is.
    pub fn client_id(&self) -> ClientId {
        self.client
    }

    /// The hub that the client is connected to.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The topic of a room of the client's tenant.
    pub fn room(&self, room: RoomId) -> Topic {
        Topic::room(self.identity.tenant.clone(), room)
    }

    /// Whether the client is in a room.
    pub async fn is_in(&self, room: &RoomId) -> bool {
        let (key, topic) = (self.key, self.room(room.clone()));
        self.shard.look(move |members| members.router.is_member(key, &topic)).await.unwrap_or(false)
    }

    /// Sends a message to this client alone.
    pub fn send(&self, message: Message) {
        let (key, message) = (self.key, Outgoing::event(message, None));
        self.shard.run(move |members| {
            members.router.get(key).into_iter().for_each(|slot| slot.send([&message]))
        });
    }

    /// Publishes on the client's behalf: the authorizer is asked.
    ///
    /// # Errors
    /// [`PublishError`]; a [`HandlerError`] can be made of it.
    pub async fn publish(&self, publication: Publication) -> Result<Receipt, PublishError> {
        let action = Action::Publish(&publication.topic);
        let error = match self.hub.authorize(&self.identity, action).await {
            Ok(()) => return self.hub.publish(publication).await,
            Err(Denied::Forbidden) => PublishError::Forbidden,
            Err(Denied::Unavailable) => {
                PublishError::Bus(BusError::Unavailable("authorizer".into()))
            }
        };
        let (outcome, took) = (Err(&error), Duration::ZERO);
        self.hub.0.observer.on(Event::Published { outcome, took });
        Err(error)
    }
}
