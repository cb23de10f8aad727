//! The idempotency keys of the last minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{IDEMPOTENCY_WINDOW, Receipt, Topic};

/// Which publications were accepted under which key. A pure machine; time is an argument.
#[derive(Debug)]
pub(crate) struct Keys {
    receipts: HashMap<Arc<Key>, Receipt>,
    by_time: VecDeque<(Duration, Arc<Key>)>,
    bytes: usize,
    max_bytes: usize,
}

type Key = (Topic, String);

impl Keys {
    /// No keys; beyond `max_bytes` the oldest are forgotten early.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { receipts: HashMap::new(), by_time: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// The receipt of what was published under this key.
    pub(crate) fn get(&mut self, now: Duration, key: &Key) -> Option<Receipt> {
        self.expire(now);
        self.receipts.get(key).copied()
    }

    /// Remembers a key that [`get`](Self::get) did not know.
    pub(crate) fn insert(&mut self, now: Duration, key: Key, receipt: Receipt) {
        let key = Arc::new(key);
        self.bytes += cost(&key);
        self.by_time.push_back((now, Arc::clone(&key)));
        self.receipts.insert(key, receipt);
        while self.bytes > self.max_bytes {
            self.forget_oldest();
        }
    }

    fn expire(&mut self, now: Duration) {
        while self.by_time.front().is_some_and(|(at, _)| *at + IDEMPOTENCY_WINDOW <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.by_time.pop_front() {
            self.bytes -= cost(&key);
            self.receipts.remove(&key);
        }
    }
}

/// Bytes that a key takes, as measured.
fn cost(key: &Key) -> usize {
    size_of::<(Key, Receipt)>() + key.1.len() + OVERHEAD
}

/// Bytes of the places of a key, of allocators, and of places kept free for the next keys.
const OVERHEAD: usize = 150;
