//! Who is where: what nodes claim, and until when.

use std::collections::{BTreeMap, HashMap};
use std::mem::replace;
use std::time::Duration;

use tidings_core::{Claim, NodeId, Tally, Topic, UserId};

/// The claims of all nodes. A pure machine; time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    leases: HashMap<NodeId, Lease>,
    /// What was claimed under leases that ran out before their node came back: it counts until
    /// [`expire`](Self::expire), so that whoever the node claims again neither goes nor comes.
    lapsed: Held,
    topics: HashMap<Topic, BTreeMap<UserId, u64>>,
}

#[derive(Debug, Default)]
struct Lease {
    until: Duration,
    held: Held,
    /// It has been renewed since it began.
    is_known: bool,
}

/// The connections of each user in each topic.
type Held = HashMap<(Topic, UserId), u64>;

impl Claims {
    /// States claims under a lease. A node whose lease had run out begins anew.
    pub(crate) fn claim(
        &mut self,
        now: Duration,
        node: &NodeId,
        lease: Duration,
        claims: &[Claim],
    ) -> Vec<Tally> {
        let mut holder = self.take_lease(now, node, lease);
        let tallies = claims.iter().map(|claim| self.take(&mut holder, claim)).collect();
        self.leases.insert(node.clone(), holder);
        tallies
    }

    /// The node's lease, prolonged or begun.
    fn take_lease(&mut self, now: Duration, node: &NodeId, lease: Duration) -> Lease {
        let mut holder = self.leases.remove(node).unwrap_or_default();
        if holder.until <= now {
            holder.is_known = false;
            for (place, connections) in holder.held.drain() {
                *self.lapsed.entry(place).or_default() += connections;
            }
        }
        holder.until = now.saturating_add(lease);
        holder
    }

    fn take(&mut self, holder: &mut Lease, claim: &Claim) -> Tally {
        let Claim { topic, user, connections } = claim.clone();
        let (place, connections) = ((topic, user), u64::from(connections));
        let had = match connections {
            0 => holder.held.remove(&place),
            _ => holder.held.insert(place.clone(), connections),
        };
        self.change(&place, had.unwrap_or(0), connections)
    }

    /// Replaces a part of a user's connections.
    fn change(&mut self, (topic, user): &(Topic, UserId), old: u64, new: u64) -> Tally {
        let users = self.topics.get(topic);
        let before = users.and_then(|users| users.get(user)).copied().unwrap_or(0);
        let after = before - old + new;
        if after > 0 {
            self.topics.entry(topic.clone()).or_default().insert(user.clone(), after);
        } else if let Some(users) = self.topics.get_mut(topic) {
            users.remove(user);
            if users.is_empty() {
                self.topics.remove(topic);
            }
        }
        Tally { before, after }
    }

    /// Prolongs a lease; answers whether it is the one that was renewed before.
    pub(crate) fn renew(&mut self, now: Duration, node: &NodeId, lease: Duration) -> bool {
        let mut holder = self.take_lease(now, node, lease);
        let was_known = replace(&mut holder.is_known, true);
        self.leases.insert(node.clone(), holder);
        was_known
    }

    /// Ends what was claimed under leases that have run out, and answers who is thereby gone.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(Topic, UserId)> {
        let ended = self.leases.extract_if(|_, lease| lease.until <= now);
        let ended = ended.flat_map(|(_, lease)| lease.held).chain(self.lapsed.drain());
        let ended: Vec<_> = ended.collect();
        let mut gone = Vec::new();
        for (place, connections) in ended {
            if self.change(&place, connections, 0).after == 0 {
                gone.push(place);
            }
        }
        gone
    }

    /// The users in a topic, sorted.
    pub(crate) fn members(&self, topic: &Topic) -> Vec<UserId> {
        self.topics.get(topic).map_or_else(Vec::new, |users| users.keys().cloned().collect())
    }

    /// How many users are in a topic.
    pub(crate) fn count(&self, topic: &Topic) -> u64 {
        self.topics.get(topic).map_or(0, |users| users.len() as u64)
    }
}
