//! Where messages go that come by another request than the connection's own: one mailbox per
//! connection that wants one, found by its client id.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::command::ANSWER_DEADLINE;
use crate::session::Outcome;
use crate::{
    ClientId, ErrorCode, Frame, FrameReader, Identity, ReadError, TenantId, UserId, Verdict,
    VerdictSender,
};

/// Why a submitted message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubmitError {
    /// It cannot be read: 400.
    #[error("the message cannot be read")]
    Invalid,
    /// The connection is another user's: 403.
    #[error("the connection is another user's")]
    Forbidden,
    /// No node has this connection, or it is another tenant's: 404.
    #[error("there is no such connection")]
    NotFound,
    /// It is longer than `message_bytes`: 413.
    #[error("the message is too long")]
    TooLarge,
    /// The client sends too many messages: 429.
    #[error("too many messages")]
    RateLimited,
    /// The bus is away, or the node that has the connection did not answer in time, so that the message
    /// may have been taken or not: 503.
    #[error("the node that has the connection cannot be reached")]
    Unavailable,
}

/// The mailboxes of a node.
pub(crate) struct Mailboxes {
    addresses: Mutex<HashMap<ClientId, Address>>,
    message_bytes: usize,
}

#[derive(Clone)]
struct Address {
    tenant: TenantId,
    user: UserId,
    frames: mpsc::Sender<Frame>,
}

impl Mailboxes {
    pub(crate) fn new(message_bytes: usize) -> Self {
        Self { addresses: Mutex::default(), message_bytes }
    }

    pub(crate) fn open(self: &Arc<Self>, client: ClientId, who: &Identity) -> Mailbox {
        let (sender, frames) = mpsc::channel(MAILBOX_MESSAGES);
        let (tenant, user) = (who.tenant.clone(), who.user.clone());
        self.lock().insert(client, Address { tenant, user, frames: sender });
        Mailbox { mailboxes: self.clone(), client, frames }
    }

    /// Hands a message to a connection of the same tenant and user and waits for the verdict.
    pub(crate) async fn submit(
        &self,
        client: ClientId,
        (tenant, user): (&TenantId, &UserId),
        message: Bytes,
    ) -> Result<(), SubmitError> {
        if message.len() > self.message_bytes {
            return Err(SubmitError::TooLarge);
        }
        let found = self.lock().get(&client).filter(|found| found.tenant == *tenant).cloned();
        let address = found.ok_or(SubmitError::NotFound)?;
        if address.user != *user {
            return Err(SubmitError::Forbidden);
        }
        let (verdict, given) = oneshot::channel();
        let deliver = VerdictSender::new(move |v| {
            let _ = verdict.send(v);
        });
        let handed_in = async {
            let sent = address.frames.send(Frame::Submitted(message, deliver)).await;
            sent.map_err(|_| SubmitError::NotFound)?;
            given.await.map_err(|_| SubmitError::NotFound)
        };
        match timeout(ANSWER_DEADLINE, handed_in).await {
            Ok(Ok(Verdict::Accepted)) => Ok(()),
            Ok(Ok(Verdict::Invalid)) => Err(SubmitError::Invalid),
            Ok(Ok(Verdict::RateLimited)) => Err(SubmitError::RateLimited),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SubmitError::Unavailable),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Address>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading side of a connection that is written to by [`Hub::submit`](crate::Hub::submit), as an
/// event stream is. While it lives, nodes find the connection.
pub struct Mailbox {
    mailboxes: Arc<Mailboxes>,
    client: ClientId,
    frames: mpsc::Receiver<Frame>,
}

impl FrameReader for Mailbox {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        self.frames.recv().await.map(Ok)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.mailboxes.lock().remove(&self.client);
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Gives the verdict on a submitted message once its handler is done: a message that the handler calls invalid is
/// answered by that alone, as one that cannot be read. A handler that takes its time is not waited for; then all it
/// says comes on the stream.
pub(crate) async fn judged(
    handling: impl Future<Output = Outcome>,
    verdict: VerdictSender,
) -> Outcome {
    let mut handling = pin!(handling);
    match timeout(PATIENCE, &mut handling).await {
        Ok(Outcome::Failed { code: ErrorCode::InvalidMessage, .. }) => {
            verdict.send(Verdict::Invalid);
            Outcome::Answered
        }
        Ok(outcome) => {
            verdict.send(Verdict::Accepted);
            outcome
        }
        Err(_) => {
            verdict.send(Verdict::Accepted);
            handling.await
        }
    }
}

/// How long a verdict waits for the handler; within [`ANSWER_DEADLINE`], which begins earlier.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that wait for one connection; further ones wait to be taken.
const MAILBOX_MESSAGES: usize = 16;
