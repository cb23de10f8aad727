//! A shard: one task that owns connections, the router of them, and an inbox.
//!
//! It works in passes: it takes the whole inbox, groups what is delivered per connection, hands each
//! connection its frames in one go, and yields every few connections. Membership changes only between
//! passes, since this task alone changes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::attendance::{Attendance, Departure};
use super::clock;
use super::inbox::{Entry, Inbox, ShardHandle};
use super::observer::{Event, Observing};
use super::outbox::Written;
use super::routed::Routed;
use super::slot::Slot;
use super::spawn::jitter;
use super::wish::{Wish, Wished};
use crate::machines::{Change, ConnectionKey, Flow, Router, Standing};
use crate::{CloseReason, CursorKey, Outgoing, TenantId, Topic};

/// In which partition of the bus a topic is.
pub(crate) type Partition = Arc<dyn Fn(&Topic) -> u16 + Send + Sync>;

/// The connections of a shard, as the closures in its inbox see them.
pub(crate) struct Members {
    pub(crate) router: Router<Slot>,
    shard: usize,
    wishes: mpsc::UnboundedSender<Wish>,
    heartbeat: Duration,
    cursor_age: Duration,
    emptied: Arc<Notify>,
    pub(super) observer: Observing,
    cursors: Option<CursorKey>,
    attendance: Option<Attendance>,
    pub(super) partition: Partition,
    pub(super) standing: Standing,
    /// Connections and entries that were looked after since other tasks had their turn.
    pub(super) done: usize,
}

