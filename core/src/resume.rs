//! What a connection has missed, pulled from the history instead of pushed: the replay before it goes live.
//!
//! The pages of its topics are merged by clock, so that each replayed message again carries a true cursor that
//! rises: everything up to it, in every topic of the connection, has been sent. It stays before a hole until the `gap`
//! that tells of it was taken, so that a client that is cut in between is told when it comes back.
//!
//! It reads nothing itself: [`wants`](Resume::wants) says which topics to read after which clock.

use std::collections::{BTreeMap, VecDeque};

use crate::machines::Floors;
use crate::{Delivery, GapReason, HistoryPage, Mark, Topic};

/// The machine: the topics of one connection on their way from a cursor to the present.
///
/// Order of calls: [`add`](Self::add) topics; answer each of [`wants`](Self::wants) with [`page`](Self::page); send
/// what [`take`](Self::take) gives; once [`is_level`](Self::is_level), what is dispatched from then on may be sent.
#[derive(Debug, Default)]
pub struct Resume {
    /// Where the connection stands in each partition.
    marks: Vec<Mark>,
    epochs: Vec<Option<u64>>,
    topics: BTreeMap<Topic, Pull>,
}

#[derive(Debug)]
struct Pull {
    partition: usize,
    from: Mark,
    /// It was sent up to there on this connection.
    goes_on: bool,
    /// Everything up to here was read.
    read_to: u64,
    /// What was read and not yet sent.
    waiting: VecDeque<Delivery>,
    gap: Option<Hole>,
    /// It was read at least once since it was added.
    proven: bool,
    /// It was read to its end.
    ended: bool,
    /// It is not read at all.
    passed_over: bool,
    asked: bool,
}

/// What may be missing, and is not told yet.
#[derive(Debug, Clone, Copy)]
struct Hole {
    reason: GapReason,
    /// Where the connection stands before it.
    before: Mark,
}

/// What to send next.
#[derive(Debug, PartialEq)]
pub enum Replay {
    /// Something may be missing in the topic.
    Gap(Topic, GapReason),
    /// A message that was missed, and the cursor that goes with it.
    Deliver(Delivery, Box<[Mark]>),
}

/// The store lost what it kept while it was being read. The connection has to begin anew from its last cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store changed during a replay")]
pub struct EpochChanged;

impl Resume {
    /// A connection that stands at these marks, one per partition.
    pub fn new(marks: impl Into<Vec<Mark>>) -> Self {
        let marks = marks.into();
        Self { epochs: vec![None; marks.len()], marks, topics: BTreeMap::new() }
    }

    /// Has a topic replayed after a mark that the client brought.
    pub fn add(&mut self, topic: Topic, partition: u16, from: Mark) {
        self.put(topic, partition, from, false);
    }

    /// Has a topic replayed after a mark that the connection itself has got to. When the store is of another epoch, it
    /// cannot be known what of it was sent already.
    pub fn go_on(&mut self, topic: Topic, partition: u16, from: Mark) {
        self.put(topic, partition, from, true);
    }

    /// Something before the mark that a topic begins at may be missing, for a reason that no page shows.
    pub fn miss(&mut self, topic: &Topic, reason: GapReason) {
        if let Some(pull) = self.topics.get_mut(topic) {
            pull.gap = Some(Hole { reason, before: Mark::NOWHERE });
        }
    }

    fn put(&mut self, topic: Topic, partition: u16, from: Mark, goes_on: bool) {
        let partition = usize::from(partition);
        // Within a replay the epoch is known; the clock of another one says nothing in it.
        let is_old = self.epochs[partition].is_some_and(|epoch| !from.is_of(epoch));
        let pull = Pull {
            partition,
            from,
            goes_on,
            read_to: if is_old { 0 } else { from.clock },
            waiting: VecDeque::new(),
            gap: None,
            proven: false,
            ended: false,
            passed_over: false,
            asked: false,
        };
        self.topics.insert(topic, pull);
    }

    /// The connection is in a topic that cannot be read now. When it missed what came after a mark, that is a gap.
    pub fn pass_over(&mut self, topic: &Topic, partition: u16, from: Option<Mark>) {
        self.put(topic.clone(), partition, from.unwrap_or(Mark::NOWHERE), false);
        if let Some(pull) = self.topics.get_mut(topic) {
            let hole = |before| Hole { reason: GapReason::Outage, before };
            pull.gap = from.map(hole);
            pull.passed_over = true;
            pull.proven = true;
            pull.ended = true;
        }
    }

    /// Whether all topics of the connection are read. What else comes of the others must not be dropped.
    pub fn reads_all(&self) -> bool {
        !self.topics.values().any(|pull| pull.passed_over)
    }

