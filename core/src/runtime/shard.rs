//! A shard: one task that owns connections, the router of them, and an inbox.
//!
//! It works in passes: it takes the whole inbox, groups what is delivered per connection, hands each
//! connection its frames in one go, and yields every few connections. Membership changes only between
//! passes, since this task alone changes it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::attendance::Attendance;
use super::clock;
use super::dispatcher::Wish;
use super::observer::{Event, Observing};
use super::outbox::Written;
use super::pass::marks_after;
use super::routed::Routed;
use super::slot::{Floors, Overflown, Slot};
use crate::{
    Change, CloseReason, ConnectionKey, CursorKey, GapReason, Mark, Outgoing, Router, TenantId,
    Topic,
};

/// The connections of a shard, as the closures in its inbox see them.
pub(crate) struct Members {
    pub(crate) router: Router<Slot>,
    shard: usize,
    wishes: mpsc::UnboundedSender<Wish>,
    heartbeat: Duration,
    pub(super) observer: Observing,
    cursors: Option<CursorKey>,
    attendance: Option<Attendance>,
    /// The cursor of the node where this shard stands.
    pub(super) point: Box<[Mark]>,
}

/// How a join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    In,
    TooManyRooms,
}

impl Members {
    /// Takes a connection in, puts it into its topics and says what comes first; without that it is held, and the
    /// caller says more once it knows what the connection has missed.
    pub(crate) fn attach(
        &mut self,
        mut slot: Slot,
        topics: &[Topic],
        first: Option<Outgoing>,
    ) -> ConnectionKey {
        slot.next_ping = clock::monotonic() + self.heartbeat;
        match first {
            Some(first) => slot.send([&self.with_cursor(first, &slot.who.tenant)]),
            None => slot.hold(false),
        }
        let key = self.router.attach(slot);
        for topic in topics {
            self.router.join(key, topic);
        }
        // That a user's connection is there was claimed before it was taken in.
        key
    }

    /// The message with the cursor where the shard stands, when anything is kept.
    fn with_cursor(&self, mut message: Outgoing, tenant: &TenantId) -> Outgoing {
        message.cursor = self.cursors.as_ref().map(|key| key.write(tenant, &self.point).into());
        message
    }

    /// Holds back from a connection what is dispatched from now on. Answers where the shard stands, and the
    /// connection's topics.
    pub(crate) fn hold(&mut self, key: ConnectionKey) -> (Box<[Mark]>, Vec<Topic>) {
        if let Some(slot) = self.router.get_mut(key) {
            slot.hold(true);
        }
        (self.point.clone(), self.router.topics_of(key).cloned().collect())
    }

    pub(crate) fn is_held(&self, key: ConnectionKey) -> bool {
        self.router.get(key).is_some_and(Slot::is_held)
    }

    /// A held connection has read its topics up to these clocks.
    ///
    /// # Errors
    /// [`Overflown`]: it has to read once more.
    pub(crate) fn go_live(&mut self, key: ConnectionKey, floors: Floors) -> Result<(), Overflown> {
        let point = &self.point;
        self.router.get_mut(key).map_or(Ok(()), |slot| slot.go_live(floors, point))
    }

    /// The client is told from now on who comes into a room and who leaves it.
    pub(crate) fn watch(&mut self, key: ConnectionKey, room: Topic) {
        if let Some(slot) = self.router.get_mut(key) {
            slot.watch(room);
        }
    }

    /// Sends to one connection, as it is.
    pub(crate) fn send(&mut self, key: ConnectionKey, messages: &[Outgoing]) {
        self.router.get(key).into_iter().for_each(|slot| slot.send(messages));
    }

    /// `connected`, after which a held connection may be sent other things.
    pub(crate) fn open(&mut self, key: ConnectionKey, connected: &Outgoing) {
        if let Some(slot) = self.router.get_mut(key) {
            slot.open();
            slot.send([connected]);
        }
    }

