//! What the routes share, and the handler of the server's one message of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_core::{
    ClientId, CloseReason, Context, Frame, FrameReader, Handler, HandlerError, Hub, Identity,
    Message, Publication, ReadError, Reply, RoomId, Verdict, VerdictSender,
};
use tokio::sync::{mpsc, oneshot};

use crate::cli::Cli;

/// What the routes share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) hub: Hub,
    pub(crate) cli: Cli,
    pub(crate) node_id: String,
    pub(crate) publish_key: String,
    /// The secret that demo tokens are signed with; only in demo mode.
    pub(crate) demo_secret: Option<String>,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) started: tokio::time::Instant,
}

/// `room:message {roomId, data}`: publishes it to the room, with the sender's name, when the sender is in it.
#[derive(Debug)]
pub(crate) struct RoomMessages;

#[async_trait]
impl Handler for RoomMessages {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }

    async fn on_message(
        &self,
        context: &Context,
        message: &Message,
    ) -> Result<Reply, HandlerError> {
        #[derive(Deserialize)]
        struct Said<'a> {
            #[serde(rename = "roomId")]
            room_id: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        if message.kind.as_str() != "room:message" {
            return Ok(Reply::Unknown);
        }
        let payload = message.payload.as_ref().ok_or(HandlerError::Invalid)?;
        let said: Said<'_> =
            serde_json::from_slice(payload.bytes()).map_err(|_| HandlerError::Invalid)?;
        let room = RoomId::new(&said.room_id).map_err(|_| HandlerError::Invalid)?;
        if !context.is_in(&room).await {
            return Err(HandlerError::Forbidden);
        }
        let text = |text: &str| serde_json::to_string(text).map_err(|_| HandlerError::Internal);
        let (room_id, user_id) = (text(room.as_str())?, text(context.identity().user.as_str())?);
        let json =
            format!(r#"{{"roomId":{room_id},"userId":{user_id},"data":{}}}"#, said.data.get());
        let message = Message::json("room:message", json).map_err(|_| HandlerError::Invalid)?;
        context.publish(Publication::new(context.room(room), message)).await?;
        Ok(Reply::None)
    }

    async fn on_disconnect(&self, _: &Context) {}
}

/// Where POSTed messages go: one mailbox per event stream of this node.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Mutex<HashMap<ClientId, (Identity, mpsc::Sender<Frame>)>>);

/// The reading side of an event stream.
#[derive(Debug)]
pub(crate) struct Mailbox {
    app: Arc<App>,
    client: ClientId,
    frames: mpsc::Receiver<Frame>,
}

impl Mailbox {
    pub(crate) fn open(app: &Arc<App>, client: ClientId, who: Identity) -> Self {
        let (sender, frames) = mpsc::channel(MAILBOX_MESSAGES);
        app.mailboxes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client, (who, sender));
        Self { app: app.clone(), client, frames }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.app.mailboxes.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
    }
}

impl FrameReader for Mailbox {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        self.frames.recv().await.map(Ok)
    }
}

/// What becomes of a POSTed message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    Verdict(Verdict),
    NotFound,
    NotYours,
}

impl Mailboxes {
    /// Hands a message to a stream of the same tenant and user and waits for the verdict.
    pub(crate) async fn post(&self, client: ClientId, who: &Identity, body: Bytes) -> Posted {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
        let Some((owner, sender)) = found.filter(|(owner, _)| owner.tenant == who.tenant) else {
            return Posted::NotFound;
        };
        if owner.user != who.user {
            return Posted::NotYours;
        }
        let (verdict, answered) = oneshot::channel();
        let deliver = VerdictSender::new(move |v| {
            let _ = verdict.send(v);
        });
        if sender.send(Frame::Submitted(body, deliver)).await.is_err() {
            return Posted::NotFound;
        }
        answered.await.map_or(Posted::NotFound, Posted::Verdict)
    }
}

/// POSTed messages that wait for one connection; further posts wait to be taken.
const MAILBOX_MESSAGES: usize = 16;
