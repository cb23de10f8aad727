//! What a shard keeps of a connection, and whether what is dispatched goes straight to it.
//!
//! A connection that pulls what it missed is held: what is dispatched meanwhile waits here. Once it has read
//! everything up to a clock, what waited follows, less what it has read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::observer::{Event, Observing};
use super::outbox::Outbox;
use super::routed::{NumberedFraming, Place, Receiver, Routed, framed};
use super::sabotage;
use crate::{CloseReason, GapReason, Mark, Outgoing, Position, Scope, Topic, TransportInfo};

pub(crate) struct Slot {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) who: Receiver,
    pub(crate) framing: NumberedFraming,
    pub(crate) transport: &'static str,
    observer: Observing,
    answers_heartbeats: bool,
    /// Which deliveries of the pass under way are for it.
    pub(crate) pending: Vec<u32>,
    pub(crate) next_ping: Duration,
    pinged_at: Option<Duration>,
    flow: Flow,
    /// The rooms of which it wants to know who comes and goes.
    #[expect(
        clippy::box_collection,
        reason = "few connections have it, so it is to be small in all"
    )]
    watched: Option<Box<HashSet<Topic>>>,
}

enum Flow {
    Live,
    /// What was read is not sent again: per topic the epoch and the clock up to which it was read.
    Past(Box<Floors>),
    Held(Box<Held>),
}

pub(crate) type Floors = HashMap<Topic, (u64, u64)>;

#[derive(Default)]
struct Held {
    waiting: Vec<Waiting>,
    bytes: usize,
    /// More came than may wait, so that it has to be read instead.
    overflown: bool,
    /// Nothing is sent before `connected`.
    opened: bool,
}

