//! What was published and what was seen, as plain data.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where a publication goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// To a room.
    Room(String),
    /// To all connections of a user.
    User(String),
    /// To every connection of the tenant.
    Everyone,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => write!(f, "room {room}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

/// A topic's place in [`Topics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

/// The topics of a run, numbered, so that records stay small.
#[derive(Debug)]
pub struct Topics {
    addresses: Vec<Address>,
    ids: HashMap<Address, TopicId>,
}

impl Topics {
    /// Numbers these addresses in their order.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Arc<Self> {
        let addresses: Vec<_> = addresses.into_iter().collect();
        let ids = (0..).map(TopicId);
        let ids = addresses.iter().cloned().zip(ids).collect();
        Arc::new(Self { addresses, ids })
    }

    /// The number of an address; `None` when the run does not use it.
    pub fn id(&self, address: &Address) -> Option<TopicId> {
        self.ids.get(address).copied()
    }

    /// The address of a number of [`id`](Self::id).
    pub fn address(&self, id: TopicId) -> &Address {
        &self.addresses[id.0 as usize]
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &Address)> {
        (0..).map(TopicId).zip(&self.addresses)
    }
}

/// Which message: each publisher numbers what it publishes to a topic from 1 on, without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The topic.
    pub topic: TopicId,
    /// The publisher.
    pub publisher: u16,
    /// Its number among the publisher's messages of this topic.
    pub sequence: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.topic.0, self.publisher, self.sequence)
    }
}

/// A publication and what its publisher was told. Times count from the start of the run.
#[derive(Debug, Clone)]
pub struct Published {
    /// Which message.
    pub id: MessageId,
    /// The user who must not get it.
    pub except: Option<Arc<str>>,
    /// When it was first tried.
    pub begun: Duration,
    /// When it was acknowledged, or when its publisher gave it up.
    pub acknowledged: Duration,
    /// What became of it.
    pub fate: Fate,
}

/// What a publisher was told of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged at the first try.
    Done,
    /// Acknowledged, after tries of which nobody knows what became of them.
    Repeated,
    /// It was not done and never will be; it was not tried again.
    NotDone,
    /// There was no answer, or one that leaves it open; it was not tried again.
    Unknown,
}

impl Fate {
    /// Whether it was acknowledged, so that it is due.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::Repeated)
    }
}

/// What one client saw, over all its connections.
#[derive(Debug, Clone, Default)]
pub struct ClientRecord {
    /// A name for people.
    pub name: String,
    /// Its user.
    pub user: String,
    /// Its connections, in order.
    pub connections: Vec<ConnectionRecord>,
    /// It left before the end of the run and did not come back: what came later was not for it.
    pub left: bool,
}

/// What a client saw on one connection. Times count from the start of the run.
#[derive(Debug, Clone, Default)]
pub struct ConnectionRecord {
    /// Which of the run's addresses it was made to.
    pub node: usize,
    /// When the client began to connect.
    pub opened: Duration,
    /// Whether the client gave a cursor.
    pub resumed: bool,
    /// What `connected` said; `None` when it never came.
    pub recovered: Option<bool>,
    /// What came, in order.
    pub seen: Vec<Seen>,
    /// When it had ended.
    pub ended: Duration,
    /// How it ended, for people.
    pub end: String,
}

/// One thing that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// From here on the client is in this topic: `room:joined`, or `connected` for those that need no join.
    Joined {
        /// The topic.
        topic: TopicId,
        /// When it came.
        at: Duration,
    },
    /// A message, and when it came, in milliseconds.
    Message(MessageId, u32),
    /// A `gap`, its reason, and when it came, in milliseconds.
    Gap(TopicId, Box<str>, u32),
}
