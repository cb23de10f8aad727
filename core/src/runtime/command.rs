//! What nodes ask of each other: to hand a message to a client, to disconnect a user or a client.
//!
//! A command is a message of a reserved type. One about a message goes to the topic of its client, and only the node that
//! has the client answers. A disconnect goes to the topic of all nodes, and each node that is listed there must answer:
//! the nodes claim their places in that topic as users do in a room, under a lease, so that a node that cannot be reached
//! is known to be missing. Answers go to the topic of the node that asked. Clients and applications cannot publish these
//! types, so what arrives comes from a node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::attendance::Attendance;
use super::inbox::ShardHandle;
use super::mailbox::{Mailboxes, SubmitError};
use super::spawn::{client_id, jitter, spawn};
use super::types::DisconnectError;
use crate::{
    Bus, BusError, ClientId, CloseReason, Delivery, Identity, Message, Publication, RoomId, Scope,
    TenantId, Topic, UserId,
};

/// A node's side of the conversation: asks, carries out, answers.
pub(crate) struct Commands {
    bus: Arc<dyn Bus>,
    shards: Vec<ShardHandle>,
    pub(crate) mailboxes: Arc<Mailboxes>,
    attendance: Option<Attendance>,
    address: ClientId,
    asked: Mutex<HashMap<u64, mpsc::UnboundedSender<(ClientId, Outcome)>>>,
    next: AtomicU64,
}

