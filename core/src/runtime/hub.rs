//! A node's engine: what transports attach to and applications publish through.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::attendance::{Attendance, Departure};
use super::builder::HubBuilder;
use super::clock;
use super::command::{Commands, all_nodes};
use super::gate::Gate;
use super::handler::Handler;
use super::inbox::ShardHandle;
use super::listing::Counts;
use super::mailbox::SubmitError;
use super::observer::{Event, Observing};
use super::reader::Reader;
use super::types::{ConnectOptions, DisconnectError, PublishError};
use super::up::LinksUp;
use super::wish::Wish;
use crate::{
    Action, AuthError, Authenticator, Authorizer, Bus, BusError, ClientId, CloseReason,
    ConnectRequest, CursorKey, Denied, Identity, Limits, Mark, NodeId, Publication, Receipt,
    TenantId, Topic, TopicRules, UserId,
};

/// How connections use the history.
pub(crate) struct KeptHistory {
    pub(crate) key: CursorKey,
    pub(crate) reader: Arc<Reader>,
}

/// One node. Cloning it gives another handle to the same node, and a connection that is served holds one; when the last
/// is dropped, the node's tasks end and its links to the bus are closed.
#[derive(Clone)]
pub struct Hub(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: Limits,
    pub(crate) observer: Observing,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) wishes: mpsc::UnboundedSender<Wish>,
    pub(crate) commands: Arc<Commands>,
    pub(super) node: NodeId,
    pub(super) framings: Mutex<Vec<&'static str>>,
    pub(super) next_shard: AtomicUsize,
    /// Told whenever a shard has no connection left.
    pub(super) emptied: Arc<Notify>,
    pub(super) links_up: Arc<LinksUp>,
    /// A task of the node has panicked.
    pub(super) failed: Arc<AtomicBool>,
    pub(crate) rules: Arc<TopicRules>,
    pub(crate) attendance: Option<Attendance>,
    /// What there is when the bus keeps a history.
    pub(crate) kept: Option<KeptHistory>,
    pub(crate) draining: AtomicBool,
    pub(crate) gate: Mutex<Gate>,
    pub(crate) counts: Arc<Counts>,
}

/// The last handle is gone: the shards end, and with them the dispatcher and its links.
impl Drop for Inner {
    fn drop(&mut self) {
        self.shards.iter().for_each(ShardHandle::end);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("bus", &self.0.bus).finish_non_exhaustive()
    }
}

impl Hub {
    /// A node on a bus. Who clients are and what they may do must be said: there is no open door by default.
    pub fn builder(
        bus: Arc<dyn Bus>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
    ) -> HubBuilder {
        HubBuilder::new(bus, authenticator, authorizer)
    }

    /// What this node is called among the others.
    pub fn node_id(&self) -> &NodeId {
        &self.0.node
    }

