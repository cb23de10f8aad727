//! The history of one topic: what is kept, and what was.

use std::collections::VecDeque;
use std::time::Duration;

use tidings_core::{Delivery, Retention, Top};

/// What a topic has kept. A pure machine; time is an argument.
#[derive(Debug)]
pub(crate) struct Log {
    top: Top,
    /// The clock up to which something may be missing: that of the last message that was trimmed.
    trimmed: u64,
    retention: Retention,
    /// When the last message expires, or did.
    ends: Duration,
    kept: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    at: Duration,
    clock: u64,
    delivery: Delivery,
}

impl Log {
    /// The log of a topic of which nothing is known up to the clock `floor`.
    pub(crate) fn new(floor: u64, retention: Retention) -> Self {
        let (top, ends, kept) = (Top::default(), Duration::ZERO, VecDeque::new());
        Self { top, trimmed: floor, retention, ends, kept }
    }

    pub(crate) fn top(&self) -> Top {
        self.top
    }

    /// Whether nothing after the clock was trimmed.
    pub(crate) fn whole_after(&self, clock: u64) -> bool {
        clock >= self.trimmed
    }

    /// What is kept after a clock, oldest first.
    pub(crate) fn after(&self, clock: u64) -> impl ExactSizeIterator<Item = &Delivery> {
        let start = self.kept.partition_point(|kept| kept.clock <= clock);
        self.kept.range(start..).map(|kept| &kept.delivery)
    }

    /// Takes the topic's next message, whose position is that which `delivery` carries. Answers the bytes that became
    /// free.
    pub(crate) fn push(
        &mut self,
        at: Duration,
        top: Top,
        delivery: Delivery,
        retention: Retention,
    ) -> usize {
        self.top = top;
        self.retention = retention;
        self.ends = at.saturating_add(retention.age);
        let mut freed = self.trim_to(self.count().saturating_sub(1), at);
        if self.kept.is_empty() {
            // Many topics keep one message; the first step of growth would be four.
            self.kept.reserve_exact(1);
        }
        self.kept.push_back(Kept { at, clock: top.clock, delivery });
        freed += self.trim(at);
        freed
    }

    /// Drops what the retention does not cover any more and answers the bytes that became free.
    pub(crate) fn trim(&mut self, now: Duration) -> usize {
        self.trim_to(self.count(), now)
    }

    fn trim_to(&mut self, count: usize, now: Duration) -> usize {
        let mut freed = 0;
        while self.kept.len() > count || self.expiry().is_some_and(|expiry| expiry <= now) {
            freed += self.drop_oldest();
        }
        freed
    }

    fn count(&self) -> usize {
        usize::try_from(self.retention.count).unwrap_or(usize::MAX)
    }

    /// Drops the oldest message, if there is one, and answers the bytes that became free.
    pub(crate) fn drop_oldest(&mut self) -> usize {
        let Some(kept) = self.kept.pop_front() else { return 0 };
        self.trimmed = kept.clock;
        if self.kept.len() < self.kept.capacity() / 4 || self.kept.is_empty() {
            // A burst must not hold its room for ever.
            self.kept.shrink_to(self.kept.len() * 2);
        }
        message_cost(&kept.delivery)
    }

    /// When the last message is too old, kept or not.
    pub(crate) fn ends(&self) -> Duration {
        self.ends
    }

    /// When the oldest message is too old; `None` when nothing is kept.
    pub(crate) fn expiry(&self) -> Option<Duration> {
        self.kept.front().map(|kept| kept.at.saturating_add(self.retention.age))
    }
}

/// Bytes that a kept message takes, as measured.
pub(crate) fn message_cost(delivery: &Delivery) -> usize {
    let key = delivery.conflation_key.as_ref().map_or(0, String::len);
    size_of::<Kept>() + delivery.message.len() + key + MESSAGE_OVERHEAD
}

/// Bytes of allocators and of places kept free for the next messages.
const MESSAGE_OVERHEAD: usize = 100;
