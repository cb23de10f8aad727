//! How far a shard has got, and from where its connections read.

use std::sync::Arc;

use super::routed::Routed;
use super::shard::Members;
use super::slot::Overflown;
use crate::machines::{Change, ConnectionKey, Floors, Starts};
use crate::{Mark, Topic};

impl Members {
    /// Holds back from a connection what is dispatched from now on. Answers from where it has to read its topics.
    pub(crate) fn pull(&mut self, key: ConnectionKey) -> Starts {
        self.router.get_mut(key).into_iter().for_each(|slot| slot.flow.pull());
        let Some(slot) = self.router.get(key) else { return Starts::default() };
        let start = |topic: &Topic| {
            self.standing.start(topic, (self.partition)(topic), slot.flow.floor(topic))
        };
        let of = self.router.topics_of(key);
        let topics = of.filter_map(|topic| Some((topic.clone(), start(topic)?))).collect();
        Starts { marks: self.standing.point().into(), topics }
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
        let last = deliveries.iter().rev().find_map(|routed| routed.place.as_ref());
        if let Some(place) = last {
            self.moves(&place.marks);
        }
        for routed in deliveries {
            if let Some(place) = &routed.place {
                let has_members = || self.router.members(&routed.topic).len() > 0;
                self.standing.passed(&routed.topic, place.position, has_members);
            }
        }
    }
}