/// Something to be done by the nodes that hear it.
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
    /// Hand this message of this user to the client whose topic this is.
    Submit { user: String, message: String },
    /// Count the connections of a user.
    Count { whom: Whom },
    /// End all connections in a topic.
    Disconnect { whom: Whom, code: u16, reason: String, reconnect_after: Option<Duration> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Whom {
    tenant: Option<String>,
    #[serde(flatten)]
    name: Name,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Room(String),
    User(String),
    Client(String),
    Everyone,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    /// The address of the node that answers.
    node: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Submitted(Result<(), SubmitError>),
    /// How many connections there were.
    Connections(usize),
}

/// How many connections there were on each node that has answered.
type Counted = HashMap<ClientId, usize>;

impl Commands {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        shards: Vec<ShardHandle>,
        attendance: Option<Attendance>,
        message_bytes: usize,
    ) -> Self {
        Self {
            bus,
            shards,
            attendance,
            mailboxes: Arc::new(Mailboxes::new(message_bytes)),
            address: client_id(),
            asked: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// What this node listens to: what all nodes are asked, and the answers to its own questions.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        vec![all_nodes(), address(self.address)]
    }

    /// The name under which this node is listed in [`all_nodes`].
    pub(crate) fn listed_as(&self) -> UserId {
        UserId::new(self.address.to_string()).expect("32 digits are a name")
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
        let (_question, command, mut answers) = self.ask(order);
        let asked = self.tell(Topic::client(tenant.clone(), client), COMMAND, &command).await;
        let links = asked.map_err(|_| SubmitError::Unavailable)?;
        let hearing = async {
            for _ in 0..links.unwrap_or(u32::MAX) {
                match answers.recv().await {
                    Some((_, Outcome::Submitted(Err(SubmitError::NotFound)))) => {}
                    Some((_, Outcome::Submitted(outcome))) => return outcome,
                    Some((_, Outcome::Connections(_))) | None => {}
                }
            }
            Err(SubmitError::NotFound)
        };
        let silence = match links {
            Some(_) => SubmitError::Unavailable,
            None => SubmitError::NotFound,
        };
        timeout(ANSWER_DEADLINE, hearing).await.unwrap_or(Err(silence))
    }

    /// Ends the connections in a topic on all nodes; returns how many there were. It asks again until each node has
    /// answered, at most for `patience`.
    pub(crate) async fn disconnect(
        &self,
        topic: &Topic,
        reason: &CloseReason,
        patience: Duration,
    ) -> Result<usize, DisconnectError> {
        let here = self.disconnect_here(topic, reason).await;
        let mut ended = Counted::from([(self.address, here)]);
        let CloseReason { code, reason, reconnect_after } = reason.clone();
        let reason = reason.into_owned();
        let whom = Whom::from(topic);
        let order = Order::Disconnect { whom, code, reason, reconnect_after };
        let reached = timeout(patience, self.reach_all(order, &mut ended)).await;
        let ended = ended.values().sum();
        reached.map(|()| ended).map_err(|_| DisconnectError { ended })
    }

    /// How many connections a user has on all nodes; `None` when one of those does not answer soon.
    pub(crate) async fn count(&self, topic: &Topic) -> Option<usize> {
        let mut counted = Counted::from([(self.address, self.count_here(topic).await)]);
        let order = Order::Count { whom: Whom::from(topic) };
        let reached = timeout(ANSWER_DEADLINE, self.reach_all(order, &mut counted)).await;
        reached.ok().map(|()| counted.values().sum())
    }

    /// Asks all nodes, again and again, until each of them has answered.
    async fn reach_all(&self, order: Order, counted: &mut Counted) {
        let (_question, command, mut answers) = self.ask(order);
        loop {
            // Who is listed only after this was read has connections only after it heard of the order or asked itself.
            if let Ok(listed) = self.listed().await
                && let Ok(links) = self.tell(all_nodes(), COMMAND, &command).await
            {
                let hearing = async {
                    while !has_all(counted, listed.as_deref(), links) {
                        let Some((node, outcome)) = answers.recv().await else { return };
                        if let Outcome::Connections(there) = outcome {
                            *counted.entry(node).or_default() += there;
                        }
                    }
                };
                let heard = timeout(ANSWER_DEADLINE, hearing).await;
                // A bus that tells neither who listens nor how many: those that answer in time are all there are.
                if heard.is_ok() || (listed.is_none() && links.is_none()) {
                    return;
                }
            }
            sleep(jitter(ASK_AGAIN)).await;
        }
    }

    /// The nodes that must answer; `None` where the bus knows no presence.
    async fn listed(&self) -> Result<Option<Vec<ClientId>>, BusError> {
        let Some(presence) = self.bus.presence() else { return Ok(None) };
        let listed = presence.members(&all_nodes()).await?;
        let listed: Vec<ClientId> = listed.iter().filter_map(|n| n.as_str().parse().ok()).collect();
        match listed.contains(&self.address) {
            true => Ok(Some(listed)),
            // The store has lost its claims, and gets them again.
            false => Err(BusError::Unavailable("the list of nodes is not complete".to_owned())),
        }
    }

    async fn disconnect_here(&self, topic: &Topic, reason: &CloseReason) -> usize {
        let mut ended = 0;
        for shard in &self.shards {
            let (topic, reason) = (topic.clone(), reason.clone());
            ended += shard.ask(move |members| members.end(&topic, &reason)).await.unwrap_or(0);
        }
        ended
    }

    async fn count_here(&self, topic: &Topic) -> usize {
        match (&self.attendance, &topic.scope) {
            (Some(attendance), Scope::User(user)) => attendance.count(topic, user).await as usize,
            _ => 0,
        }
    }

    /// A question and where its answers come; it is asked as long as the first is kept.
    fn ask(
        &self,
        order: Order,
    ) -> (Question<'_>, Command, mpsc::UnboundedReceiver<(ClientId, Outcome)>) {
        let (sender, answers) = mpsc::unbounded_channel();
        let question = Question::new(self, sender);
        let command = Command { number: question.number, from: self.address.to_string(), order };
        (question, command, answers)
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
                if let Some(Answer { number, node, outcome }) = read(&delivery.message)
                    && let Ok(node) = node.parse()
                {
                    self.hear(number, node, outcome);
                }
                true
            }
            _ => false,
        }
    }

    fn hear(&self, number: u64, node: ClientId, outcome: Outcome) {
        if let Some(asker) = self.lock().get(&number) {
            let _ = asker.send((node, outcome));
        }
    }

    async fn carry_out(&self, topic: Topic, command: Command) {
        let Command { number, from, order } = command;
        let Ok(from) = from.parse::<ClientId>() else { return };
        let own = from == self.address;
        let outcome = match order {
            // What this node asks it has done itself before, and without the bus.
            Order::Submit { .. } if own => Outcome::Submitted(Err(SubmitError::NotFound)),
            Order::Count { .. } | Order::Disconnect { .. } if own => Outcome::Connections(0),
            Order::Submit { user, message } => {
                Outcome::Submitted(self.submit_here(&topic, &user, message).await)
            }
            Order::Count { whom } => {
                let Some(topic) = whom.topic() else { return };
                Outcome::Connections(self.count_here(&topic).await)
            }
            Order::Disconnect { whom, code, reason, reconnect_after } => {
                let Some(topic) = whom.topic() else { return };
                let reason = CloseReason { code, reason: reason.into(), reconnect_after };
                Outcome::Connections(self.disconnect_here(&topic, &reason).await)
            }
        };
        if own {
            return self.hear(number, self.address, outcome);
        }
        let answer = Answer { number, node: self.address.to_string(), outcome };
        // An asker that hears nothing asks again, or stops waiting by itself.
        let _ = self.tell(address(from), ANSWER, &answer).await;
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

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<(ClientId, Outcome)>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Topic> for Whom {
    fn from(topic: &Topic) -> Self {
        let name = match &topic.scope {
            Scope::Room(room) => Name::Room(room.to_string()),
            Scope::User(user) => Name::User(user.to_string()),
            Scope::Client(client) => Name::Client(client.to_string()),
            Scope::Everyone => Name::Everyone,
        };
        Self { tenant: topic.tenant.name().map(str::to_owned), name }
    }
}

impl Whom {
    fn topic(self) -> Option<Topic> {
        let tenant = self.tenant.map(TenantId::new).transpose().ok()?.unwrap_or_default();
        Some(match self.name {
            Name::Room(room) => Topic::room(tenant, RoomId::new(room).ok()?),
            Name::User(user) => Topic::user(tenant, UserId::new(user).ok()?),
            Name::Client(client) => Topic::client(tenant, client.parse().ok()?),
            Name::Everyone => Topic::everyone(tenant),
        })
    }
}

/// Whether all nodes have answered: those that are listed, or else as many as the order was handed to.
fn has_all(counted: &Counted, listed: Option<&[ClientId]>, links: Option<u32>) -> bool {
    match listed {
        Some(listed) => listed.iter().all(|node| counted.contains_key(node)),
        None => links.is_some_and(|links| counted.len() >= links as usize),
    }
}

/// A question that waits for its answers; dropped, it waits no longer.
struct Question<'a> {
    commands: &'a Commands,
    number: u64,
}

impl<'a> Question<'a> {
    fn new(commands: &'a Commands, answers: mpsc::UnboundedSender<(ClientId, Outcome)>) -> Self {
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

/// Where all nodes listen, as one client that nobody is.
pub(crate) fn all_nodes() -> Topic {
    address(ClientId::from_bits(0))
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
/// How long, about, until all nodes are asked again when the bus did not take the question or one did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(250);