    pub(crate) fn detach(&mut self, key: ConnectionKey) {
        let Some((slot, topics)) = self.router.detach(key) else { return };
        for (topic, _) in topics {
            self.attendance.iter().for_each(|a| a.leave(&topic, &slot.who.user));
            self.drop_wish(topic);
        }
        self.tell_written(slot.outbox.take_written());
    }

    /// Puts a connection into a room. Whoever asks has wished for the topic; the wish goes with the membership.
    pub(crate) fn join_room(
        &mut self,
        key: ConnectionKey,
        topic: Topic,
        max: usize,
        say: Option<Outgoing>,
    ) -> Joined {
        let is_member = self.router.is_member(key, &topic);
        let rooms = self.router.topics_of(key).filter(|t| t.as_room().is_some()).count();
        if !is_member && max > 0 && rooms >= max {
            self.drop_wish(topic);
            return Joined::TooManyRooms;
        }
        match (self.router.join(key, &topic), self.router.get(key), &self.attendance) {
            (Change::None, ..) => self.drop_wish(topic),
            (_, Some(slot), Some(attendance)) => attendance.come(&topic, &slot.who.user),
            _ => {}
        }
        if let (Some(slot), Some(say)) = (self.router.get(key), say) {
            slot.send([&self.with_cursor(say, &slot.who.tenant)]);
        }
        Joined::In
    }

    pub(crate) fn leave_room(&mut self, key: ConnectionKey, topic: Topic, say: &Outgoing) {
        let change = self.router.leave(key, &topic);
        let Some(slot) = self.router.get_mut(key) else { return };
        slot.send([say]);
        slot.unwatch(&topic);
        if change != Change::None {
            self.attendance.iter().for_each(|a| a.leave(&topic, &slot.who.user));
            self.drop_wish(topic);
        }
    }

    /// Ends the connections of a topic; answers how many there were.
    pub(crate) fn end(&self, topic: &Topic, reason: &CloseReason) -> usize {
        let slots: Vec<_> =
            self.router.members(topic).filter_map(|slot| self.router.at(slot)).collect();
        for slot in &slots {
            slot.outbox.end(reason.clone());
        }
        slots.len()
    }

    /// Ends all connections.
    pub(crate) fn end_all(&self, reason: &CloseReason) {
        self.router.iter().for_each(|(_, slot)| slot.outbox.end(reason.clone()));
    }

    fn drop_wish(&self, topic: Topic) {
        let _ = self.wishes.send(Wish::Drop { topic, shard: self.shard });
    }

    /// Pings who is due, cuts who answered none, wakes whose session waits.
    fn sweep(&mut self, now: Duration) {
        let heartbeat = self.heartbeat;
        let mut written = Written::default();
        for slot in self.router.values_mut() {
            let (heard, left) = slot.outbox.sweep(now);
            written += left;
            slot.sweep(now, heard, heartbeat);
            slot.forget_floors(&self.point);
        }
        self.tell_written(written);
    }

    fn tell_written(&self, Written { frames, bytes }: Written) {
        if bytes > 0 {
            self.observer.on(Event::Written { frames, bytes });
        }
    }
}

type Run = Box<dyn FnOnce(&mut Members) + Send>;
type Look = Box<dyn FnOnce(&Members) + Send>;

enum Entry {
    Deliver(Arc<Routed>),
    Point(Box<[Mark]>),
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
    filled: Notify,
    drained: Notify,
}

impl Inbox {
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

    /// Answers how many there were.
    pub(super) fn answer_looks(&self, members: &Members) -> usize {
        let looks = std::mem::take(&mut *self.looks());
        let many = looks.len();
        for look in looks {
            look(members);
        }
        many
    }
}

