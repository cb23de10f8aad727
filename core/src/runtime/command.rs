//! What nodes ask of each other: to hand a message to a client, to disconnect somebody.
//!
//! A command is a message of a reserved type on the topic of whom it is about. Every node that has
//! the topic carries it out, shows it to no client, and answers to the topic of the node that asked.
//! Clients and applications cannot publish these types, so what arrives comes from a node.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::inbox::ShardHandle;
use super::mailbox::{Mailboxes, SubmitError};
use super::spawn::{client_id, spawn};
use crate::{
    Bus, BusError, ClientId, CloseReason, Delivery, Identity, Message, Publication, Scope,
    TenantId, Topic, UserId,
};

/// A node's side of the conversation: asks, carries out, answers.
pub(crate) struct Commands {
    bus: Arc<dyn Bus>,
    shards: Vec<ShardHandle>,
    pub(crate) mailboxes: Arc<Mailboxes>,
    address: ClientId,
    asked: Mutex<HashMap<u64, mpsc::UnboundedSender<Outcome>>>,
    next: AtomicU64,
}

/// Something to be done by every node that has the topic.
#[derive(Debug, Serialize, Deserialize)]
struct Command {
    /// Under which number the asker waits for the answers.
    number: u64,
    /// The asker's address.
    from: String,
    order: Order,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Hand this message of this user to the client.
    Submit { user: String, message: String },
    /// End all connections.
    Disconnect { code: u16, reason: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Submitted(Result<(), SubmitError>),
    Disconnected(usize),
}

impl Commands {
    pub(crate) fn new(bus: Arc<dyn Bus>, shards: Vec<ShardHandle>, message_bytes: usize) -> Self {
        Self {
            bus,
            shards,
            mailboxes: Arc::new(Mailboxes::new(message_bytes)),
            address: client_id(),
            asked: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Where this node wants its answers.
    pub(crate) fn topic(&self) -> Topic {
        address(self.address)
    }

    /// Hands a message to a connection, wherever it is.
    pub(crate) async fn submit(
        &self,
        client: ClientId,
        who: &Identity,
        message: Bytes,
    ) -> Result<(), SubmitError> {
        let (tenant, user) = (&who.tenant, &who.user);
        let here = self.mailboxes.submit(client, (tenant, user), message.clone()).await;
        if here != Err(SubmitError::NotFound) {
            return here;
        }
        // What is not text is no message, whoever has the connection.
        let message = std::str::from_utf8(&message).map_err(|_| SubmitError::Invalid)?;
        let order = Order::Submit { user: user.to_string(), message: message.to_owned() };
        let mut found = None;
        let asked =
            self.ask(Topic::client(tenant.clone(), client), order, |outcome| match outcome {
                Outcome::Submitted(Err(SubmitError::NotFound)) => ControlFlow::Continue(()),
                Outcome::Submitted(verdict) => {
                    found = Some(verdict);
                    ControlFlow::Break(())
                }
                Outcome::Disconnected(_) => ControlFlow::Continue(()),
            });
        match asked.await {
            Ok(Asked::Silent) => Err(SubmitError::Unavailable),
            Ok(Asked::Answered) => found.unwrap_or(Err(SubmitError::NotFound)),
            Err(_) => Err(SubmitError::Unavailable),
        }
    }

    /// Ends the connections of a topic on all nodes; answers how many there were, as far as nodes tell in time.
    pub(crate) async fn disconnect(&self, topic: &Topic, reason: &CloseReason) -> usize {
        let mut ended = self.disconnect_here(topic, reason).await;
        let order =
            Order::Disconnect { code: reason.code, reason: reason.reason.clone().into_owned() };
        let asked = self.ask(topic.clone(), order, |outcome| {
            if let Outcome::Disconnected(there) = outcome {
                ended += there;
            }
            ControlFlow::Continue(())
        });
        // Without the bus there is nobody to ask, and nothing more that can be done.
        let _ = asked.await;
        ended
    }

    async fn disconnect_here(&self, topic: &Topic, reason: &CloseReason) -> usize {
        let mut ended = 0;
        for shard in &self.shards {
            let (topic, reason) = (topic.clone(), reason.clone());
            ended += shard.ask(move |members| members.end(&topic, &reason)).await.unwrap_or(0);
        }
        ended
    }

    /// Publishes an order and hands each answer to `hear`, until it breaks off, all who were asked have
    /// answered (where the bus can tell how many these are), or [`ANSWER_DEADLINE`] is over.
    async fn ask(
        &self,
        topic: Topic,
        order: Order,
        mut hear: impl FnMut(Outcome) -> ControlFlow<()>,
    ) -> Result<Asked, BusError> {
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        let question = Question::new(self, sender);
        let command = Command { number: question.number, from: self.address.to_string(), order };
        let nodes = self.tell(topic, COMMAND, &command).await?;
        let hearing = async {
            for _ in 0..nodes.unwrap_or(u32::MAX) {
                let Some(outcome) = outcomes.recv().await else { return };
                if hear(outcome).is_break() {
                    return;
                }
            }
        };
        match timeout(ANSWER_DEADLINE, hearing).await {
            Err(_) if nodes.is_some() => Ok(Asked::Silent),
            _ => Ok(Asked::Answered),
        }
    }

    /// Takes a delivery that is for the node and not for clients; answers whether it was one.
    pub(crate) fn take(self: &Arc<Self>, delivery: &Delivery) -> bool {
        match delivery.message.kind.as_str() {
            COMMAND => {
                if let Some(command) = read::<Command>(&delivery.message) {
                    let (this, topic) = (self.clone(), delivery.topic.clone());
                    spawn(async move { this.carry_out(topic, command).await });
                }
                true
            }
            ANSWER => {
                if let Some(Answer { number, outcome }) = read(&delivery.message) {
                    self.hear(number, outcome);
                }
                true
            }
            _ => false,
        }
    }

    fn hear(&self, number: u64, outcome: Outcome) {
        if let Some(asker) = self.lock().get(&number) {
            let _ = asker.send(outcome);
        }
    }

    async fn carry_out(&self, topic: Topic, command: Command) {
        let Command { number, from, order } = command;
        let Ok(from) = from.parse::<ClientId>() else { return };
        let own = from == self.address;
        let outcome = match order {
            // What this node asks it has done itself before, and without the bus.
            Order::Submit { .. } if own => Outcome::Submitted(Err(SubmitError::NotFound)),
            Order::Disconnect { .. } if own => Outcome::Disconnected(0),
            Order::Submit { user, message } => {
                Outcome::Submitted(self.submit_here(&topic, &user, message).await)
            }
            Order::Disconnect { code, reason } => {
                let reason = CloseReason { code, reason: reason.into(), reconnect_after: None };
                Outcome::Disconnected(self.disconnect_here(&topic, &reason).await)
            }
        };
        if own {
            return self.hear(number, outcome);
        }
        // An asker that hears nothing stops waiting by itself.
        let _ = self.tell(address(from), ANSWER, &Answer { number, outcome }).await;
    }

    async fn submit_here(
        &self,
        topic: &Topic,
        user: &str,
        message: String,
    ) -> Result<(), SubmitError> {
        let (Scope::Client(client), Ok(user)) = (&topic.scope, UserId::new(user)) else {
            return Err(SubmitError::NotFound);
        };
        self.mailboxes.submit(*client, (&topic.tenant, &user), message.into()).await
    }

    /// Publishes a message between nodes; answers to how many it was handed, where the bus can tell.
    async fn tell(
        &self,
        topic: Topic,
        kind: &str,
        what: &impl Serialize,
    ) -> Result<Option<u32>, BusError> {
        let message = Message::of(kind, what).map_err(|e| BusError::Refused(e.to_string()))?;
        let mut receipts = self.bus.publish(vec![Publication::new(topic, message)]).await;
        let missing = || Err(BusError::Unavailable("the bus gave no answer".to_owned()));
        receipts.pop().unwrap_or_else(missing).map(|receipt| receipt.links)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Outcome>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How asking ended.
#[derive(Debug, PartialEq)]
enum Asked {
    /// All who are known to have been asked answered, or one said enough.
    Answered,
    /// Somebody who was asked did not answer in time.
    Silent,
}

/// A question that waits for its answers; dropped, it waits no longer.
struct Question<'a> {
    commands: &'a Commands,
    number: u64,
}

impl<'a> Question<'a> {
    fn new(commands: &'a Commands, answers: mpsc::UnboundedSender<Outcome>) -> Self {
        let number = commands.next.fetch_add(1, Ordering::Relaxed);
        commands.lock().insert(number, answers);
        Self { commands, number }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.commands.lock().remove(&self.number);
    }
}

/// A node is addressed as a client that nobody is.
fn address(node: ClientId) -> Topic {
    Topic::client(TenantId::default(), node)
}

fn read<T: DeserializeOwned>(message: &Message) -> Option<T> {
    serde_json::from_slice(message.payload.as_ref()?.bytes()).ok()
}

const COMMAND: &str = "server:command";
const ANSWER: &str = "server:answer";
/// How long a node waits for the others, and a message for its connection.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