    /// Whether a topic is among those that are replayed.
    pub fn has(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// The connection has left a topic.
    pub fn remove(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }

    /// Which topics to read now, each after a clock. Each is asked once until its page is here or [`failed`](Self::failed).
    pub fn wants(&mut self) -> Vec<(Topic, u64)> {
        let mut wants = Vec::new();
        for (topic, pull) in &mut self.topics {
            if pull.waiting.is_empty() && !pull.ended && !pull.asked {
                pull.asked = true;
                wants.push((topic.clone(), pull.read_to));
            }
        }
        wants
    }

    /// The page of a topic after the clock that was asked.
    ///
    /// # Errors
    /// [`EpochChanged`]: nothing more may be sent.
    pub fn page(&mut self, topic: &Topic, page: HistoryPage) -> Result<(), EpochChanged> {
        let Some(pull) = self.topics.get_mut(topic) else { return Ok(()) };
        pull.asked = false;
        let is_foreign =
            !pull.proven && (!pull.from.is_of(page.epoch) || page.clock < pull.from.clock);
        let known = &mut self.epochs[pull.partition];
        if known.is_some_and(|epoch| epoch != page.epoch) || is_foreign && pull.goes_on {
            return Err(EpochChanged);
        }
        *known = Some(page.epoch);
        pull.proven = true;
        if is_foreign {
            // What the cursor tells of is gone; what is kept is read from its beginning.
            pull.gap = Some(Hole { reason: GapReason::Epoch, before: Mark::NOWHERE });
            pull.from = Mark::new(page.epoch, 0);
            pull.read_to = 0;
            return Ok(());
        }
        let after = pull.read_to;
        if !page.whole && pull.gap.is_none() {
            let before = Mark::new(page.epoch, after);
            pull.gap = Some(Hole { reason: GapReason::Trimmed, before });
        }
        let clock = |delivery: &Delivery| delivery.position.map_or(0, |position| position.clock);
        let last = page.deliveries.last().filter(|_| page.more).map(clock);
        pull.waiting.extend(page.deliveries.into_iter().filter(|d| clock(d) > after));
        pull.read_to = last.unwrap_or(page.clock).max(after);
        pull.ended = last.is_none();
        Ok(())
    }

    /// A topic could not be read; it is wanted again.
    pub fn failed(&mut self, topic: &Topic) {
        if let Some(pull) = self.topics.get_mut(topic) {
            pull.asked = false;
        }
    }

    /// Forgets what was asked and not answered; it is wanted again.
    pub fn unask(&mut self) {
        self.topics.values_mut().for_each(|pull| pull.asked = false);
    }

    /// Whether every topic has been read at least once, so that it can be said what is recovered.
    pub fn is_proven(&self) -> bool {
        self.topics.values().all(|pull| pull.proven && (pull.ended || !pull.waiting.is_empty()))
    }

    /// Whether nothing is known to be missing in a topic, or in any: its first page was whole, so that all that followed
    /// was kept then. To be asked before [`take`](Self::take) told the gaps.
    pub fn is_recovered(&self, topic: Option<&Topic>) -> bool {
        match topic {
            Some(topic) => self.topics.get(topic).is_some_and(|pull| pull.gap.is_none()),
            None => self.topics.values().all(|pull| pull.gap.is_none()),
        }
    }

    /// The cursor: everything up to here has been sent, and what may be missing before it was told.
    pub fn marks(&self) -> Box<[Mark]> {
        let mut marks = self.marks.clone();
        for (number, mark) in marks.iter_mut().enumerate() {
            let topics = self.topics.values().filter(|pull| pull.partition == number);
            let lowest = match self.epochs[number] {
                // A place in another epoch is before all of this one.
                Some(epoch) => {
                    topics.map(|pull| pull.stands(epoch)).min_by_key(|m| (m.is_of(epoch), m.clock))
                }
                None => topics.filter_map(|pull| pull.gap).map(|hole| hole.before).next(),
            };
            *mark = lowest.unwrap_or(*mark);
        }
        marks.into()
    }

    /// What is to be sent next; `None` when it must first be read, or nothing is left. One gap stands for all that is
    /// not a room, since the client cannot tell these apart.
    pub fn take(&mut self) -> Option<Replay> {
        if let Some((topic, pull)) = self.topics.iter_mut().find(|(_, pull)| pull.gap.is_some()) {
            let (topic, reason) = (topic.clone(), pull.gap.take()?.reason);
            if topic.as_room().is_none() {
                self.told_of_own();
            }
            return Some(Replay::Gap(topic, reason));
        }
        // The oldest first, so that the cursor rises; partitions have clocks of their own and take turns.
        let fronts = self.topics.iter().filter_map(|(topic, pull)| Some((pull.front()?, topic)));
        let topic = fronts.min()?.1.clone();
        let delivery = self.topics.get_mut(&topic)?.waiting.pop_front()?;
        Some(Replay::Deliver(delivery, self.marks()))
    }

    /// The client was told of what may be missing in the topics that are no rooms.
    pub fn told_of_own(&mut self) {
        let own = self.topics.iter_mut().filter(|(topic, _)| topic.as_room().is_none());
        own.for_each(|(_, pull)| pull.gap = None);
    }

    /// Whether all was read to its end and sent.
    pub fn is_level(&self) -> bool {
        self.topics.values().all(|p| p.proven && p.ended && p.waiting.is_empty() && p.gap.is_none())
    }

    /// Has all topics read once more.
    pub fn again(&mut self) {
        for pull in self.topics.values_mut() {
            pull.ended = false;
        }
    }

    /// What of each topic has been sent: the mark up to which it was read.
    pub fn floors(&self) -> Floors {
        let floors = self.topics.iter().filter_map(|(topic, pull)| {
            Some((topic.clone(), Mark::new(self.epochs[pull.partition]?, pull.read_to)))
        });
        floors.collect()
    }
}

impl Pull {
    fn front(&self) -> Option<u64> {
        self.waiting.front().and_then(|d| d.position).map(|position| position.clock)
    }

    /// Up to where everything of the topic has been sent, in the epoch of its partition.
    fn stands(&self, epoch: u64) -> Mark {
        match self.gap {
            Some(hole) => hole.before,
            None if !self.proven && !self.from.is_of(epoch) => self.from,
            None => {
                let clock = self.front().map_or(self.read_to, |clock| clock.saturating_sub(1));
                Mark::new(epoch, clock)
            }
        }
    }
}
