//! A wish that waits for its topics.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::wish::BusAway;

type Answer = oneshot::Sender<Result<usize, BusAway>>;

/// Answers a wish when the last of its topics is there, or at once when one cannot be.
pub(crate) struct Barrier {
    left: AtomicUsize,
    /// How many connections were in the first topic before.
    pub(crate) before: usize,
    pub(crate) shard: usize,
    answer: Mutex<Option<Answer>>,
}

impl Barrier {
    /// A barrier of so many topics, and of one pass more: that of the wish itself, which comes last, so that it is
    /// not answered halfway through.
    pub(crate) fn new(topics: usize, before: usize, shard: usize, answer: Answer) -> Self {
        let (left, answer) = (AtomicUsize::new(topics + 1), Mutex::new(Some(answer)));
        Self { left, before, shard, answer }
    }

    /// One of them is there. Answers whether it was the last.
    pub(crate) fn pass(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Answers; only the first answer counts.
    pub(crate) fn answer(&self, result: Result<usize, BusAway>) {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
    }
}
