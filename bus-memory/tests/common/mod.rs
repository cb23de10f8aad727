//! Time that a test moves by hand, and short spellings.

#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidings_core::{Message, Publication, RoomId, TenantId, Topic};

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }

    pub(crate) fn reader(&self) -> Arc<dyn Fn() -> Duration + Send + Sync> {
        let nanos = Arc::clone(&self.0);
        Arc::new(move || Duration::from_nanos(nanos.load(Ordering::SeqCst)))
    }
}

/// Nothing of this bus waits, except a reader for a delivery.
pub(crate) fn now<T>(answer: impl Future<Output = T>) -> T {
    match pin!(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the bus waits"),
    }
}

pub(crate) fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).unwrap())
}

pub(crate) fn say(name: &str, text: &str) -> Publication {
    Publication::new(room(name), Message::of("test", &text).unwrap())
}

/// Reproducible choices (xorshift64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

pub(crate) const TICK: Duration = Duration::from_nanos(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
