//! A shard: one task that owns connections, the router of them, and an inbox.
//!
//! It works in passes: it takes the whole inbox, groups what is delivered per connection, hands each
//! connection its frames in one go, and yields every few connections. Membership changes only between
//! passes, since this task alone changes it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::clock;
use super::dispatcher::Wish;
use super::observer::{Event, Observing};
use super::outbox::{Outbox, Written};
use crate::{
    Change, ClientId, CloseReason, ConnectionKey, Delivery, Except, Framing, GapReason, Identity,
    Outgoing, Router, Scope, Topic, TransportInfo, UserId,
};

/// A delivery on its way to its receivers: framed at most once per framing.
pub(crate) struct Routed {
    topic: Topic,
    except: Option<Except>,
    message: Outgoing,
    frames: [OnceLock<Bytes>; MAX_FRAMINGS],
    cost: usize,
}

impl Routed {
    pub(crate) fn new(delivery: Delivery) -> Self {
        let cost = delivery.message.len() + ENTRY_COST;
        let room = delivery.topic.as_room().cloned();
        let message = Outgoing::event(delivery.message, room);
        Self {
            topic: delivery.topic,
            except: delivery.except,
            message,
            frames: Default::default(),
            cost,
        }
    }

    fn frame(&self, framing: NumberedFraming) -> Bytes {
        let encode = || (framing.framing.encode)(&self.message);
        match self.frames.get(framing.number) {
            Some(frame) => frame.get_or_init(encode).clone(),
            None => encode(),
        }
    }

    fn is_for(&self, slot: &Slot) -> bool {
        match &self.except {
            None => true,
            Some(Except::Client(client)) => *client != slot.client,
            Some(Except::User(user)) => *user != slot.user,
        }
    }
}

/// A framing with its place among those that the hub knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberedFraming {
    pub(crate) framing: Framing,
    pub(crate) number: usize,
}

/// What a shard keeps of a connection.
pub(crate) struct Slot {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) client: ClientId,
    pub(crate) user: UserId,
    framing: NumberedFraming,
    transport: &'static str,
    answers_heartbeats: bool,
    /// Which deliveries of the pass under way are for it.
    pending: Vec<u32>,
    next_ping: Duration,
    pinged_at: Option<Duration>,
}

impl Slot {
    pub(crate) fn new(
        outbox: Arc<Outbox>,
        client: ClientId,
        who: &Identity,
        info: &TransportInfo,
        number: usize,
    ) -> Self {
        let framing = NumberedFraming { framing: info.framing, number };
        let (transport, answers_heartbeats) = (info.name, info.answers_heartbeats);
        let user = who.user.clone();
        Self {
            outbox,
            client,
            user,
            framing,
            transport,
            answers_heartbeats,
            pending: Vec::new(),
            next_ping: Duration::MAX,
            pinged_at: None,
        }
    }

    pub(crate) fn transport(&self) -> &'static str {
        self.transport
    }

    pub(crate) fn send<'a>(&self, messages: impl IntoIterator<Item = &'a Outgoing>) {
        self.outbox.push(messages.into_iter().map(|m| (self.framing.framing.encode)(m)));
    }
}

/// The connections of a shard, as the closures in its inbox see them.
pub(crate) struct Members {
    pub(crate) router: Router<Slot>,
    shard: usize,
    wishes: mpsc::UnboundedSender<Wish>,
    heartbeat: Duration,
    observer: Observing,
}

/// How a join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    In,
    TooManyRooms,
}

impl Members {
    /// Takes a connection in, puts it into its topics and says what comes first.
    pub(crate) fn attach(
        &mut self,
        mut slot: Slot,
        topics: &[Topic],
        first: &[Outgoing],
    ) -> ConnectionKey {
        slot.next_ping = clock::monotonic() + self.heartbeat;
        slot.send(first);
        let key = self.router.attach(slot);
        for topic in topics {
            self.router.join(key, topic);
        }
        key
    }

