//! Which of a node's links are up: set by the dispatcher, read by whoever is asked whether the bus is there.

use std::sync::atomic::{AtomicBool, Ordering};

/// One flag for each partition.
#[derive(Debug)]
pub(crate) struct LinksUp(Box<[AtomicBool]>);

impl LinksUp {
    /// So many links, all of them up.
    pub(crate) fn new(partitions: u16) -> Self {
        Self((0..partitions).map(|_| AtomicBool::new(true)).collect())
    }

    pub(crate) fn set(&self, partition: u16, is_up: bool) {
        self.0[usize::from(partition)].store(is_up, Ordering::Release);
    }

    pub(crate) fn has(&self, partition: u16) -> bool {
        self.0[usize::from(partition)].load(Ordering::Acquire)
    }

    /// The partitions whose link is away, in order.
    pub(crate) fn away(&self) -> Vec<u16> {
        (0..self.0.len() as u16).filter(|&partition| !self.has(partition)).collect()
    }

    pub(crate) fn any(&self) -> bool {
        (0..self.0.len() as u16).any(|partition| self.has(partition))
    }
}
