//! The seam to what joins nodes: [`Bus`], its links, and its optional powers.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::{Delivery, LeaseId, Publication, Receipt, Topic, UserId};

/// Most partitions of a bus: each takes up to 19 characters of every cursor, which stands in URLs and beside messages.
pub const MAX_PARTITIONS: u16 = 64;

/// What carries publications to every node that has a listener for them.
///
/// `tidings_core::testing::bus_laws!` turns each promise below into a test; whoever writes a bus
/// proves it with them.
///
/// # Behavior
/// - Everything reaches a node through its link, also what the node itself published.
/// - A bus does not repair a broken link: the link ends, and core connects a new one.
/// - A link loses nothing, or it ends: between two deliveries nothing of its topics is missing. Cursors rest on it, so that a
///   bus whose link drops one message and goes on may lose it for a client that comes back. Core reads the history
///   wherever an offset does not follow the last one, but only where a later message of that topic, or
///   [`Limits::history_check`](crate::Limits::history_check), shows it.
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

    /// How many units of order there are: one link and one clock each. 1 to [`MAX_PARTITIONS`], and constant.
    fn partitions(&self) -> u16;

    /// Which unit a topic belongs to: below [`partitions`](Self::partitions), always the same.
    fn partition(&self, topic: &Topic) -> u16;

    /// Opens this node's inbound link of one partition.
    ///
    /// # Behavior
    /// - A new link has no interest and delivers nothing.
    /// - Several links are independent: each gets what it subscribed to.
    /// - One who does not answer within [`Limits::bus_deadline`](crate::Limits::bus_deadline) is dropped, and asked again
    ///   later: the dropped future leaves nothing behind.
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
    /// What arrives, without a hole. Its end, or an error, is the one sign that the link is dead.
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
    /// - One who does not answer within [`Limits::bus_deadline`](crate::Limits::bus_deadline) is given up together with
    ///   its link, which counts as lost.
    ///
    /// # Errors
    /// [`BusError`]: none of `topics` may be relied on; the link stays usable unless it ends.
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError>;

    /// Gives topics up.
    ///
    /// # Behavior
    /// - What is published after it returned `Ok` does not arrive.
    /// - The deadline is that of [`subscribe`](Self::subscribe).
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
///
/// Each partition has a clock, which rises with every kept message of any of its topics, in the order
/// in which links deliver, and an epoch, which changes when the store may have lost something of what it kept
/// (it was flushed, restored, or its replica was promoted). Clocks and offsets compare within an epoch only.
#[async_trait]
pub trait History: Debug + Send + Sync {
    /// A secret that is the same on all nodes of this bus; cursors are signed with it.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn cursor_key(&self) -> Result<[u8; 16], BusError>;

    /// Where a partition and these topics of it stand, in one reading.
    ///
    /// # Behavior
    /// - `tops` has one entry per topic, in order, no older than the call.
    /// - No message after the reading has a clock of at most [`Tops::clock`].
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn tops(&self, partition: u16, topics: &[Topic]) -> Result<Tops, BusError>;

    /// What a topic has kept after a clock, oldest first, at most `limit` messages.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError>;
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tops {
    /// The partition's epoch.
    pub epoch: u64,
    /// The clock of the last kept message of the partition; 0 when there was none.
    pub clock: u64,
    /// The topics' last messages, in the order of the question.
    pub tops: Vec<Top>,
}

/// The last message that a topic took: 0 and 0 when the store knows of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Top {
    /// Its offset. The first offset of a topic is any above 0; it never goes back within an epoch.
    pub offset: u64,
    /// Its clock.
    pub clock: u64,
}

/// A part of a topic's history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The epoch of the partition.
    pub epoch: u64,
    /// The clock of the partition at the reading: what is published later has a higher one.
    pub clock: u64,
    /// The messages after the asked clock, oldest first, each with its position.
    pub deliveries: Vec<Delivery>,
    /// Whether these are all there were from the asked clock on: nothing between it and the last of these, or
    /// the reading when there is no more, was trimmed, expired or lost.
    pub whole: bool,
    /// Whether the limit ended the page.
    pub more: bool,
}

/// Who is in which topic, over all nodes, with how many connections.
///
/// A node claims under a lease, one in each partition; what was claimed under a lease ends with it. A lease is of one run
/// of a node: its name is new, and once it has ended it never lives again. Claims are level-triggered: repeating one
/// changes nothing.
#[async_trait]
pub trait Presence: Debug + Send + Sync {
    /// Begins a lease in a partition, for `time` from now. Repeated, since its answer was lost, it is a renewal.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be done now.
    async fn begin(&self, partition: u16, lease: &LeaseId, time: Duration) -> Result<(), BusError>;

    /// Prolongs a lease to `time` from now. Returns whether it lives.
    ///
    /// # Behavior
    /// - `false` when the lease ran out, or the store may have lost some of what was claimed under it: it was flushed or
    ///   restored, or another server took its place. Then the caller begins another lease and claims all again.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be done now.
    async fn renew(
        &self,
        partition: u16,
        lease: &LeaseId,
        time: Duration,
    ) -> Result<bool, BusError>;

    /// States how many connections users have in topics of a partition, under a lease of it; 0 ends a claim. Returns one
    /// tally per claim, in order, or `None` when the lease does not live: then nothing was claimed.
    ///
    /// # Behavior
    /// - Each claim is one atomic step: over all nodes, exactly one claim sees a user come (`before` 0,
    ///   `after` above) and one sees it go.
    ///
    /// # Errors
    /// [`BusError`]: some of the claims may have been taken. Repeat them.
    async fn claim(
        &self,
        partition: u16,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Result<Option<Vec<Tally>>, BusError>;

    /// Ends the claims of leases of a partition that have run out. Returns the users that are thereby gone from a
    /// topic; over all nodes each is returned once. How many one call ends may be bounded.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be done now.
    async fn expire(&self, partition: u16) -> Result<Vec<(Topic, UserId)>, BusError>;

    /// The users in a topic, sorted, each once.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn members(&self, topic: &Topic) -> Result<Vec<UserId>, BusError>;

    /// How many users are in a topic, without listing them.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    async fn count(&self, topic: &Topic) -> Result<u64, BusError>;
}

/// How many connections of a user a node has in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The topic.
    pub topic: Topic,
    /// The user.
    pub user: UserId,
    /// Its connections on the node that claims.
    pub connections: u32,
}

/// The connections of a user in a topic over all nodes, around one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Before it.
    pub before: u64,
    /// After it.
    pub after: u64,
}
