//! Which of a node's links are up, and how many topics they refuse: set by the dispatcher, read by whoever is asked whether the bus is there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct LinksUp {
    /// One flag for each partition.
    up: Box<[AtomicBool]>,
    /// Topics with members that the bus refuses.
    refused: AtomicUsize,
}

impl LinksUp {
    /// So many links, all of them up.
    pub(crate) fn new(partitions: u16) -> Self {
        let up = (0..partitions).map(|_| AtomicBool::new(true)).collect();
        Self { up, refused: AtomicUsize::new(0) }
    }

    pub(crate) fn set(&self, partition: u16, is_up: bool) {
        self.up[usize::from(partition)].store(is_up, Ordering::Release);
    }

    pub(crate) fn has(&self, partition: u16) -> bool {
        self.up[usize::from(partition)].load(Ordering::Acquire)
    }

    /// The partitions whose link is away, in order.
    pub(crate) fn away(&self) -> Vec<u16> {
        (0..self.up.len() as u16).filter(|&partition| !self.has(partition)).collect()
    }

    pub(crate) fn any(&self) -> bool {
        (0..self.up.len() as u16).any(|partition| self.has(partition))
    }

    pub(crate) fn set_refused(&self, topics: usize) {
        self.refused.store(topics, Ordering::Release);
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }
}
