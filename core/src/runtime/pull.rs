//! How far a shard has got, and from where its connections read.

use std::collections::HashMap;
use std::sync::Arc;

use super::routed::Routed;
use super::shard::Members;
use super::slot::Overflown;
use crate::machines::{Change, ConnectionKey, Floors, Starts};
use crate::{Mark, Topic};

impl Members {
    /// Holds back from a connection what is dispatched from now on. Answers from where it has to read its topics.
    pub(crate) fn pull(&mut self, key: ConnectionKey) -> Starts {
        let skipped = self.router.get_mut(key).and_then(|slot| slot.flow.pull());
        let Some(slot) = self.router.get(key) else { return Starts::default() };
        if skipped.is_some() {
            slot.outbox.take_refill();
        }
        let Starts { marks, topics } = skipped.unwrap_or_else(|| Starts {
            marks: self.standing.point().into(),
            topics: HashMap::new(),
        });
        let start = |topic: &Topic| {
            let here =
                || self.standing.start(topic, (self.partition)(topic), [], slot.flow.floor(topic));
            topics.get(topic).copied().or_else(here)
        };
        let of = self.router.topics_of(key);
        let topics = of.filter_map(|topic| Some((topic.clone(), start(topic)?))).collect();
        Starts { marks, topics }
    }

    pub(crate) fn is_held(&self, key: ConnectionKey) -> bool {
        self.router.get(key).is_some_and(|slot| slot.flow.is_held())
    }

    /// A held connection has read its topics up to these clocks.
    ///
    /// # Errors
    /// [`Overflown`]: it has to read once more.
    pub(crate) fn go_live(&mut self, key: ConnectionKey, floors: Floors) -> Result<(), Overflown> {
        let point = self.standing.point();
        self.router.get_mut(key).map_or(Ok(()), |slot| slot.go_live(floors, point))
    }

    /// A connection has left a topic.
    pub(super) fn left(&mut self, topic: &Topic, change: Change) {
        if change == Change::Closed {
            self.standing.forget(topic);
        }
    }

    /// The node's cursor is now this.
    pub(super) fn moves(&mut self, point: &[Mark]) {
        let (router, partition) = (&self.router, &self.partition);
        self.standing.moves(point, || {
            router.topics().map(|topic| (topic.clone(), partition(topic))).collect()
        });
    }

    /// These have been handed to their receivers.
    pub(super) fn passed(&mut self, deliveries: &[Arc<Routed>]) {
        if let Some(marks) = marks_after(deliveries) {
            self.moves(marks);
        }
        for routed in deliveries {
            if let Some(place) = &routed.place {
                let has_members = || self.router.members(&routed.topic).len() > 0;
                self.standing.passed(&routed.topic, place.position, has_members);
            }
        }
    }

    /// A connection skips what did not fit. It was given what is for it of the deliveries `before`, and nothing of the
    /// `rest`.
    pub(super) fn skip(&mut self, slot: u32, before: &[Arc<Routed>], rest: &[Arc<Routed>]) {
        let Some(member) = self.router.at(slot) else { return };
        let marks = marks_after(before).unwrap_or(self.standing.point()).into();
        let mark = |clock: u64, routed: &Routed| {
            routed
                .place
                .as_ref()
                .map(|p| Mark::new(p.position.epoch, p.position.clock.saturating_sub(clock)))
        };
        let start = |topic: &Topic| {
            let of = |routed: &&Arc<Routed>| routed.topic == *topic;
            let given = before.iter().filter(of).filter_map(|routed| mark(0, routed));
            // What came before the first that is left was given, or had been read.
            let first = rest.iter().find(of).and_then(|routed| mark(1, routed));
            let partition = (self.partition)(topic);
            self.standing.start(topic, partition, given.chain(first), member.flow.floor(topic))
        };
        let topics = self.router.topics_at(slot);
        let topics = topics.filter_map(|topic| Some((topic.clone(), start(topic)?))).collect();
        if let Some(member) = self.router.at_mut(slot) {
            member.skip(Starts { marks, topics });
        }
    }
}

/// The cursor of who has got these deliveries.
fn marks_after(deliveries: &[Arc<Routed>]) -> Option<&[Mark]> {
    deliveries.iter().rev().find_map(|routed| routed.place.as_ref()).map(|place| &*place.marks)
}
