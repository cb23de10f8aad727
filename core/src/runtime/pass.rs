//! A pass: what a shard hands to its connections in one go.

use std::sync::Arc;

use super::inbox::Inbox;
use super::observer::Event;
use super::routed::Routed;
use super::shard::Members;
use crate::{GapReason, Mark, Topic};

impl Members {
    /// Hands the deliveries to their receivers, one push per connection.
    pub(super) async fn pass(&mut self, deliveries: &[Arc<Routed>], inbox: &Inbox) {
        let before = self.router.looked_at();
        let receivers = match deliveries {
            [one] => self.pass_one(one, inbox).await,
            many => self.pass_many(many, inbox).await,
        };
        let looked_at = self.router.looked_at().wrapping_sub(before);
        self.observer.on(Event::Delivered { messages: deliveries.len(), receivers, looked_at });
    }

    /// Tells the members of a topic that something may be missing.
    pub(super) async fn gap(
        &mut self,
        topic: &Topic,
        reason: GapReason,
        mark: Option<Mark>,
        inbox: &Inbox,
    ) {
        let slots: Vec<_> = self.router.members(topic).collect();
        if let Some(mark) = mark.filter(|_| !slots.is_empty()) {
            self.standing.gap(topic, mark);
        }
        for &number in &slots {
            if let Some(slot) = self.router.at_mut(number) {
                slot.gap(topic, reason, mark);
            }
            self.pause(inbox).await;
        }
        self.observer.on(Event::Gap { reason, connections: slots.len() });
    }

    /// To be called for each connection and each entry that is done: after every [`CHUNK`] of them questions are
    /// answered and other tasks go first.
    pub(super) async fn pause(&mut self, inbox: &Inbox) {
        self.done += 1;
        if self.done == CHUNK {
            self.done = 0;
            inbox.answer_looks(self);
            tokio::task::yield_now().await;
        }
    }

    /// One delivery needs no list of what is for whom. Answers how many receivers it had.
    async fn pass_one(&mut self, routed: &Arc<Routed>, inbox: &Inbox) -> usize {
        let slots: Vec<_> = self.router.members(&routed.topic).collect();
        let mut handed = 0;
        for number in slots {
            let Some(slot) = self.router.at_mut(number) else { continue };
            if slot.admits(routed) {
                slot.give(routed);
                handed += 1;
            }
            self.pause(inbox).await;
        }
        handed
    }

    /// Answers how many receivers the deliveries had, added up.
    async fn pass_many(&mut self, deliveries: &[Arc<Routed>], inbox: &Inbox) -> usize {
        let (mut next, mut handed) = (0, 0);
        while next < deliveries.len() {
            let (receivers, end) = self.group(deliveries, next, inbox).await;
            let droppable = deliveries[next..end].iter().any(|routed| routed.droppable.is_some());
            handed += self.hand_out(&receivers, deliveries, droppable, inbox).await;
            next = end;
        }
        handed
    }

    /// Notes with each receiver which deliveries are for it, beginning with the `first`. Answers the receivers, and the
    /// delivery that is next: not all are taken when there are very many, so that the notes have a bound.
    async fn group(
        &mut self,
        deliveries: &[Arc<Routed>],
        first: usize,
        inbox: &Inbox,
    ) -> (Vec<u32>, usize) {
        let (mut receivers, mut noted, mut pause) = (Vec::new(), 0, GROUPED);
        let most = deliveries.len().min(first + MOST_DELIVERIES);
        for (number, routed) in deliveries.iter().enumerate().take(most).skip(first) {
            if noted >= MOST_NOTES {
                return (receivers, number);
            }
            let slots: Vec<u32> = self.router.members(&routed.topic).collect();
            for slots in slots.chunks(GROUPED) {
                for &slot in slots {
                    let Some(member) = self.router.at_mut(slot) else { continue };
                    let is_live = member.flow.is_live();
                    if member.admits(routed) {
                        if member.pending.is_empty() {
                            receivers.push(slot);
                        }
                        member.pending.push(number as u32);
                    }
                    // What waited for one who is not live may have been given to it.
                    if !is_live {
                        self.pause(inbox).await;
                    }
                }
                noted += slots.len();
                if noted >= pause {
                    pause = noted + GROUPED;
                    inbox.answer_looks(self);
                    tokio::task::yield_now().await;
                }
            }
        }
        (receivers, most)
    }

    /// Hands the receivers what was noted with them. Answers how many deliveries these were, added up.
    async fn hand_out(
        &mut self,
        receivers: &[u32],
        deliveries: &[Arc<Routed>],
        droppable: bool,
        inbox: &Inbox,
    ) -> usize {
        let mut handed = 0;
        for &slot in receivers {
            let Some(member) = self.router.at_mut(slot) else { continue };
            handed += member.pending.len();
            let pending = member.pending.iter().map(|&n| &deliveries[n as usize]);
            if droppable {
                pending.for_each(|routed| member.give(routed));
            } else {
                member.push(pending);
            }
            if member.pending.capacity() > KEPT_NOTES {
                member.pending = Vec::new()
            } else {
                member.pending.clear()
            }
            self.pause(inbox).await;
        }
        handed
    }
}

/// Connections and entries between two yields: an inline fan-out to 10,000 stalls other tasks for 112 ms, 64 for 3.
pub(super) const CHUNK: usize = 64;
/// Notes for which a connection keeps the room.
const KEPT_NOTES: usize = 64;
/// Receivers that are noted between two yields: about 100 µs.
const GROUPED: usize = 4096;
/// Deliveries that a connection is handed in one go, at most, and notes of who gets what, of four bytes each.
const MOST_DELIVERIES: usize = 512;
const MOST_NOTES: usize = 1 << 20;
