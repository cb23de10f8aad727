//! Whether what a shard dispatches goes straight to a connection.
//!
//! A connection that pulls what it missed is held: what is dispatched meanwhile waits, bounded in bytes. Once it has
//! read everything up to a clock, what waited follows, less what it has read. Where the bound is passed it reads
//! instead.

use std::collections::HashMap;

use crate::resume::EpochChanged;
use crate::{GapReason, Mark, Position, Topic};

/// What is dispatched, as [`Flow`] sees it.
pub trait Dispatched: Clone {
    /// The topic it is of.
    fn topic(&self) -> &Topic;
    /// Where it stands there; `None` when the topic is not kept.
    fn position(&self) -> Option<Position>;
    /// What it costs while it waits, in bytes.
    fn cost(&self) -> usize;
}

/// Per topic the mark up to which it was read.
pub type Floors = HashMap<Topic, Mark>;

/// The machine: one connection in its shard.
///
/// What is to be sent comes out through `told`, in order.
#[derive(Debug)]
pub struct Flow<M>(State<M>);

#[derive(Debug)]
enum State<M> {
    Live,
    /// What was read is not sent again.
    Past(Box<Floors>),
    Held(Box<Held<M>>),
}

#[derive(Debug)]
struct Held<M> {
    waiting: Vec<Told<M>>,
    bytes: usize,
    /// More came than may wait, so that it has to be read instead.
    overflown: bool,
    /// Nothing is sent before `connected`.
    opened: bool,
    /// What was read before it was held.
    floors: Floors,
}

/// What a connection is told.
#[derive(Debug, Clone)]
pub enum Told<M> {
    /// A message.
    Message(M),
    /// Something may be missing in the topic. From here on its messages are after this mark; `None` when it is not kept.
    Gap(Topic, GapReason, Option<Mark>),
}

/// From where a connection reads: everything up to there it was given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Starts {
    /// The cursor: a mark per partition.
    pub marks: Box<[Mark]>,
    /// Of each topic the mark it has got to, which the cursor may be behind.
    pub topics: HashMap<Topic, Mark>,
}

/// Why a connection does not go live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotLive {
    /// More came meanwhile than may wait. It is held anew, and has to read once more.
    Overflown,
    /// The store changed; the client has to come back with its last cursor.
    EpochChanged,
}

impl<M> Default for Flow<M> {
    fn default() -> Self {
        Self(State::Live)
    }
}

impl<M: Dispatched> Flow<M> {
    /// A connection that is held from its beginning. Until it is [`open`](Self::open) nothing at all is sent.
    pub fn held() -> Self {
        Self(State::Held(Box::new(Held { opened: false, ..Held::new(Floors::new()) })))
    }

    /// Whether what is dispatched goes straight to it.
    pub fn is_live(&self) -> bool {
        matches!(self.0, State::Live)
    }

    /// Whether what is dispatched waits.
    pub fn is_held(&self) -> bool {
        matches!(self.0, State::Held(_))
    }

    /// Whether it may be sent other things.
    pub fn is_open(&self) -> bool {
        !matches!(&self.0, State::Held(held) if !held.opened)
    }

    /// The client knows that it is connected.
    pub fn open(&mut self) {
        if let State::Held(held) = &mut self.0 {
            held.opened = true;
        }
    }

    /// The connection reads from now on, and is held meanwhile.
    pub fn pull(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, State::Live) {
            State::Live => State::Held(Box::new(Held::new(Floors::new()))),
            State::Past(floors) => State::Held(Box::new(Held::new(*floors))),
            held @ State::Held(_) => held,
        };
    }

    /// Whether a message goes straight to the client; otherwise it waits, was read, or has to be read. `limit` is how
    /// many bytes may wait.
    pub fn admits(&mut self, message: &M, limit: usize, told: &mut Vec<Told<M>>) -> bool {
        match &mut self.0 {
            State::Live => true,
            State::Past(floors) => {
                let passes = passes(floors, message);
                if floors.is_empty() {
                    self.0 = State::Live;
                }
                passes
            }
            State::Held(held) if held.overflown => held.opened && message.position().is_none(),
            State::Held(held) => {
                held.waiting.push(Told::Message(message.clone()));
                held.bytes += message.cost();
                if held.bytes > limit {
                    held.overflow(told);
                }
                false
            }
        }
    }

    /// Something may be missing in a topic; from here on its messages are after this mark, when it is kept.
    ///
    /// # Errors
    /// [`EpochChanged`]: what was read is of another epoch. Epochs have no order, so it cannot be known what is next.
    pub fn gap(
        &mut self,
        topic: &Topic,
        reason: GapReason,
        mark: Option<Mark>,
        told: &mut Vec<Told<M>>,
    ) -> Result<(), EpochChanged> {
        let gap = Told::Gap(topic.clone(), reason, mark);
        match &mut self.0 {
            State::Live => {}
            State::Past(floors) => {
                if let (Some(floor), Some(mark)) = (floors.get(topic), mark)
                    && !floor.is_of_epoch(mark)
                {
                    return Err(EpochChanged);
                }
            }
            State::Held(held) if !held.overflown => {
                held.waiting.push(gap);
                return Ok(());
            }
            State::Held(held) if !(held.opened && gap.is_not_read()) => return Ok(()),
            State::Held(_) => {}
        }
        told.push(gap);
        Ok(())
    }

    /// The connection has read its topics up to these marks: what waited follows, and it goes live. The shard stands
    /// at `point`.
    ///
    /// # Errors
    /// [`NotLive`] says what is next.
    pub fn go_live(
        &mut self,
        floors: Floors,
        point: &[Mark],
        told: &mut Vec<Told<M>>,
    ) -> Result<(), NotLive> {
        let State::Held(held) = &mut self.0 else { return Ok(()) };
        let mut known = std::mem::take(&mut held.floors);
        known.extend(floors);
        if held.overflown {
            **held = Held::new(known);
            return Err(NotLive::Overflown);
        }
        let waiting = std::mem::take(&mut held.waiting);
        self.0 = State::Past(Box::new(known));
        for waiting in waiting {
            match waiting {
                Told::Gap(topic, reason, mark) => self
                    .gap(&topic, reason, mark, told)
                    .map_err(|EpochChanged| NotLive::EpochChanged)?,
                Told::Message(message) => {
                    if self.admits(&message, usize::MAX, told) {
                        told.push(Told::Message(message));
                    }
                }
            }
        }
        self.forget_floors(point);
        Ok(())
    }

    /// The connection has left a topic.
    pub fn leave(&mut self, topic: &Topic) {
        match &mut self.0 {
            State::Live => {}
            State::Past(floors) => {
                floors.remove(topic);
            }
            State::Held(held) => {
                held.waiting.retain(|told| told.topic() != topic);
                held.floors.remove(topic);
            }
        }
    }

    /// Up to where a topic was read, unless what was dispatched has passed it.
    pub fn floor(&self, topic: &Topic) -> Option<Mark> {
        match &self.0 {
            State::Live => None,
            State::Past(floors) => floors.get(topic).copied(),
            State::Held(held) => held.floors.get(topic).copied(),
        }
    }

    /// Floors that the node's order has passed are of no more use.
    pub fn forget_floors(&mut self, point: &[Mark]) {
        if let State::Past(floors) = &mut self.0 {
            floors.retain(|_, floor| !point.iter().any(|mark| floor.is_passed_by(*mark)));
            if floors.is_empty() {
                self.0 = State::Live;
            }
        }
    }
}