enum Waiting {
    Message(Arc<Routed>),
    Gap(Topic, GapReason, u64),
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
        let (transport, answers_heartbeats) = (info.name, info.answers_heartbeats);
        Self {
            outbox,
            who,
            framing,
            transport,
            observer,
            answers_heartbeats,
            pending: Vec::new(),
            next_ping: Duration::MAX,
            pinged_at: None,
            flow: Flow::Live,
            watched: None,
        }
    }

    /// Sends to this connection alone. Before `connected` nothing is sent.
    pub(crate) fn send<'a>(&self, messages: impl IntoIterator<Item = &'a Outgoing>) {
        if matches!(&self.flow, Flow::Held(held) if !held.opened) {
            return;
        }
        let framing = self.framing.framing;
        self.push_frames(messages.into_iter().map(|m| framed(framing, m, &self.observer)));
    }

    /// Sends deliveries as they are.
    pub(crate) fn push<'a>(&self, routed: impl IntoIterator<Item = &'a Arc<Routed>>) {
        self.push_frames(routed.into_iter().map(|r| r.frame(self.framing, &self.observer)));
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

    /// Whether what is dispatched goes straight to it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.flow, Flow::Live)
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.flow, Flow::Held(_))
    }

    /// Holds what is dispatched from now on; before `opened` nothing at all is sent.
    pub(crate) fn hold(&mut self, opened: bool) {
        if !self.is_held() {
            self.flow = Flow::Held(Box::new(Held { opened, ..Held::default() }));
        }
    }

    /// The client knows that it is connected.
    pub(crate) fn open(&mut self) {
        if let Flow::Held(held) = &mut self.flow {
            held.opened = true;
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
        match &mut self.flow {
            Flow::Live => true,
            Flow::Past(floors) => {
                let passes = passes(floors, &routed.topic, routed.place.as_ref());
                if floors.is_empty() {
                    self.flow = Flow::Live;
                }
                passes
            }
            Flow::Held(held) => {
                if sabotage::is(sabotage::LIVE_DURING_REPLAY) {
                    return held.opened;
                }
                if held.overflown {
                    return held.opened && routed.place.is_none();
                }
                held.push(Waiting::Message(routed.clone()), routed.cost, self.outbox.limit());
                if held.overflown {
                    self.send_what_is_not_kept();
                }
                false
            }
        }
    }

    /// Gives the client a message that it [`admits`](Self::admits), as the topic's policy has it. `before` is the cursor
    /// of who has got everything before this.
    pub(crate) fn give(&mut self, routed: &Arc<Routed>, before: &[Mark]) {
        let Some(droppable) = &routed.droppable else { return self.push([routed]) };
        let Some(frame) = routed.frame(self.framing, &self.observer) else {
            return self.outbox.end(CloseReason::INTERNAL);
        };
        let (framing, observer) = (self.framing.framing, &self.observer);
        let gap = |topic: &Topic| {
            observer.on(Event::Gap { reason: GapReason::Slow, connections: 1 });
            framed(framing, &gap_of(topic, GapReason::Slow), observer)
        };
        if self.outbox.push_droppable(frame, droppable.clone(), gap).is_err() {
            self.flow =
                Flow::Held(Box::new(Held { opened: true, overflown: true, ..Held::default() }));
            self.outbox.refill_from(before.into());
        }
    }

    /// What waits and is in no history cannot be read later.
    fn send_what_is_not_kept(&mut self) {
        let Flow::Held(held) = &mut self.flow else { return };
        let waiting = std::mem::take(&mut held.waiting);
        if held.opened {
            let messages = waiting.iter().filter_map(|waiting| match waiting {
                Waiting::Message(routed) if routed.place.is_none() => Some(routed),
                _ => None,
            });
            self.push(messages);
        }
    }

    /// Something may be missing in a topic; from here on its messages are of this epoch.
    pub(crate) fn gap(&mut self, topic: &Topic, reason: GapReason, epoch: u64) {
        match &mut self.flow {
            Flow::Live => {}
            Flow::Past(floors) => {
                floors.retain(|known, floor| known != topic || floor.0 == epoch);
            }
            Flow::Held(held) => {
                if !held.overflown {
                    let gap = Waiting::Gap(topic.clone(), reason, epoch);
                    held.push(gap, size_of::<Waiting>(), usize::MAX);
                }
                return;
            }
        }
        self.send([&gap_of(topic, reason)]);
    }

    /// The connection has read its topics up to these clocks: what waited follows, and it goes live.
    ///
    /// # Errors
    /// [`Overflown`]: it has to read once more.
    pub(crate) fn go_live(&mut self, floors: Floors, point: &[Mark]) -> Result<(), Overflown> {
        let Flow::Held(held) = &mut self.flow else { return Ok(()) };
        if held.overflown {
            **held = Held { opened: true, ..Held::default() };
            return Err(Overflown);
        }
        let waiting = std::mem::take(&mut held.waiting);
        self.flow = Flow::Past(Box::new(floors));
        for waiting in waiting {
            match waiting {
                Waiting::Gap(topic, reason, epoch) => self.gap(&topic, reason, epoch),
                Waiting::Message(routed) => {
                    if self.admits(&routed) {
                        self.push([&routed]);
                    }
                }
            }
        }
        self.forget_floors(point);
        Ok(())
    }

    /// Floors that the node's order has passed are of no more use.
    pub(crate) fn forget_floors(&mut self, point: &[Mark]) {
        if let Flow::Past(floors) = &mut self.flow {
            floors.retain(|_, &mut (epoch, clock)| {
                !point.iter().any(|mark| mark.is_of(epoch) && mark.clock >= clock)
            });
            if floors.is_empty() {
                self.flow = Flow::Live;
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

impl Held {
    fn push(&mut self, waiting: Waiting, cost: usize, limit: usize) {
        self.overflown |= self.bytes + cost > limit;
        self.bytes += cost;
        self.waiting.push(waiting);
    }
}

/// Whether a message is not among what was read. The node may lag behind that, even by an epoch.
fn passes(floors: &mut Floors, topic: &Topic, place: Option<&Place>) -> bool {
    let Some(&Place { position: Position { epoch, clock, .. }, .. }) = place else { return true };
    let Some(&(read_epoch, read_to)) = floors.get(topic) else { return true };
    let passes = epoch == read_epoch && clock > read_to;
    if passes {
        floors.remove(topic);
    }
    passes
}

/// What a client is told of a gap.
pub(crate) fn gap_of(topic: &Topic, reason: GapReason) -> Outgoing {
    match &topic.scope {
        Scope::Room(room) => Outgoing::gap(Some(room), reason),
        Scope::User(_) | Scope::Client(_) | Scope::Everyone => Outgoing::gap(None, reason),
    }
}