/// The way into a shard's inbox.
#[derive(Clone)]
pub(crate) struct ShardHandle(Arc<Inbox>);

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
    pub(crate) fn gap(&self, topic: Topic, reason: GapReason, epoch: u64) {
        self.run(move |members| {
            let slots: Vec<_> = members.router.members(&topic).collect();
            for &slot in &slots {
                if let Some(slot) = members.router.at_mut(slot) {
                    slot.gap(&topic, reason, epoch);
                }
            }
            members.observer.on(Event::Gap { reason, connections: slots.len() });
        });
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

/// A shard before it runs.
pub(crate) struct Shard {
    inbox: Arc<Inbox>,
    members: Members,
}

impl Shard {
    pub(crate) fn new(
        shard: usize,
        wishes: mpsc::UnboundedSender<Wish>,
        heartbeat: Duration,
        observer: Observing,
        cursors: Option<CursorKey>,
        attendance: Option<Attendance>,
    ) -> Self {
        let (router, point) = (Router::default(), Box::default());
        let members =
            Members { router, shard, wishes, heartbeat, observer, cursors, attendance, point };
        Self { inbox: Arc::default(), members }
    }

    pub(crate) fn handle(&self) -> ShardHandle {
        ShardHandle(self.inbox.clone())
    }

    /// Runs until the node is dropped.
    pub(crate) async fn run(mut self) {
        let tick = (self.members.heartbeat / 8).clamp(SHORTEST_TICK, LONGEST_TICK);
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inbox.filled.notified() => {
                    self.gather().await;
                    // Asked first, so that what was put in before is done.
                    let ends = self.inbox.ends.load(Ordering::Acquire);
                    self.drain().await;
                    if ends {
                        return;
                    }
                }
                _ = ticks.tick() => self.members.sweep(clock::monotonic()),
            }
        }
    }

    /// Lets what is on its way arrive, so that it leaves in one write per connection: as long as the inbox
    /// grows, others go first. Where nothing is on its way this costs a microsecond.
    async fn gather(&self) {
        let (mut had, mut quiet) = (0, 0);
        for _ in 0..MOST_TURNS {
            let looks = self.inbox.answer_looks(&self.members);
            let has = self.inbox.entries().len();
            quiet = if looks > 0 || has > had { 0 } else { quiet + 1 };
            if quiet == QUIET_TURNS {
                return;
            }
            had = has;
            tokio::task::yield_now().await;
        }
    }

    async fn drain(&mut self) {
        self.inbox.answer_looks(&self.members);
        let entries = std::mem::take(&mut *self.inbox.entries());
        let mut deliveries = Vec::new();
        for entry in entries {
            match entry {
                Entry::Deliver(routed) => deliveries.push(routed),
                // Cursors only rise by the messages between; what is said next is said at the end of them.
                Entry::Point(marks) => {
                    self.deliver(&mut deliveries).await;
                    self.members.point = marks;
                }
                Entry::Run(run) => {
                    self.deliver(&mut deliveries).await;
                    run(&mut self.members);
                }
            }
        }
        self.deliver(&mut deliveries).await;
    }

    async fn deliver(&mut self, deliveries: &mut Vec<Arc<Routed>>) {
        if deliveries.is_empty() {
            return;
        }
        self.members.pass(deliveries, &self.inbox).await;
        if let Some(marks) = marks_after(deliveries) {
            self.members.point = marks.into();
        }
        let cost = deliveries.iter().map(|routed| routed.cost).sum();
        self.inbox.bytes.fetch_sub(cost, Ordering::Relaxed);
        self.inbox.drained.notify_waiters();
        self.inbox.drained.notify_one();
        deliveries.clear();
    }
}

/// Also when the shard panics: whoever asks it is answered that it is gone, and its connections end.
impl Drop for Shard {
    fn drop(&mut self) {
        self.inbox.gone.store(true, Ordering::Release);
        // Dropped outside of the locks: what is in them may hold a node.
        let entries = std::mem::take(&mut *self.inbox.entries());
        let looks = std::mem::take(&mut *self.inbox.looks());
        drop((entries, looks));
        self.inbox.drained.notify_one();
        self.members.end_all(&CloseReason::INTERNAL);
    }
}

/// Turns of other tasks without anything new after which a pass begins, and turns after which it begins anyway.
const QUIET_TURNS: u32 = 3;
const MOST_TURNS: u32 = 64;
const SHORTEST_TICK: Duration = Duration::from_millis(10);
const LONGEST_TICK: Duration = Duration::from_secs(1);
