//! How many new connections a node takes, and when those come back that it does not take.

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
/// Whoever is refused is told a time of its own: the refused come back at `accept_rate`, as a queue would.
#[derive(Debug)]
pub(crate) struct Gate {
    bucket: Bucket,
    rate: f64,
    /// Refused and not yet due to come back.
    away: f64,
    at: Duration,
}

impl Gate {
    pub(crate) fn new(now: Duration, limits: &Limits) -> Self {
        let bucket = Bucket::new(now, limits.accept_rate, limits.accept_burst);
        Self { bucket, rate: f64::from(limits.accept_rate), away: 0.0, at: now }
    }

    /// Takes a new connection, or says when it is to come back.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        if self.bucket.take(now) {
            return Ok(());
        }
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.away = (self.away - passed * self.rate).max(0.0) + 1.0;
        let delay = SHORTEST_DELAY + Duration::from_secs_f64(self.away / self.rate);
        Err(delay.min(LONGEST_DELAY))
    }
}

impl Hub {
    /// Asks whether a new connection may come, before anything else of it is looked at.
    ///
    /// # Errors
    /// Why not now (1012 while draining, 1013 beyond `accept_rate`), with the time to come back.
    pub fn admit(&self) -> Result<(), CloseReason> {
        let (error, delay) = if self.is_draining() {
            (AttachError::Draining, jitter(DRAINING_DELAY))
        } else {
            let mut gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
            match gate.admit(clock::monotonic()) {
                Ok(()) => return Ok(()),
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

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    fn gate(rate: u32, burst: u32) -> Gate {
        let limits = Limits { accept_rate: rate, accept_burst: burst, ..Limits::default() };
        Gate::new(Duration::ZERO, &limits)
    }

    #[test]
    fn the_limit_holds_from_both_sides() {
        let mut gate = gate(10, 5);
        for _ in 0..5 {
            assert_eq!(gate.admit(Duration::ZERO), Ok(()));
        }
        assert!(gate.admit(Duration::ZERO).is_err());
        assert!(gate.admit(Duration::from_millis(99)).is_err());
        assert_eq!(gate.admit(Duration::from_millis(101)), Ok(()));
        assert!(gate.admit(Duration::from_millis(102)).is_err());
    }

    #[test]
    fn without_a_rate_everybody_comes_in() {
        let mut gate = gate(0, 1);
        assert!((0..1000).all(|_| gate.admit(Duration::ZERO).is_ok()));
    }

    #[test]
    fn a_herd_comes_back_as_a_queue_and_is_taken() {
        let mut gate = gate(100, 100);
        let mut due: BinaryHeap<_> = (0..2000).map(|_| Reverse(Duration::ZERO)).collect();
        let (mut tries, mut last) = (0, Duration::ZERO);
        while let Some(Reverse(now)) = due.pop() {
            (tries, last) = (tries + 1, now);
            if let Err(delay) = gate.admit(now) {
                due.push(Reverse(now + delay));
            }
        }
        assert!((19..25).contains(&last.as_secs()), "2,000 at 100 a second took {last:?}");
        assert!(tries <= 2 * 2000, "each is sent away about once, not {tries} times in all");
    }
}