impl<M: Dispatched> Held<M> {
    fn new(floors: Floors) -> Self {
        Self { waiting: Vec::new(), bytes: 0, overflown: false, opened: true, floors }
    }

    /// What waits is read instead; what cannot be read goes out now.
    fn overflow(&mut self, told: &mut Vec<Told<M>>) {
        self.overflown = true;
        let waiting = std::mem::take(&mut self.waiting);
        if self.opened {
            told.extend(waiting.into_iter().filter(Told::is_not_read));
        }
    }
}

impl<M: Dispatched> Told<M> {
    fn topic(&self) -> &Topic {
        match self {
            Self::Message(message) => message.topic(),
            Self::Gap(topic, ..) => topic,
        }
    }

    /// Whether who reads the history instead does not learn of it.
    fn is_not_read(&self) -> bool {
        match self {
            Self::Message(message) => message.position().is_none(),
            Self::Gap(_, reason, mark) => mark.is_none() || *reason == GapReason::Outage,
        }
    }
}

/// Whether a message is not among what was read. The node may lag behind that, even by an epoch.
fn passes<M: Dispatched>(floors: &mut Floors, message: &M) -> bool {
    let Some(Position { epoch, clock, .. }) = message.position() else { return true };
    let Some(floor) = floors.get(message.topic()) else { return true };
    let passes = floor.is_of(epoch) && clock > floor.clock;
    if passes {
        floors.remove(message.topic());
    }
    passes
}

/// Where a shard stands: the node's cursor, and up to where what is dispatched of each topic has passed it.
///
/// The cursor of a partition stays below what may be missing in any of its topics, so that most topics are further.
#[derive(Debug, Default)]
pub struct Standing {
    point: Box<[Mark]>,
    topics: HashMap<Topic, Mark>,
}

impl Standing {
    /// The node's cursor where this shard stands.
    pub fn point(&self) -> &[Mark] {
        &self.point
    }

    /// The cursor is now this. `open` answers the topics that have members, with their partitions.
    pub fn moves(&mut self, point: &[Mark], open: impl FnOnce() -> Vec<(Topic, u16)>) {
        if self.point.iter().zip(point).any(|(was, is)| !was.is_of_epoch(*is)) {
            // What is of the epoch that ended must not be taken for the beginning of the next.
            for (topic, partition) in open() {
                if let Some(was) = self.point.get(usize::from(partition)) {
                    self.topics.entry(topic).or_insert(*was);
                }
            }
        }
        match self.point.len() == point.len() {
            true => self.point.copy_from_slice(point),
            false => self.point = point.into(),
        }
    }

    /// A message has been handed to the members, if there are any.
    pub fn passed(
        &mut self,
        topic: &Topic,
        position: Position,
        has_members: impl FnOnce() -> bool,
    ) {
        let mark = Mark::new(position.epoch, position.clock);
        if let Some(known) = self.topics.get_mut(topic) {
            *known = mark;
        } else if has_members() {
            self.topics.insert(topic.clone(), mark);
        }
    }

    /// The members of a topic have been told of a gap, after which its messages are after this mark.
    pub fn gap(&mut self, topic: &Topic, mark: Mark) {
        let known = self.topics.entry(topic.clone()).or_insert(mark);
        *known = known.advanced(mark);
    }

    /// A topic has no member any more.
    pub fn forget(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }

    /// From where a member reads a topic that it was given all of, but for what it has read up to a floor.
    pub fn start(&self, topic: &Topic, partition: u16, floor: Option<Mark>) -> Option<Mark> {
        let point = *self.point.get(usize::from(partition))?;
        let known = match self.topics.get(topic) {
            Some(&known) if known.is_of_epoch(point) => known.advanced(point),
            Some(&known) => known,
            None => point,
        };
        Some(floor.map_or(known, |floor| known.advanced(floor)))
    }
}
