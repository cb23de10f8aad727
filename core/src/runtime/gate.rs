//! How many new connections a node takes, and when those come back that it does not take.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::PoisonError;
use std::time::Duration;

use super::clock;
use super::hub::Hub;
use super::observer::Event;
use super::spawn::jitter;
use super::types::AttachError;
use crate::bucket::Bucket;
use crate::{CloseReason, Limits};

/// The accept-rate gate. Pure; time is an argument.
///
/// A request takes a place. One that becomes a connection keeps it and costs its peer nothing; any other gives it back
/// and costs its peer a token instead. So what comes to nothing never shuts the gate to others.
///
/// The refused come back at `accept_rate`, as a queue would. Peers take turns in it: one that is refused without end
/// moves the others by one place each.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Bucket,
    rate: f64,
    refused: Waiting,
    /// Peers with someone among the refused.
    peers: Waiting,
    /// Each peer has two, by its hash, and shares each with others. So memory is bounded, and two peers that share both
    /// are rare; where they differ, what is better for the peer holds.
    slots: Box<[Slot]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot {
    tokens: Bucket,
    refused: Waiting,
}

/// How many were sent away and are not yet due to come back.
#[derive(Debug, Default)]
struct Waiting {
    count: f64,
    at: Duration,
}

impl Waiting {
    fn count(&mut self, now: Duration, rate: f64) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.count = (self.count - passed * rate).max(0.0);
        self.count
    }
}

impl Gate {
    pub(crate) fn new(now: Duration, limits: &Limits) -> Self {
        let slot = |_| Slot {
            tokens: Bucket::new(now, limits.peer_rate, limits.peer_burst),
            refused: Waiting::default(),
        };
        Self {
            places: Bucket::new(now, limits.accept_rate, limits.accept_burst),
            rate: f64::from(limits.accept_rate),
            refused: Waiting::default(),
            peers: Waiting::default(),
            slots: (0..SLOTS).map(slot).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Gives a request a place, or says when its client is to come back.
    pub(crate) fn admit(&mut self, now: Duration, peer: Option<IpAddr>) -> Result<(), Duration> {
        let slots = peer.map(|peer| self.slots_of(peer));
        let delay = |wait| (SHORTEST_DELAY + wait).min(LONGEST_DELAY);
        if let Some(slots) = slots {
            let wait = slots.map(|slot| self.slots[slot].tokens.wait(now));
            let wait = wait[0].min(wait[1]);
            if wait > Duration::ZERO {
                return Err(delay(wait));
            }
        }
        if self.places.take(now) {
            return Ok(());
        }
        Err(delay(Duration::from_secs_f64(self.turn(now, slots) / self.rate)))
    }

    /// Returns the place in the queue of one that is refused.
    fn turn(&mut self, now: Duration, slots: Option<[usize; 2]>) -> f64 {
        let rate = self.rate;
        let last = self.refused.count(now, rate) + 1.0;
        self.refused.count = last;
        let Some(slots) = slots else { return last };
        let of_peer = slots.map(|slot| self.slots[slot].refused.count(now, rate));
        let of_peer = of_peer[0].min(of_peer[1]);
        let peers = self.peers.count(now, rate);
        self.peers.count = if of_peer == 0.0 { peers + 1.0 } else { peers.max(1.0) };
        for slot in slots {
            self.slots[slot].refused.count += 1.0;
        }
        // Before its next turn each peer has as many as it has had itself.
        last.min((of_peer + 1.0) * self.peers.count)
    }

    /// Takes back the place of a request that became no connection: its peer pays.
    pub(crate) fn failed(&mut self, peer: Option<IpAddr>) {
        self.places.give_back();
        for slot in peer.map(|peer| self.slots_of(peer)).into_iter().flatten() {
            self.slots[slot].tokens.spend();
        }
    }

    fn slots_of(&self, peer: IpAddr) -> [usize; 2] {
        let network = match peer.to_canonical() {
            // Who has an address of IPv6 has all of its /64.
            IpAddr::V6(peer) => Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64).into(),
            peer @ IpAddr::V4(_) => peer,
        };
        let hash = self.hasher.hash_one(network);
        [hash as usize % SLOTS, (hash >> 32) as usize % SLOTS]
    }
}

/// The place that [`Hub::admit`] gave to a request. Dropped, it is given back, and the request counts among those of its
/// peer that came to nothing.
#[must_use = "dropped, it is given back"]
pub struct Admission {
    hub: Hub,
    peer: Option<IpAddr>,
    kept: bool,
}

impl Admission {
    /// Keeps the place: the request has become a connection.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.kept {
            self.hub.0.gate.lock().unwrap_or_else(PoisonError::into_inner).failed(self.peer);
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Hub {
    /// Asks whether a request may become a connection, before anything else of it is looked at. `peer` is the address it
    /// comes from, that of the client and not of a proxy; without it `peer_rate` does not hold.
    ///
    /// # Errors
    /// Why not now (1012 while draining, 1013 beyond `accept_rate` or `peer_rate`), with the time to come back.
    pub fn admit(&self, peer: Option<IpAddr>) -> Result<Admission, CloseReason> {
        let (error, delay) = if self.is_draining() {
            (AttachError::Draining, jitter(DRAINING_DELAY))
        } else {
            let mut gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
            match gate.admit(clock::monotonic(), peer) {
                Ok(()) => return Ok(Admission { hub: self.clone(), peer, kept: false }),
                Err(delay) => (AttachError::Full, delay),
            }
        };
        self.0.observer.on(Event::Refused { error });
        Err(error.close_reason().with_reconnect_after(delay))
    }
}

/// A node that is full is still full when one comes back at once.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);
/// Nobody is sent away for longer, however many there are; they are sent away again.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Who came to a node that drains finds another within a few tries.
const DRAINING_DELAY: Duration = Duration::from_secs(1);
/// How many slots the peers share; 256 KiB.
const SLOTS: usize = 4096;

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    fn gate(rate: u32, burst: u32) -> Gate {
        let limits = Limits { accept_rate: rate, accept_burst: burst, ..Limits::default() };
        Gate::new(Duration::ZERO, &limits)
    }

