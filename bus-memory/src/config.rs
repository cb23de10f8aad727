//! What can be set of a bus inside the process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;

/// The settings of a [`MemoryBus`](crate::MemoryBus).
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Bytes that may wait for one link: type and payload of every message, and the size of a
    /// [`Delivery`](tidings_core::Delivery) for each. Default 64 MiB, some seconds of a busy node's traffic.
    /// A node that reads too slowly loses its link with [`BusError::Lagged`](tidings_core::BusError::Lagged).
    pub queue_bytes: usize,
    /// Whether the bus keeps messages and knows idempotency keys. Default `true`. Without it
    /// [`history`](tidings_core::Bus::history) gives `None`, and both wishes of a publication are ignored.
    pub history: bool,
    /// Memory that history may take over all topics, in bytes: what is kept, about 400 bytes beside each message and
    /// for each topic that is remembered, and the idempotency keys, which may take an eighth of it. Default 256 MiB.
    /// Beyond it the oldest goes early: keys, then topics that keep nothing any more, then messages by when they
    /// expire. Whoever asks for it is told that the history is not whole.
    pub history_bytes: usize,
    /// The time since some moment of the past; it must not go back. Default the system's monotonic clock. Tests of
    /// ages and leases can set one that they move by hand, or that follows tokio's paused time.
    pub clock: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
            history: true,
            history_bytes: 256 << 20,
            clock: Arc::new(clock::monotonic),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("queue_bytes", &self.queue_bytes)
            .field("history", &self.history)
            .field("history_bytes", &self.history_bytes)
            .finish_non_exhaustive()
    }
}