    /// What this node grants.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Who sent a request, within `handshake_deadline`.
    ///
    /// # Errors
    /// [`AuthError`]; `Unavailable` when the authenticator did not answer in time.
    pub async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let answer = timeout(self.0.limits.handshake_deadline, self.identify(request)).await;
        answer.unwrap_or_else(|_| {
            let error = AuthError::Unavailable("no answer in time".to_owned());
            self.0.observer.on(Event::Authenticated { outcome: Err(&error) });
            Err(error)
        })
    }

    /// The same, however long it takes.
    pub(super) async fn identify(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let answer = self.0.authenticator.authenticate(request).await;
        self.0.observer.on(Event::Authenticated { outcome: answer.as_ref().map(drop) });
        answer
    }

    pub(crate) async fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        let answer =
            timeout(self.0.limits.handshake_deadline, self.0.authorizer.authorize(who, action))
                .await;
        answer.unwrap_or(Err(Denied::Unavailable))
    }

    /// The marks of a cursor that this bus gave to a tenant; nowhere when it is of a store that was lost, or of another
    /// number of partitions.
    pub(crate) fn read_cursor(&self, tenant: &TenantId, cursor: &str) -> Option<Box<[Mark]>> {
        let (key, partitions) = (&self.0.kept.as_ref()?.key, usize::from(self.0.bus.partitions()));
        match key.read(tenant, cursor) {
            Ok(marks) if marks.len() == partitions => Some(marks.into()),
            Err(_) if !key.is_foreign(cursor) => None,
            _ => Some(vec![Mark::NOWHERE; partitions].into()),
        }
    }

    /// Whether a connection is told `connected` once it is known what it missed.
    pub(crate) fn resumes(&self, options: &ConnectOptions) -> bool {
        self.0.kept.is_some() && options.cursor.is_some()
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// [`PublishError`] says whether to mend the message or to try again.
    pub async fn publish(&self, publication: Publication) -> Result<Receipt, PublishError> {
        let missing = || Err(PublishError::Bus(BusError::TimedOut));
        self.publish_all(vec![publication]).await.pop().unwrap_or_else(missing)
    }

    /// Publishes a batch, in order and in one go; one answer per publication. One that is wrong hinders no other.
    ///
    /// # Errors
    /// [`PublishError`] in the place of each publication that was not accepted.
    pub async fn publish_all(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, PublishError>> {
        let begun = clock::monotonic();
        let (mut good, mut wrong) = (Vec::with_capacity(batch.len()), Vec::new());
        for mut publication in batch {
            let checked = self.check(&publication);
            wrong.push(checked.err());
            if wrong.last().is_some_and(Option::is_none) {
                let kept = || self.0.rules.retention(&publication.topic);
                publication.retention = publication.retention.or_else(kept);
                good.push(publication);
            }
        }
        let mut receipts = match good.is_empty() {
            true => Vec::new(),
            false => self.0.bus.publish(good).await,
        }
        .into_iter();
        let mut receipt =
            || receipts.next().unwrap_or(Err(BusError::TimedOut)).map_err(PublishError::Bus);
        let published: Vec<_> =
            wrong.into_iter().map(|wrong| wrong.map_or_else(&mut receipt, Err)).collect();
        let took = clock::monotonic() - begun;
        for published in &published {
            self.0.observer.on(Event::Published { outcome: published.as_ref().map(drop), took });
        }
        published
    }

    /// The users in a topic over all nodes, sorted; what a topic does not show is not known.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    pub async fn present(&self, topic: &Topic) -> Result<Vec<UserId>, BusError> {
        match (self.0.bus.presence(), &self.0.attendance) {
            (Some(presence), Some(attendance)) if attendance.attends(topic) => {
                presence.members(topic).await
            }
            _ => Ok(Vec::new()),
        }
    }

    /// How many users are in a topic over all nodes, without listing them.
    ///
    /// # Errors
    /// [`BusError`] when it cannot be read now.
    pub async fn count_present(&self, topic: &Topic) -> Result<u64, BusError> {
        match self.0.bus.presence() {
            Some(presence) => presence.count(topic).await,
            None => Ok(0),
        }
    }

    /// The cursor of who has got a publication and everything before it; `None` when it is not kept.
    pub fn cursor_of(&self, topic: &Topic, receipt: &Receipt) -> Option<String> {
        let (kept, position) = (self.0.kept.as_ref()?, receipt.position?);
        let mut marks = vec![Mark::NOWHERE; usize::from(self.0.bus.partitions())];
        marks[usize::from(self.0.bus.partition(topic))] = Mark::new(position.epoch, position.clock);
        Some(kept.key.write(&topic.tenant, &marks))
    }

    /// Whether it is told who is in a topic.
    pub(crate) fn shows(&self, topic: &Topic) -> bool {
        self.0.attendance.as_ref().is_some_and(|attendance| attendance.attends(topic))
    }

    /// Whether what is published in a topic is kept.
    pub(crate) fn keeps(&self, topic: &Topic) -> bool {
        self.0.kept.is_some() && self.0.rules.retention(topic).is_some()
    }

    fn check(&self, publication: &Publication) -> Result<(), PublishError> {
        let (bytes, limit) = (publication.message.len(), self.0.limits.message_bytes);
        match &publication.message.kind {
            kind if kind.is_reserved() => Err(PublishError::Reserved),
            _ if bytes > limit => Err(PublishError::TooLarge { bytes, limit }),
            _ => Ok(()),
        }
    }

    /// Hands a client message of `who` to its connection, on whatever node that is, and waits for the
    /// verdict; the answer comes on the connection. For connections with a [`Mailbox`](crate::Mailbox).
    ///
    /// # Errors
    /// [`SubmitError`], each with its HTTP status. After `Unavailable` the message may have been taken or not.
    pub async fn submit(
        &self,
        client: ClientId,
        who: &Identity,
        message: Bytes,
    ) -> Result<(), SubmitError> {
        self.0.commands.submit(client, who, message).await
    }

    /// Ends the connections of a user or a client (or of all in a room) on all nodes; returns how many there were.
    ///
    /// # Behavior
    /// - Those of this node end at once, also while the bus is away.
    /// - Each node that is up or whose presence lease still runs must answer. What cannot be told to one now is told
    ///   again until it answers, at most for `bus_deadline`.
    /// - On a bus without presence as many nodes must answer as the bus says it was handed to.
    ///
    /// # Errors
    /// [`DisconnectError`] when a node could not be reached in time, so that connections may be left there: repeat it.
    pub async fn disconnect(
        &self,
        topic: Topic,
        reason: CloseReason,
    ) -> Result<usize, DisconnectError> {
        self.0.commands.disconnect(&topic, &reason, self.0.limits.bus_deadline).await
    }

    /// Takes no further connections and ends all there are; returns when they are gone, or after twice `close_deadline`.
    pub async fn shutdown(&self, reason: CloseReason) {
        self.0.draining.store(true, Ordering::Release);
        self.0.shards.iter().for_each(|shard| shard.end_all(reason.clone()));
        self.all_gone(self.0.limits.close_deadline * 2).await;
        self.sign_off().await;
    }

    /// Has this node listed among those that must answer a disconnect.
    pub(super) async fn sign_on(&self) {
        self.list(Attendance::come).await;
    }

    /// Has it listed no more, so that nobody waits for it.
    pub(super) async fn sign_off(&self) {
        self.list(|attendance, topic, name| attendance.leave(topic, name, Departure::Left)).await;
    }

    async fn list(&self, change: impl FnOnce(&Attendance, &Topic, &UserId)) {
        let Some(attendance) = &self.0.attendance else { return };
        let name = self.0.commands.listed_as();
        change(attendance, &all_nodes(), &name);
        // What cannot be claimed in time is claimed later.
        let _ = timeout(self.0.limits.bus_deadline, attendance.claimed(&all_nodes(), &name)).await;
    }

    /// Waits until there is no connection, at most for so long.
    pub(super) async fn all_gone(&self, patience: Duration) {
        let gone = async {
            loop {
                let emptied = self.0.emptied.notified();
                let mut left = 0;
                for shard in &self.0.shards {
                    left += shard.ask(|members| members.router.len()).await.unwrap_or(0);
                }
                if left == 0 {
                    return;
                }
                emptied.await;
            }
        };
        let _ = timeout(patience, gone).await;
    }

    /// Whether this node can serve: the bus is there, at least a part of it, and refuses no topic that has members here,
    /// nothing has failed, and the node is not going away.
    pub fn is_ready(&self) -> bool {
        let is_whole = self.is_bus_up() && self.0.links_up.refused() == 0;
        is_whole && !self.is_draining() && !self.has_failed()
    }

    /// Whether a task of the node has panicked, which is a bug of it or of its bus. What depended on that task has ended
    /// with 1011 and nobody is taken in any more: start the process again.
    pub fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Whether this node is going away.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether the bus is there, at least a part of it.
    pub fn is_bus_up(&self) -> bool {
        self.0.links_up.any()
    }

    /// The partitions of the bus whose link is away, in order. What is in them is away, the others go on: a connection is
    /// taken in and joins rooms nevertheless, and is told of a gap where something may be missing.
    pub fn partitions_away(&self) -> Vec<u16> {
        self.0.links_up.away()
    }

    /// Whether the link of a topic's partition is up.
    pub(crate) fn is_linked(&self, topic: &Topic) -> bool {
        self.0.links_up.has(self.0.bus.partition(topic))
    }

    pub(super) fn framing_number(&self, id: &'static str) -> usize {
        let mut framings = self.0.framings.lock().unwrap_or_else(PoisonError::into_inner);
        framings.iter().position(|known| *known == id).unwrap_or_else(|| {
            framings.push(id);
            framings.len() - 1
        })
    }
}
