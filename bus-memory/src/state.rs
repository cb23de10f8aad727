//! Everything that the one lock of the bus guards.

use std::task::Waker;
use std::time::Duration;

use tidings_core::{BusError, Delivery, Publication, Receipt};

use crate::claims::Claims;
use crate::clock;
use crate::config::Config;
use crate::index::Index;
use crate::keys::Keys;
use crate::store::Store;

/// The links, and what the bus keeps. One lock makes it one step to give a message its position, keep it, and queue
/// it for the links, so that links and history have the same order.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) away: bool,
    pub(crate) index: Index,
    pub(crate) kept: Option<Kept>,
    pub(crate) claims: Claims,
    /// Publications that reach history and no link, for tests.
    pub(crate) dropping: u32,
}

/// What a bus with history has besides.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) store: Store,
    keys: Keys,
}

impl State {
    pub(crate) fn new(config: &Config) -> Self {
        let kept = config.history.then(|| Kept::new(config.history_bytes));
        Self { away: false, index: Index::default(), kept, claims: Claims::default(), dropping: 0 }
    }

    /// Forgets all but the links.
    pub(crate) fn flush(&mut self, config: &Config) {
        self.kept = config.history.then(|| Kept::new(config.history_bytes));
        self.claims = Claims::default();
    }

    /// Publishes in one step. The wakers are the caller's to wake once it holds no lock.
    pub(crate) fn publish(
        &mut self,
        now: Duration,
        publication: &Publication,
        wakers: &mut Vec<Waker>,
    ) -> Result<Receipt, BusError> {
        if self.away {
            return Err(away());
        }
        let Some(kept) = &mut self.kept else {
            let links = self.index.hand_out(&Delivery::of(publication), wakers);
            return Ok(Receipt::handed_to(links));
        };
        let key = publication.idempotency_key.clone().map(|key| (publication.topic.clone(), key));
        if let Some(receipt) = key.as_ref().and_then(|key| kept.keys.get(now, key)) {
            return Ok(receipt);
        }
        let delivery = match publication.retention {
            Some(retention) => kept.store.append(now, publication, retention),
            None => Delivery::of(publication),
        };
        let links = if self.dropping > 0 && delivery.position.is_some() {
            self.dropping -= 1;
            0
        } else {
            self.index.hand_out(&delivery, wakers)
        };
        let mut receipt = Receipt::handed_to(links);
        receipt.position = delivery.position;
        if let Some(key) = key {
            kept.keys.insert(now, key, receipt);
        }
        Ok(receipt)
    }
}

impl Kept {
    fn new(bytes: usize) -> Self {
        let keys = bytes / KEYS_SHARE;
        Self { store: Store::new(epoch(), bytes - keys), keys: Keys::new(keys) }
    }
}

pub(crate) fn away() -> BusError {
    BusError::Unavailable("it was taken away".to_owned())
}

/// A new epoch: not 0, and small enough to be a number in JavaScript.
fn epoch() -> u64 {
    (u64::from_le_bytes(clock::random()) >> 11).max(1)
}

/// The part of the history's bytes that idempotency keys may take: one in so many.
const KEYS_SHARE: usize = 8;
