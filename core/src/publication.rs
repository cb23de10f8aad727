//! A message on its way: what goes into a bus and what comes out of it.

use std::time::Duration;

use crate::{ClientId, Message, Topic, UserId};

/// A message for a topic, handed to a bus.
///
/// Everything that must hold on every node and on replay travels in it: whom to leave out, how long
/// to keep it, and the key under which a repeat is dropped.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Publication {
    /// Where it goes.
    pub topic: Topic,
    /// What it says.
    pub message: Message,
    /// Who in the topic does not get it.
    pub except: Option<Except>,
    /// How long the topic keeps it; `None` in a topic without history.
    pub retention: Option<Retention>,
    /// A repeat under the same key in the same topic within [`IDEMPOTENCY_WINDOW`] is not delivered again,
    /// where the bus has history; it gets the receipt of the first.
    pub idempotency_key: Option<String>,
    /// Of messages with the same key a client that is too slow for all may get the latest alone, where the
    /// topic's policy says so.
    pub conflation_key: Option<String>,
}

impl Publication {
    /// A message for all of a topic.
    pub fn new(topic: Topic, message: Message) -> Self {
        Self {
            topic,
            message,
            except: None,
            retention: None,
            idempotency_key: None,
            conflation_key: None,
        }
    }

    /// Has the topic keep it.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Leaves out one client or one user.
    #[must_use]
    pub fn except(mut self, except: Except) -> Self {
        self.except = Some(except);
        self
    }

    /// Names the publication, so that repeating it is safe.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

/// Who does not get a message although it is in the topic. Stored with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Except {
    /// One connection, usually the sender's.
    Client(ClientId),
    /// All connections of a user.
    User(UserId),
}

/// How much of a topic is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most so many messages.
    pub count: u32,
    /// None older than this.
    pub age: Duration,
}

/// A message that a link delivers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// Where it was published.
    pub topic: Topic,
    /// What it says.
    pub message: Message,
    /// Who does not get it.
    pub except: Option<Except>,
    /// Where it stands in its topic; `None` in a topic without history.
    pub position: Option<Position>,
    /// The key under which a later message may replace it for a slow client.
    pub conflation_key: Option<String>,
}

impl Delivery {
    /// What a bus delivers of a publication that it does not keep.
    pub fn of(publication: &Publication) -> Self {
        let Publication { topic, message, except, conflation_key, .. } = publication.clone();
        Self { topic, message, except, position: None, conflation_key }
    }
}

/// The place of a message: in its topic and in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Changes when the store has lost what it kept.
    pub epoch: u64,
    /// Rises by one with each message of the topic.
    pub offset: u64,
    /// Rises with each retained message of any topic of the partition.
    pub clock: u64,
}

/// What a bus says of a publication that it accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Where the message stands; `None` in a topic without history.
    pub position: Option<Position>,
    /// To how many links it was handed, where the bus can tell. No proof of arrival.
    pub links: Option<u32>,
}

impl Receipt {
    /// The receipt of a message that was handed to `links` links and is not kept.
    pub fn handed_to(links: u32) -> Self {
        Self { position: None, links: Some(links) }
    }
}

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(5 * 60);
