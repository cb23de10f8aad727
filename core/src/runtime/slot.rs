//! What a shard keeps of a connection, and how it is given what is dispatched.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::observer::{Event, Observing};
use super::outbox::Outbox;
use super::routed::{NumberedFraming, Receiver, Routed, framed};
use super::sabotage;
use crate::machines::{Dispatched, EpochChanged, Floors, Flow, NotLive, Told};
use crate::{CloseReason, GapReason, Mark, Outgoing, Position, Scope, Topic, TransportInfo};

pub(crate) struct Slot {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) who: Receiver,
    pub(crate) framing: NumberedFraming,
    observer: Observing,
    answers_heartbeats: bool,
    /// Which deliveries of the pass under way are for it.
    pub(crate) pending: Vec<u32>,
    pub(crate) next_ping: Duration,
    pinged_at: Option<Duration>,
    pub(crate) flow: Flow<Arc<Routed>>,
    /// It was given a cursor since the last sweep.
    has_cursor: AtomicBool,
    /// When it was last given one, as the sweeps saw it.
    cursor_at: Duration,
    /// The last gap that it was told of what is no room: others of its epoch are the same.
    own_gap: Option<Mark>,
    /// The rooms of which it wants to know who comes and goes.
    #[expect(
        clippy::box_collection,
        reason = "few connections have it, so it is to be small in all"
    )]
    watched: Option<Box<HashSet<Topic>>>,
}

/// More came meanwhile than may wait. It has to be read, and is held anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflown;

impl Slot {
    pub(crate) fn new(
        outbox: Arc<Outbox>,
        who: Receiver,
        info: &TransportInfo,
        number: usize,
        observer: Observing,
    ) -> Self {
        let framing = NumberedFraming { framing: info.framing, number };
        Self {
            outbox,
            who,
            framing,
            observer,
            answers_heartbeats: info.answers_heartbeats,
            pending: Vec::new(),
            next_ping: Duration::MAX,
            pinged_at: None,
            flow: Flow::default(),
            has_cursor: AtomicBool::new(true),
            cursor_at: Duration::ZERO,
            own_gap: None,
            watched: None,
        }
    }

