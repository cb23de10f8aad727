//! What a handler may change of the connection that it is called for: its rooms.
//!
//! A connection that still pulls what it missed must pull a new room's too, else its cursor would pass what it lacks
//! there. So for as long as the handler runs the replay is in its hands.

use std::fmt;
use std::future::Future;

use tokio::sync::{Mutex, oneshot};

use super::handler::{Context, HandlerError};
use super::operations::{join, leave};
use super::replay::Replaying;
use super::spawn::spawn;
use crate::session::{JoinRequest, Outcome};
use crate::{ErrorCode, RoomId};

/// The replay that a handler has, if any; `None` once the handler has returned, or while its rooms change.
pub(crate) struct Handling(Mutex<Option<Option<Replaying>>>);

impl fmt::Debug for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handling")
    }
}

impl Context {
    /// The context of a handler that is called now, with the replay that is under way.
    pub(crate) fn handling(&self, replay: Option<Replaying>) -> Self {
        let handling = Handling(Mutex::new(Some(replay)));
        Self { handling: Some(handling.into()), ..self.clone() }
    }

    /// The handler has returned: the replay as it is now, once a change that is under way has ended.
    pub(crate) async fn handled(&self) -> Result<Option<Replaying>, Broken> {
        let handling = self.handling.as_ref().ok_or(Broken)?;
        handling.0.lock().await.take().ok_or(Broken)
    }

    /// Puts the client into a room, as if it had asked: the authorizer is asked, and the client gets `room:joined`. When
    /// this returns, what is published in the room reaches the client. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`HandlerError`], of which the client is told only when the handler returns it: `Forbidden`, `TooManyRooms`,
    /// `Unavailable`; `Internal` when the handler that this is the context of has returned already.
    pub async fn join(&self, room: RoomId) -> Result<(), HandlerError> {
        self.change(move |context, replay| async move {
            let request = JoinRequest { room, cursor: None, presence: false, id: None };
            let resume = replay.map(Replaying::stop);
            let (outcome, resume) = join(&context, context.number, request, resume).await;
            let result = match outcome {
                Outcome::Failed { code: ErrorCode::Forbidden, .. } => Err(HandlerError::Forbidden),
                Outcome::Failed { code: ErrorCode::TooManyRooms, .. } => {
                    Err(HandlerError::TooManyRooms)
                }
                Outcome::Failed { .. } => Err(HandlerError::Unavailable),
                _ => Ok(()),
            };
            (result, resume.map(Replaying::new))
        })
        .await
    }

    /// Takes the client out of a room; it gets `room:left`, also when it was not in. Dropping the future does not undo
    /// it.
    ///
    /// # Errors
    /// [`HandlerError::Internal`] when the handler that this is the context of has returned already.
    pub async fn leave(&self, room: RoomId) -> Result<(), HandlerError> {
        self.change(move |context, mut replay| async move {
            let topic = context.room(room.clone());
            replay.iter_mut().for_each(|replay| replay.leave(&topic));
            leave(&context, room, None, None).await;
            (Ok(()), replay)
        })
        .await
    }

    async fn change<C, F>(&self, change: C) -> Result<(), HandlerError>
    where
        C: FnOnce(Self, Option<Replaying>) -> F + Send + 'static,
        F: Future<Output = Changed> + Send + 'static,
    {
        let handling = self.handling.clone().ok_or(HandlerError::Internal)?;
        let (context, (answer, answered)) = (self.clone(), oneshot::channel());
        // In a task of its own: were it dropped in the middle, the replay would be gone.
        spawn(async move {
            let mut state = handling.0.lock().await;
            let Some(replay) = state.take() else { return };
            let (result, replay) = change(context, replay).await;
            *state = Some(replay);
            let _ = answer.send(result);
        });
        answered.await.unwrap_or(Err(HandlerError::Internal))
    }
}

/// How a change ended, and the replay as it is now.
type Changed = (Result<(), HandlerError>, Option<Replaying>);

/// A change of the rooms has panicked, and the replay is gone with it.
#[derive(Debug)]
pub(crate) struct Broken;
