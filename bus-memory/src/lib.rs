//! The in-process bus of Tidings: all hubs on clones of one [`MemoryBus`] are the nodes of one
//! cluster.
//!
//! It is the bus of a single process and of tests. It keeps no history, knows no presence and
//! refuses to reach beyond the process.

mod index;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tidings_core::{
    Bus, BusError, BusInterest, BusLink, Delivery, History, Presence, Publication, Receipt, Topic,
};

use crate::index::Index;
use crate::queue::{Deliveries, Queue};

/// A bus inside the process. Clones are the same bus.
///
/// Each link has a queue that is bounded in bytes. A node that reads too slowly loses its link with
/// [`BusError::Lagged`], and nobody else notices.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    index: Mutex<Index>,
    queue_bytes: usize,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::with_queue_bytes(DEFAULT_QUEUE_BYTES)
    }
}

impl MemoryBus {
    /// A bus whose links each queue at most `queue_bytes`: type and payload of every message that
    /// waits, and the size of a [`Delivery`] for each.
    pub fn with_queue_bytes(queue_bytes: usize) -> Self {
        Self { shared: Arc::new(Shared { index: Mutex::default(), queue_bytes }) }
    }

    /// Ends all links, as if the bus had died and come back. What they had queued is still
    /// delivered, then each stream ends.
    pub fn cut_links(&self) {
        let ended = self.shared.index().remove_all();
        ended.iter().for_each(|queue| queue.end());
    }

    /// Takes the bus away, or brings it back. While it is away, publishing and connecting give
    /// [`BusError::Unavailable`]; taking it away ends all links.
    pub fn set_available(&self, available: bool) {
        let ended = {
            let mut index = self.shared.index();
            index.away = !available;
            if available { Vec::new() } else { index.remove_all() }
        };
        ended.iter().for_each(|queue| queue.end());
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let mut wakers = Vec::new();
        let mut index = self.shared.index();
        let answers = batch
            .iter()
            .map(|publication| {
                if index.away {
                    return Err(away());
                }
                Ok(Receipt::handed_to(index.hand_out(&Delivery::of(publication), &mut wakers)))
            })
            .collect();
        drop(index);
        wakers.into_iter().for_each(std::task::Waker::wake);
        answers
    }

    fn partitions(&self) -> u16 {
        1
    }

    fn partition(&self, _topic: &Topic) -> u16 {
        0
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        if partition != 0 {
            return Err(BusError::Refused(format!("there is no partition {partition}")));
        }
        let queue = Arc::new(Queue::new(self.shared.queue_bytes));
        let id = {
            let mut index = self.shared.index();
            if index.away {
                return Err(away());
            }
            index.insert(Arc::clone(&queue))
        };
        let guard = LinkGuard { shared: Arc::clone(&self.shared), id };
        Ok(BusLink {
            interest: Box::new(LinkInterest { shared: Arc::clone(&self.shared), id }),
            deliveries: Box::pin(Deliveries::new(queue, guard)),
        })
    }

    fn history(&self) -> Option<&dyn History> {
        None
    }

    fn presence(&self) -> Option<&dyn Presence> {
        None
    }
}

#[derive(Debug)]
struct LinkInterest {
    shared: Arc<Shared>,
    id: u64,
}

#[async_trait]
impl BusInterest for LinkInterest {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        self.shared.index().subscribe(self.id, topics).ok_or_else(ended)
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        self.shared.index().unsubscribe(self.id, topics).ok_or_else(ended)
    }
}

/// Takes the link out of the bus when its stream is dropped.
#[derive(Debug)]
struct LinkGuard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.shared.index().remove(self.id);
    }
}

fn away() -> BusError {
    BusError::Unavailable("it was taken away".to_owned())
}

fn ended() -> BusError {
    BusError::Unavailable("the link has ended".to_owned())
}

/// Bytes that may wait for one node: some seconds of a busy node's traffic.
const DEFAULT_QUEUE_BYTES: usize = 64 << 20;
