//! The way into a shard: what waits for it in its order, and questions that are answered at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::pass::CHUNK;
use super::routed::Routed;
use super::shard::Members;
use crate::{CloseReason, GapReason, Mark, Topic};

type Run = Box<dyn FnOnce(&mut Members) + Send>;
type Look = Box<dyn FnOnce(&Members) + Send>;

/// What waits for a shard, in its turn.
pub(super) enum Entry {
    Deliver(Arc<Routed>),
    Point(Box<[Mark]>),
    Gap(Topic, GapReason, Option<Mark>),
    Run(Run),
}

#[derive(Default)]
pub(super) struct Inbox {
    entries: Mutex<Vec<Entry>>,
    /// The node ends: what is in the inbox is the last.
    ends: AtomicBool,
    /// Nobody takes anything out any more.
    gone: AtomicBool,
    /// Questions that change nothing, answered also in the middle of a pass: a client's next message
    /// must not wait until the last one has reached everybody.
    looks: Mutex<Vec<Look>>,
    bytes: AtomicUsize,
    pub(super) filled: Notify,
    drained: Notify,
}

impl Inbox {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// All there is, to be done in this order.
    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries())
    }

    /// Deliveries of this cost are done.
    pub(super) fn done(&self, cost: usize) {
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
        self.drained.notify_waiters();
        self.drained.notify_one();
    }

    /// Whether the node ends. To be asked before what is there is taken, so that it is the last.
    pub(super) fn ends(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    /// Nothing is taken out any more, and whoever asks is answered that the shard is gone.
    pub(super) fn close(&self) {
        self.gone.store(true, Ordering::Release);
        // Dropped outside of the locks: what is in them may hold a node.
        let entries = self.take();
        let looks = std::mem::take(&mut *self.looks());
        drop((entries, looks));
        self.drained.notify_one();
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, Vec<Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked under a lock of what is put in.
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Answers some of the questions, and how many these were; of the others the shard is told again.
    pub(super) fn answer_looks(&self, members: &Members) -> usize {
        let mut waiting = self.looks();
        let many = waiting.len().min(CHUNK);
        let looks: Vec<_> = waiting.drain(..many).collect();
        if !waiting.is_empty() {
            self.filled.notify_one();
        }
        drop(waiting);
        for look in looks {
            look(members);
        }
        many
    }
}

/// The way into a shard's inbox.
#[derive(Clone)]
pub(crate) struct ShardHandle(pub(super) Arc<Inbox>);

impl fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardHandle")
    }
}

impl ShardHandle {
    pub(crate) fn deliver(&self, routed: Arc<Routed>) {
        self.0.bytes.fetch_add(routed.cost, Ordering::Relaxed);
        self.put(Entry::Deliver(routed));
    }

    /// Runs `run` on the shard, in its turn.
    pub(crate) fn run(&self, run: impl FnOnce(&mut Members) + Send + 'static) {
        self.put(Entry::Run(Box::new(run)));
    }

    /// Runs `run` on the shard, in its turn, and answers what it returned; `None` when the shard is gone.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Members) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        self.run(move |members| {
            let _ = answer.send(run(members));
        });
        answered.await.ok()
    }

    /// Answers a question that changes nothing, at once; `None` when the shard is gone.
    pub(crate) async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Members) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |members| {
            let _ = answer.send(look(members));
        });
        self.put_look(look);
        answered.await.ok()
    }

    /// Says where the node stands.
    pub(crate) fn point(&self, marks: Box<[Mark]>) {
        self.put(Entry::Point(marks));
    }

    /// Tells the members of a topic that something may be missing.
    pub(crate) fn gap(&self, topic: Topic, reason: GapReason, mark: Option<Mark>) {
        self.put(Entry::Gap(topic, reason, mark));
    }

    /// Waits until fewer than `bytes` are in the inbox.
    pub(crate) async fn below(&self, bytes: usize) {
        while self.0.bytes.load(Ordering::Relaxed) > bytes && !self.0.is_gone() {
            self.0.drained.notified().await;
        }
    }

    /// Lets the shard end once it has done what is in its inbox.
    pub(crate) fn end(&self) {
        self.0.ends.store(true, Ordering::Release);
        self.0.filled.notify_one();
    }

    /// Ends all connections of the shard.
    pub(crate) fn end_all(&self, reason: CloseReason) {
        self.run(move |members| members.end_all(&reason));
    }

    fn put_look(&self, look: Look) {
        let mut looks = self.0.looks();
        if !self.0.is_gone() {
            looks.push(look);
            drop(looks);
            self.0.filled.notify_one();
        }
    }

    fn put(&self, entry: Entry) {
        let mut entries = self.0.entries();
        if self.0.is_gone() {
            return;
        }
        entries.push(entry);
        let first = entries.len() == 1;
        drop(entries);
        if first {
            self.0.filled.notify_one();
        }
    }
}