    pub(crate) fn detach(&mut self, key: ConnectionKey) {
        let Some((slot, topics)) = self.router.detach(key) else { return };
        for (topic, _) in topics {
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
        say: &[Outgoing],
    ) -> Joined {
        let is_member = self.router.is_member(key, &topic);
        let rooms = self.router.topics_of(key).filter(|t| t.as_room().is_some()).count();
        if !is_member && max > 0 && rooms >= max {
            self.drop_wish(topic);
            return Joined::TooManyRooms;
        }
        if self.router.join(key, &topic) == Change::None {
            self.drop_wish(topic);
        }
        if let Some(slot) = self.router.get(key) {
            slot.send(say);
        }
        Joined::In
    }

    pub(crate) fn leave_room(&mut self, key: ConnectionKey, topic: Topic, say: &Outgoing) {
        if self.router.leave(key, &topic) != Change::None {
            self.drop_wish(topic);
        }
        if let Some(slot) = self.router.get(key) {
            slot.send([say]);
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

    fn drop_wish(&self, topic: Topic) {
        let _ = self.wishes.send(Wish::Drop { topic, shard: self.shard });
    }

    /// Hands the deliveries to their receivers, one push per connection.
    async fn pass(&mut self, deliveries: &[Arc<Routed>], inbox: &Inbox) {
        match deliveries {
            [one] => self.pass_one(one, inbox).await,
            many => self.pass_many(many, inbox).await,
        }
    }

    /// One delivery needs no list of what is for whom.
    async fn pass_one(&self, routed: &Routed, inbox: &Inbox) {
        let (mut members, mut handed) = (self.router.members(&routed.topic), 0);
        while members.len() > 0 {
            for slot in members.by_ref().take(CHUNK).filter_map(|slot| self.router.at(slot)) {
                if routed.is_for(slot) {
                    slot.outbox.push([routed.frame(slot.framing)]);
                    handed += 1;
                }
            }
            inbox.answer_looks(self);
            tokio::task::yield_now().await;
        }
        self.observer.on(Event::Delivered { messages: 1, receivers: handed });
    }

    async fn pass_many(&mut self, deliveries: &[Arc<Routed>], inbox: &Inbox) {
        let (mut receivers, mut handed) = (Vec::new(), 0);
        for (number, routed) in deliveries.iter().enumerate() {
            let slots: Vec<u32> = self.router.members(&routed.topic).collect();
            for slot in slots {
                let Some(member) = self.router.at_mut(slot).filter(|m| routed.is_for(m)) else {
                    continue;
                };
                if member.pending.is_empty() {
                    receivers.push(slot);
                }
                member.pending.push(number as u32);
            }
        }
        for chunk in receivers.chunks(CHUNK) {
            for &slot in chunk {
                let Some(member) = self.router.at_mut(slot) else { continue };
                let framing = member.framing;
                handed += member.pending.len();
                member
                    .outbox
                    .push(member.pending.iter().map(|&n| deliveries[n as usize].frame(framing)));
                if member.pending.capacity() > CHUNK {
                    member.pending = Vec::new()
                } else {
                    member.pending.clear()
                }
            }
            inbox.answer_looks(self);
            tokio::task::yield_now().await;
        }
        self.observer.on(Event::Delivered { messages: deliveries.len(), receivers: handed });
    }

    /// Pings who is due, cuts who answered none, wakes whose session waits.
    fn sweep(&mut self, now: Duration) {
        let heartbeat = self.heartbeat;
        let mut written = Written::default();
        for slot in self.router.values_mut() {
            let (heard, left) = slot.outbox.sweep(now);
            written += left;
            if slot.next_ping > now {
                continue;
            }
            if slot.answers_heartbeats && slot.pinged_at.is_some_and(|at| heard < at) {
                slot.outbox.end(CloseReason::NO_SIGN_OF_LIFE);
                continue;
            }
            slot.outbox.push([Bytes::from_static(slot.framing.framing.heartbeat)]);
            (slot.pinged_at, slot.next_ping) =
                (Some(now), slot.next_ping.max(now.saturating_sub(heartbeat)) + heartbeat);
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
    Run(Run),
}

#[derive(Default)]
struct Inbox {
    entries: Mutex<Vec<Entry>>,
    /// Questions that change nothing, answered also in the middle of a pass: a client's next message
    /// must not wait until the last one has reached everybody.
    looks: Mutex<Vec<Look>>,
    bytes: AtomicUsize,
    filled: Notify,
    drained: Notify,
}

impl Inbox {
    /// Answers how many there were.
    fn answer_looks(&self, members: &Members) -> usize {
        let looks = std::mem::take(&mut *self.looks.lock().unwrap_or_else(PoisonError::into_inner));
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
        self.0.looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
        self.0.filled.notify_one();
        answered.await.ok()
    }

    /// Tells the members of a topic that something may be missing.
    pub(crate) fn gap(&self, topic: Topic) {
        let gap = match &topic.scope {
            Scope::Room(room) => Outgoing::gap(Some(room), GapReason::Outage),
            Scope::User(_) => Outgoing::gap(None, GapReason::Outage),
            // The user's own gap covers both.
            Scope::Client(_) | Scope::Everyone => return,
        };
        self.run(move |members| {
            let mut connections = 0;
            for slot in members.router.members(&topic) {
                members.router.at(slot).into_iter().for_each(|slot| slot.send([&gap]));
                connections += 1;
            }
            members.observer.on(Event::Gap { reason: GapReason::Outage, connections });
        });
    }

    /// Waits until fewer than `bytes` are in the inbox.
    pub(crate) async fn below(&self, bytes: usize) {
        while self.0.bytes.load(Ordering::Relaxed) > bytes {
            self.0.drained.notified().await;
        }
    }

    fn put(&self, entry: Entry) {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
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
    ) -> Self {
        let members = Members { router: Router::default(), shard, wishes, heartbeat, observer };
        Self { inbox: Arc::default(), members }
    }

    pub(crate) fn handle(&self) -> ShardHandle {
        ShardHandle(self.inbox.clone())
    }

    /// Runs for as long as the process.
    pub(crate) async fn run(mut self) {
        let tick = (self.members.heartbeat / 8).clamp(SHORTEST_TICK, LONGEST_TICK);
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inbox.filled.notified() => {
                    self.gather().await;
                    self.drain().await;
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
            let has = self.inbox.entries.lock().unwrap_or_else(PoisonError::into_inner).len();
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
        let entries =
            std::mem::take(&mut *self.inbox.entries.lock().unwrap_or_else(PoisonError::into_inner));
        let mut deliveries = Vec::new();
        for entry in entries {
            match entry {
                Entry::Deliver(routed) => deliveries.push(routed),
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
        let cost = deliveries.iter().map(|routed| routed.cost).sum();
        self.inbox.bytes.fetch_sub(cost, Ordering::Relaxed);
        self.inbox.drained.notify_waiters();
        self.inbox.drained.notify_one();
        deliveries.clear();
    }
}

/// Framings of which a delivery keeps the frame; a further one is framed per receiver.
const MAX_FRAMINGS: usize = 8;
/// Connections between two yields: an inline fan-out to 10,000 stalls other tasks for 112 ms, 64 for 3.
const CHUNK: usize = 64;
/// Turns of other tasks without anything new after which a pass begins, and turns after which it begins anyway.
const QUIET_TURNS: u32 = 3;
const MOST_TURNS: u32 = 64;
/// What an entry of the inbox costs beside its message, in bytes.
const ENTRY_COST: usize = 256;
const SHORTEST_TICK: Duration = Duration::from_millis(10);
const LONGEST_TICK: Duration = Duration::from_secs(1);