    fn peer(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn the_limit_holds_from_both_sides() {
        let mut gate = gate(10, 5);
        for _ in 0..5 {
            assert_eq!(gate.admit(Duration::ZERO, None), Ok(()));
        }
        assert!(gate.admit(Duration::ZERO, None).is_err());
        assert!(gate.admit(Duration::from_millis(99), None).is_err());
        assert_eq!(gate.admit(Duration::from_millis(101), None), Ok(()));
        assert!(gate.admit(Duration::from_millis(102), None).is_err());
    }

    #[test]
    fn without_a_rate_everybody_comes_in() {
        let mut gate = gate(0, 1);
        assert!((0..1000).all(|_| gate.admit(Duration::ZERO, peer(1)).is_ok()));
    }

    #[test]
    fn what_comes_to_nothing_costs_its_peer_alone() {
        let limits = Limits {
            accept_rate: 1,
            accept_burst: 2,
            peer_rate: 10,
            peer_burst: 50,
            ..Limits::default()
        };
        let mut gate = Gate::new(Duration::ZERO, &limits);
        for _ in 0..50 {
            assert_eq!(gate.admit(Duration::ZERO, peer(1)), Ok(()));
            gate.failed(peer(1));
        }
        let refused = gate.admit(Duration::ZERO, peer(1)).expect_err("it has had its burst");
        assert_eq!(refused, SHORTEST_DELAY + Duration::from_millis(100));
        assert!(gate.admit(Duration::from_millis(99), peer(1)).is_err());
        assert_eq!(gate.admit(Duration::from_millis(101), peer(1)), Ok(()));
        gate.failed(peer(1));
        // The places are all there.
        assert_eq!(gate.admit(Duration::ZERO, peer(2)), Ok(()));
        assert_eq!(gate.admit(Duration::ZERO, None), Ok(()));
        assert!(gate.admit(Duration::ZERO, peer(2)).is_err());
    }

    #[test]
    fn a_connection_costs_its_peer_nothing() {
        let limits = Limits { peer_rate: 1, peer_burst: 1, ..Limits::default() };
        let mut gate = Gate::new(Duration::ZERO, &limits);
        assert!((0..1000).all(|_| gate.admit(Duration::ZERO, peer(1)).is_ok()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let gate = gate(1, 1);
        let slots = |address: &str| gate.slots_of(address.parse().expect("an address"));
        assert_eq!(slots("2001:db8::1"), slots("2001:db8::ffff:1"));
        assert_eq!(slots("::ffff:192.0.2.1"), slots("192.0.2.1"));
        assert_ne!(slots("2001:db8::1"), slots("2001:db8:0:1::1"));
    }

    #[test]
    fn a_peer_that_is_refused_without_end_moves_others_by_a_place() {
        let mut gate = gate(100, 1);
        assert_eq!(gate.admit(Duration::ZERO, peer(0)), Ok(()));
        let alone = gate.admit(Duration::ZERO, peer(1)).expect_err("it is shut");
        assert_eq!(alone, SHORTEST_DELAY + Duration::from_millis(10));
        for _ in 0..100_000 {
            assert!(gate.admit(Duration::ZERO, peer(2)).is_err());
        }
        assert_eq!(gate.admit(Duration::ZERO, peer(2)), Err(LONGEST_DELAY));
        let third = gate.admit(Duration::ZERO, peer(3)).expect_err("it is shut");
        assert_eq!(third, SHORTEST_DELAY + Duration::from_millis(30));
    }

    /// How often 2,000 come who are taken at 100 a second, and when the last of them is.
    fn herd(peer_of: impl Fn(u32) -> Option<IpAddr>) -> (u32, Duration) {
        let mut gate = gate(100, 100);
        let mut due: BinaryHeap<_> = (0..2000).map(|n| Reverse((Duration::ZERO, n))).collect();
        let mut tries = 0;
        let mut last = Duration::ZERO;
        while let Some(Reverse((now, n))) = due.pop() {
            tries += 1;
            last = now;
            if let Err(delay) = gate.admit(now, peer_of(n)) {
                due.push(Reverse((now + delay, n)));
            }
        }
        (tries, last)
    }

    #[test]
    fn a_herd_comes_back_as_a_queue_and_is_taken() {
        let of_nobody: fn(u32) -> Option<IpAddr> = |_| None;
        // Of peers that share both slots with others, some are told a time that is a little too early.
        for (peer_of, most) in [(of_nobody, 4000), (|_| peer(1), 4000), (peer, 4400)] {
            let (tries, last) = herd(peer_of);
            assert!((19..25).contains(&last.as_secs()), "2,000 at 100 a second took {last:?}");
            assert!(tries <= most, "each is sent away about once, not {tries} times in all");
        }
    }
}