/// How a join ended.
#[derive(Debug)]
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
        wished: Wished,
        first: Option<Outgoing>,
    ) -> ConnectionKey {
        // Spread, so that those who came together are not pinged together for ever.
        slot.next_ping = clock::monotonic() + jitter(self.heartbeat);
        match first {
            Some(first) => slot.send([&self.with_cursor(first, &slot.who.tenant)]),
            None => slot.flow = Flow::held(),
        }
        let key = self.router.attach(slot);
        for topic in topics {
            self.router.join(key, topic);
        }
        wished.fulfil();
        // That a user's connection is there was claimed before it was taken in.
        key
    }

    /// The message with the cursor where the shard stands, when anything is kept.
    fn with_cursor(&self, mut message: Outgoing, tenant: &TenantId) -> Outgoing {
        message.cursor =
            self.cursors.as_ref().map(|key| key.write(tenant, self.standing.point()).into());
        message
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
            slot.flow.open();
            slot.send([connected]);
        }
    }

    pub(crate) fn detach(&mut self, key: ConnectionKey, departure: Departure) {
        let Some((slot, topics)) = self.router.detach(key) else { return };
        for (topic, change) in topics {
            self.left(&topic, change);
            self.attendance.iter().for_each(|a| a.leave(&topic, &slot.who.user, departure));
            self.drop_wish(topic);
        }
        self.tell_written(slot.outbox.gone());
        if self.router.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Puts a connection into a room that is wished for; the wish goes with the membership.
    pub(crate) fn join_room(
        &mut self,
        key: ConnectionKey,
        topic: &Topic,
        wished: Wished,
        max: usize,
        say: Option<Outgoing>,
    ) -> Joined {
        if !self.has_place(key, topic, max) {
            return Joined::TooManyRooms;
        }
        // Who was in already, or is gone, gives the wish up.
        if self.router.join(key, topic) != Change::None {
            wished.fulfil();
            if let (Some(slot), Some(attendance)) = (self.router.get(key), &self.attendance) {
                attendance.come(topic, &slot.who.user);
            }
        }
        if let (Some(slot), Some(say)) = (self.router.get(key), say) {
            slot.send([&self.with_cursor(say, &slot.who.tenant)]);
        }
        Joined::In
    }

    /// Whether a connection is in a room, or may come into one more of `max` (0 for any number).
    pub(crate) fn has_place(&self, key: ConnectionKey, topic: &Topic, max: usize) -> bool {
        let rooms = || self.router.topics_of(key).filter(|t| t.as_room().is_some()).count();
        max == 0 || self.router.is_member(key, topic) || rooms() < max
    }

    pub(crate) fn leave_room(&mut self, key: ConnectionKey, topic: Topic, say: &Outgoing) {
        let change = self.router.leave(key, &topic);
        let Some(slot) = self.router.get_mut(key) else { return };
        slot.send([say]);
        slot.unwatch(&topic);
        slot.flow.leave(&topic);
        if change != Change::None {
            self.attendance.iter().for_each(|a| a.leave(&topic, &slot.who.user, Departure::Left));
            self.left(&topic, change);
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

    /// Goes on with a sweep: pings who is due, cuts who answered none, wakes whose session waits. Answers whether all
    /// have had their turn.
    fn sweep(&mut self, sweep: &mut Sweep) -> bool {
        let (now, all) = (clock::monotonic(), self.router.slots());
        let end = all.min(sweep.next + SWEPT);
        for number in sweep.next..end {
            let Some(slot) = self.router.at_mut(number) else { continue };
            let (heard, left) = slot.outbox.sweep(now);
            sweep.written += left;
            slot.sweep(now, heard, self.heartbeat);
            slot.flow.forget_floors(self.standing.point());
            if let Some(cursors) = &self.cursors
                && slot.wants_cursor(now, self.cursor_age)
            {
                let mut message = Outgoing::cursor();
                let cursor = cursors.write(&slot.who.tenant, self.standing.point());
                message.cursor = Some(cursor.into());
                slot.send([&message]);
            }
        }
        sweep.next = end;
        let is_over = end == all;
        if is_over {
            self.tell_written(sweep.written);
        }
        is_over
    }

    fn tell_written(&self, Written { frames, bytes }: Written) {
        if bytes > 0 {
            self.observer.on(Event::Written { frames, bytes });
        }
    }
}

/// A look at every connection, a few at a time; deliveries go between.
#[derive(Debug, Default)]
struct Sweep {
    next: u32,
    written: Written,
}

/// A shard before it runs.
pub(crate) struct Shard {
    inbox: Arc<Inbox>,
    members: Members,
}

impl Shard {
    #[expect(clippy::too_many_arguments, reason = "called once, by the hub")]
    pub(crate) fn new(
        shard: usize,
        wishes: mpsc::UnboundedSender<Wish>,
        heartbeat: Duration,
        cursor_age: Duration,
        emptied: Arc<Notify>,
        observer: Observing,
        cursors: Option<CursorKey>,
        attendance: Option<Attendance>,
        partition: Partition,
    ) -> Self {
        let (router, standing) = (Router::default(), Standing::default());
        let members = Members {
            router,
            shard,
            wishes,
            heartbeat,
            cursor_age,
            emptied,
            observer,
            cursors,
            attendance,
            partition,
            standing,
            done: 0,
        };
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
        let mut sweep = None;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick(), if sweep.is_none() => sweep = Some(Sweep::default()),
                () = self.inbox.filled.notified() => {
                    self.gather().await;
                    let ends = self.inbox.ends();
                    self.drain().await;
                    if ends {
                        return;
                    }
                }
                () = std::future::ready(()), if sweep.is_some() => {}
            }
            if let Some(under_way) = &mut sweep {
                if self.members.sweep(under_way) {
                    sweep = None;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Lets what is on its way arrive, so that it leaves in one write per connection: as long as the inbox
    /// grows, others go first. Where nothing is on its way this costs a microsecond.
    async fn gather(&self) {
        let (mut had, mut quiet) = (0, 0);
        for _ in 0..MOST_TURNS {
            let looks = self.inbox.answer_looks(&self.members);
            let has = self.inbox.len();
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
        let entries = self.inbox.take();
        let mut deliveries = Vec::new();
        for entry in entries {
            match entry {
                Entry::Deliver(routed) => deliveries.push(routed),
                // Cursors only rise by the messages between; what is said next is said at the end of them.
                Entry::Point(marks) => {
                    self.deliver(&mut deliveries).await;
                    self.members.moves(&marks);
                }
                Entry::Gap(topic, reason, mark) => {
                    self.deliver(&mut deliveries).await;
                    self.members.gap(&topic, reason, mark, &self.inbox).await;
                }
                Entry::Run(run) => {
                    self.deliver(&mut deliveries).await;
                    run(&mut self.members);
                    self.members.pause(&self.inbox).await;
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
        self.members.passed(deliveries);
        let cost = deliveries.iter().map(|routed| routed.cost).sum();
        self.inbox.done(cost);
        deliveries.clear();
    }
}

/// Also when the shard panics: whoever asks it is answered that it is gone, and its connections end.
impl Drop for Shard {
    fn drop(&mut self) {
        self.inbox.close();
        self.members.end_all(&CloseReason::INTERNAL);
        self.members.emptied.notify_waiters();
    }
}

/// Turns of other tasks without anything new after which a pass begins, and turns after which it begins anyway.
const QUIET_TURNS: u32 = 3;
const MOST_TURNS: u32 = 64;
/// Connections that a sweep looks at in one go.
const SWEPT: u32 = 128;
const SHORTEST_TICK: Duration = Duration::from_millis(10);
const LONGEST_TICK: Duration = Duration::from_secs(1);

#[cfg(all(test, feature = "testing"))]
mod tests;
