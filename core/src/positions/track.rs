//! What [`Positions`](super::Positions) keeps of a partition and of a topic.

use std::collections::{BTreeSet, VecDeque};

use crate::{Delivery, GapReason, Mark, Top, Topic};

#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) epoch: u64,
    /// Epochs that have ended: what still comes of them is covered by a gap.
    pub(super) past: VecDeque<u64>,
    /// The cursor when the epoch changed: it stays until all topics were told of the gap.
    pub(super) before: Option<Mark>,
    pub(super) untold: BTreeSet<Topic>,
    /// Rises with each epoch, so that a late answer is known.
    pub(super) era: u64,
    /// Rises with each link.
    pub(super) link: u64,
    /// The clock of the link's last delivery.
    pub(super) delivered: u64,
    /// From this clock on the link brought every message of the partition.
    pub(super) run: u64,
    /// By readings, every following topic is whole up to here.
    pub(super) checked: u64,
    /// How many topics follow: subscribed, and known to be whole since.
    pub(super) following: usize,
    /// The others, each with the clock up to which it is whole.
    pub(super) behind: BTreeSet<(u64, Topic)>,
    /// Topics whose top is to be looked at.
    pub(super) to_look: VecDeque<Topic>,
    pub(super) looking: bool,
    /// All topics are being looked at: when that is done, `checked` may rise.
    pub(super) round: bool,
}

#[derive(Debug)]
pub(super) struct Track {
    pub(super) serial: u64,
    pub(super) partition: u16,
    /// The last message dispatched; `None` until the first look.
    pub(super) last: Option<Top>,
    pub(super) subscribed: bool,
    pub(super) following: bool,
    /// Whole up to this clock; more when it follows.
    pub(super) known: u64,
    /// A reading has shown it to be whole up to this clock. What the link brought since only says so by its contract.
    pub(super) proven: u64,
    /// Something up to this offset is missing and being read.
    pub(super) missing: Option<u64>,
    /// What came meanwhile, in order.
    pub(super) held: VecDeque<Delivery>,
    pub(super) to_look: bool,
    pub(super) to_read: bool,
    /// What came before the first look: the first, and the offset of the last.
    pub(super) early: Option<(Top, u64)>,
    pub(super) gap: Option<GapReason>,
}

impl Track {
    /// Drops what is held. Answers how many bytes that was.
    pub(super) fn let_go(&mut self) -> usize {
        self.held.drain(..).map(|delivery| delivery.message.len()).sum()
    }
}

impl Partition {
    /// The cursor. Whoever comes back with a mark of the present epoch has been told what ended with the last one.
    pub(super) fn mark(&self) -> Mark {
        let before = self.before.filter(|_| !self.untold.is_empty());
        before.unwrap_or_else(|| Mark::new(self.epoch, self.entry()))
    }

    /// The link has brought a message.
    pub(super) fn brought(&mut self, clock: u64) {
        if self.delivered == 0 || clock > self.delivered + 1 {
            self.run = clock;
        }
        self.delivered = self.delivered.max(clock);
    }

    /// A topic has been told of its gap, or has no member left who could be.
    pub(super) fn told(&mut self, topic: &Topic) {
        self.untold.remove(topic);
    }

    /// The clock up to which every topic of interest has been dispatched.
    pub(super) fn entry(&self) -> u64 {
        let following = self.delivered.max(self.checked);
        match self.behind.first() {
            Some(&(known, _)) if self.following == 0 => known,
            Some(&(known, _)) => known.min(following),
            None => following,
        }
    }
}

pub(super) fn look(track: &mut Track, topic: &Topic, partitions: &mut [Partition]) {
    if track.subscribed && !track.to_look && track.missing.is_none() {
        track.to_look = true;
        partitions[usize::from(track.partition)].to_look.push_back(topic.clone());
    }
}

pub(super) fn read(track: &mut Track, topic: &Topic, to_read: &mut VecDeque<Topic>) {
    if !track.to_read {
        track.to_read = true;
        to_read.push_back(topic.clone());
    }
}

/// The topic is whole up to `known` only.
pub(super) fn fall_behind(
    track: &mut Track,
    topic: &Topic,
    known: u64,
    partitions: &mut [Partition],
) {
    let partition = &mut partitions[usize::from(track.partition)];
    if track.following {
        (partition.following, track.following) = (partition.following - 1, false);
    } else {
        partition.behind.remove(&(track.known, topic.clone()));
    }
    partition.behind.insert((known, topic.clone()));
    track.known = known;
}
