//! Who is where: what nodes claim, and until when.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidings_core::{Claim, LeaseId, Tally, Topic, UserId};

/// The claims of all nodes. A pure machine; time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    leases: HashMap<LeaseId, Lease>,
    topics: HashMap<Topic, BTreeMap<UserId, u64>>,
}

#[derive(Debug, Default)]
struct Lease {
    until: Duration,
    /// The connections of each user in each topic.
    held: HashMap<(Topic, UserId), u64>,
}

impl Claims {
    /// Begins a lease.
    pub(crate) fn begin(&mut self, until: Duration, lease: &LeaseId) {
        self.leases.entry(lease.clone()).or_default().until = until;
    }

    /// Prolongs a lease; returns whether it lives.
    pub(crate) fn renew(&mut self, now: Duration, lease: &LeaseId, until: Duration) -> bool {
        let lease = self.leases.get_mut(lease).filter(|lease| lease.until > now);
        lease.map(|lease| lease.until = until).is_some()
    }

    /// States claims under a lease, if it lives.
    pub(crate) fn claim(
        &mut self,
        now: Duration,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Option<Vec<Tally>> {
        let (name, mut lease) = self.leases.remove_entry(lease)?;
        let lives = lease.until > now;
        let tallies =
            lives.then(|| claims.iter().map(|claim| self.take(&mut lease, claim)).collect());
        self.leases.insert(name, lease);
        tallies
    }

    fn take(&mut self, lease: &mut Lease, claim: &Claim) -> Tally {
        let Claim { topic, user, connections } = claim.clone();
        let (place, connections) = ((topic, user), u64::from(connections));
        let had = match connections {
            0 => lease.held.remove(&place),
            _ => lease.held.insert(place.clone(), connections),
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

    /// Ends what was claimed under leases that have run out, and returns who is thereby gone.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(Topic, UserId)> {
        let ended = self.leases.extract_if(|_, lease| lease.until <= now);
        let ended: Vec<_> = ended.flat_map(|(_, lease)| lease.held).collect();
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
