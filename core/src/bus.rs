//! The seam to what joins nodes: [`Bus`], its links, and its optional powers.

use std::fmt::Debug;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::{Delivery, Publication, Receipt, RoomId, TenantId, Topic, UserId};

/// What carries publications to every node that has a listener for them.
///
/// `tidings_core::testing::bus_laws!` turns each promise below into a test; whoever writes a bus
/// proves it with them.
///
/// # Behavior
/// - Everything reaches a node through its link, also what the node itself published.
/// - A bus does not repair a broken link: the link ends, and core connects a new one.
#[async_trait]
pub trait Bus: Debug + Send + Sync + 'static {
    /// Publishes a batch; one answer per publication, in order.
    ///
    /// # Behavior
    /// - A batch equals its publications one after another.
    /// - Publications that one caller awaits in turn are delivered in that order.
    /// - Payloads are opaque: any bytes, also none.
    /// - Answers in bounded time, also while the bus is away.
    ///
    /// # Errors
    /// [`BusError`] in the place of each publication that was not accepted.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>>;

    /// How many units of order there are: one link and one clock each. At least 1 and constant.
    fn partitions(&self) -> u16;

    /// Which unit a topic belongs to: below [`partitions`](Self::partitions), always the same.
    fn partition(&self, topic: &Topic) -> u16;

    /// Opens this node's inbound link of one partition.
    ///
    /// # Behavior
    /// - A new link has no interest and delivers nothing.
    /// - Several links are independent: each gets what it subscribed to.
    ///
    /// # Errors
    /// [`BusError`]; the caller tries again later.
    async fn connect(&self, partition: u16) -> Result<BusLink, BusError>;

    /// What was kept, when this bus keeps anything.
    fn history(&self) -> Option<&dyn History>;

    /// Who is where, when this bus knows.
    fn presence(&self) -> Option<&dyn Presence>;
}

/// A node's inbound link. It is born with no interest and dies when it breaks.
pub struct BusLink {
    /// States what is to be delivered.
    pub interest: Box<dyn BusInterest>,
    /// What arrives. Its end, or an error, is the one sign that the link is dead.
    pub deliveries: BoxStream<'static, Result<Delivery, BusError>>,
}

impl Debug for BusLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusLink").finish_non_exhaustive()
    }
}

/// What a link is to deliver.
#[async_trait]
pub trait BusInterest: Send + 'static {
    /// Asks for topics.
    ///
    /// # Behavior
    /// - When it returns `Ok`, everything that is published afterwards in these topics arrives.
    /// - Asking for a topic twice delivers once.
    ///
    /// # Errors
    /// [`BusError`]: none of `topics` may be relied on; the link stays usable unless it ends.
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError>;

    /// Gives topics up.
    ///
    /// # Behavior
    /// - What is published after it returned `Ok` does not arrive.
    ///
    /// # Errors
    /// [`BusError`]: some of `topics` may still be delivered.
    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError>;
}

/// Why a bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus cannot be reached. Not the caller's fault; try again later.
    #[error("the bus is away: {0}")]
    Unavailable(String),
    /// No answer came in time; it may or may not have been done. Repeat only under an idempotency key.
    #[error("the bus did not answer in time")]
    TimedOut,
    /// The bus understood and refused. Repeating does not help before its configuration changes.
    #[error("the bus refused: {0}")]
    Refused(String),
    /// This node read too slowly and its link was cut; what followed was not delivered to it.
    #[error("the link was cut: {0}")]
    Lagged(String),
}

/// What a bus keeps of its topics. It only reads: keeping is part of [`Bus::publish`].
#[async_trait]
pub trait History: Debug + Send + Sync {
    /// What the topic has kept after a clock, oldest first, at most `limit` messages.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError>;
}

/// A part of a topic's history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The messages, each with its position.
    pub deliveries: Vec<Delivery>,
    /// Whether nothing between the asked clock and the first of these was trimmed.
    pub whole: bool,
    /// The epoch of the topic.
    pub epoch: u64,
}

/// Who is in which room over all nodes.
#[async_trait]
pub trait Presence: Debug + Send + Sync {
    /// The users in a room, sorted, each once.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn members(&self, tenant: &TenantId, room: &RoomId) -> Result<Vec<UserId>, BusError>;
}