    /// Sends to this connection alone. Before `connected` nothing is sent.
    pub(crate) fn send<'a>(&self, messages: impl IntoIterator<Item = &'a Outgoing>) {
        if !self.flow.is_open() {
            return;
        }
        let framing = self.framing.framing;
        self.push_frames(messages.into_iter().map(|message| {
            self.notes_cursor(message.cursor.is_some());
            framed(framing, message, &self.observer)
        }));
    }

    fn notes_cursor(&self, is_one: bool) {
        if is_one {
            self.has_cursor.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was given no cursor for so long, and could be given that of its shard.
    pub(crate) fn wants_cursor(&mut self, now: Duration, age: Duration) -> bool {
        if !self.flow.is_live() || std::mem::take(self.has_cursor.get_mut()) {
            self.cursor_at = now;
        }
        now.saturating_sub(self.cursor_at) >= age
    }

    /// Sends deliveries as they are.
    pub(crate) fn push<'a>(&self, routed: impl IntoIterator<Item = &'a Arc<Routed>>) {
        self.push_frames(routed.into_iter().map(|routed| {
            self.notes_cursor(routed.place.is_some());
            routed.frame(self.framing, &self.observer)
        }));
    }

    /// What its transport cannot frame ends the connection.
    fn push_frames(&self, frames: impl Iterator<Item = Option<Bytes>>) {
        let mut failed = false;
        self.outbox.push(frames.map_while(|frame| {
            failed = frame.is_none();
            frame
        }));
        if failed {
            self.outbox.end(CloseReason::INTERNAL);
        }
    }

    /// From now on the client is told who comes into a room and who leaves it.
    pub(crate) fn watch(&mut self, room: Topic) {
        self.watched.get_or_insert_default().insert(room);
    }

    pub(crate) fn unwatch(&mut self, room: &Topic) {
        if let Some(watched) = &mut self.watched {
            watched.remove(room);
        }
    }

    /// Whether a message is for this client.
    pub(crate) fn is_for(&self, routed: &Routed) -> bool {
        let watches = || self.watched.as_ref().is_some_and(|rooms| rooms.contains(&routed.topic));
        routed.is_for(&self.who) && (!routed.is_presence || watches())
    }

    /// Whether a message goes straight to the client; otherwise it waits, was read, or is not for it.
    pub(crate) fn admits(&mut self, routed: &Arc<Routed>) -> bool {
        if !self.is_for(routed) {
            return false;
        }
        if self.flow.is_held() && sabotage::is(sabotage::LIVE_DURING_REPLAY) {
            return self.flow.is_open();
        }
        let mut told = Vec::new();
        let admits = self.flow.admits(routed, self.outbox.limit(), &mut told);
        self.tell(told);
        admits
    }

    /// Gives the client a message that it [`admits`](Self::admits), as the topic's policy has it.
    pub(crate) fn give(&self, routed: &Arc<Routed>) {
        let Some(droppable) = &routed.droppable else { return self.push([routed]) };
        let Some(frame) = routed.frame(self.framing, &self.observer) else {
            return self.outbox.end(CloseReason::INTERNAL);
        };
        let (framing, observer) = (self.framing.framing, &self.observer);
        let gap = |topic: &Topic| {
            observer.on(Event::Gap { reason: GapReason::Slow, connections: 1 });
            framed(framing, &gap_of(topic, GapReason::Slow), observer)
        };
        self.outbox.push_droppable(frame, droppable.clone(), gap)
    }

    /// Something may be missing in a topic; from here on its messages are after this mark, when it is kept.
    pub(crate) fn gap(&mut self, topic: &Topic, reason: GapReason, mark: Option<Mark>) {
        let mut told = Vec::new();
        let gap = self.flow.gap(topic, reason, mark, &mut told);
        self.tell(told);
        if let Err(EpochChanged) = gap {
            self.outbox.end(CloseReason::TRY_AGAIN_LATER);
        }
    }

    /// The connection has read its topics up to these marks: what waited follows, and it goes live, or has to come back.
    ///
    /// # Errors
    /// [`Overflown`]: it has to read once more.
    pub(crate) fn go_live(&mut self, floors: Floors, point: &[Mark]) -> Result<(), Overflown> {
        let mut told = Vec::new();
        let live = self.flow.go_live(floors, point, &mut told);
        self.tell(told);
        match live {
            Ok(()) => Ok(()),
            Err(NotLive::Overflown) => Err(Overflown),
            Err(NotLive::EpochChanged) => {
                self.outbox.end(CloseReason::TRY_AGAIN_LATER);
                Ok(())
            }
        }
    }

    fn tell(&mut self, told: Vec<Told<Arc<Routed>>>) {
        for told in told {
            match told {
                Told::Message(routed) => self.push([&routed]),
                Told::Gap(topic, reason, mark) => {
                    if topic.as_room().is_none() && reason == GapReason::Epoch {
                        // What a partition lost before an epoch is told once: it has no room whatever topic it was of.
                        let before = std::mem::replace(&mut self.own_gap, mark);
                        if before.zip(mark).is_some_and(|(one, other)| one.is_of_epoch(other)) {
                            continue;
                        }
                    }
                    self.send([&gap_of(&topic, reason)]);
                }
            }
        }
    }

    /// Pings when it is due; ends the connection when the last ping was not answered.
    pub(crate) fn sweep(&mut self, now: Duration, heard: Duration, heartbeat: Duration) {
        if self.next_ping > now {
            return;
        }
        if self.answers_heartbeats && self.pinged_at.is_some_and(|at| heard < at) {
            return self.outbox.end(CloseReason::NO_SIGN_OF_LIFE);
        }
        self.outbox.push([Bytes::from_static(self.framing.framing.heartbeat)]);
        (self.pinged_at, self.next_ping) =
            (Some(now), self.next_ping.max(now.saturating_sub(heartbeat)) + heartbeat);
    }
}

impl Dispatched for Arc<Routed> {
    fn topic(&self) -> &Topic {
        &self.topic
    }

    fn position(&self) -> Option<Position> {
        self.place.as_ref().map(|place| place.position)
    }

    fn cost(&self) -> usize {
        self.cost
    }
}

/// What a client is told of a gap.
pub(crate) fn gap_of(topic: &Topic, reason: GapReason) -> Outgoing {
    match &topic.scope {
        Scope::Room(room) => Outgoing::gap(Some(room), reason),
        Scope::User(_) | Scope::Client(_) | Scope::Everyone => Outgoing::gap(None, reason),
    }
}
