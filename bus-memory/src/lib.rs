//! The in-process bus of Tidings: all hubs on clones of one [`MemoryBus`] are the nodes of one
//! cluster.
//!
//! It is the bus of a single process and of tests. It keeps history and knows presence, both in bounded memory.
//! It refuses to reach beyond the process, and nothing of it outlives the process.
//!
//! ```
//! # use std::time::Duration;
//! # use tidings_bus_memory::MemoryBus;
//! # use tidings_core::{Bus, Message, Publication, Retention, RoomId, TenantId, Topic};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let bus = MemoryBus::default();
//! let room = Topic::room(TenantId::default(), RoomId::new("lobby")?);
//! let kept = Retention { count: 100, age: Duration::from_secs(600) };
//! let hello = Publication::new(room.clone(), Message::of("chat", &"hello")?).retention(kept);
//! bus.publish(vec![hello]).await.remove(0)?;
//!
//! let history = bus.history().expect("it is on by default");
//! let page = history.after(&room, 0, 10).await?;
//! assert!(page.whole && page.deliveries.len() == 1);
//! # Ok::<_, Box<dyn std::error::Error>>(()) })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod claims;
mod clock;
mod config;
mod history;
mod index;
mod keys;
mod log;
mod presence;
mod queue;
mod state;
mod store;

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{
    Bus, BusError, BusInterest, BusLink, History, Presence, Publication, Receipt, Topic,
};

pub use crate::config::Config;
use crate::queue::{Deliveries, Queue};
use crate::state::{State, away};

/// A bus inside the process. Clones are the same bus.
///
/// Each link has a queue that is bounded in bytes. A node that reads too slowly loses its link with
/// [`BusError::Lagged`], and nobody else notices.
///
/// History remembers the position of a topic for an hour after its last message has expired. Of a topic that it does
/// not remember it says `whole: false` to cursors that are older than the last message of any topic it has forgotten.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    cursor_key: [u8; 16],
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a bus that is not away, and the time.
    fn present(&self) -> Result<(Duration, MutexGuard<'_, State>), BusError> {
        let state = self.state();
        if state.away { Err(away()) } else { Ok(((self.config.clock)(), state)) }
    }
}

/// Leaves the secret out.
impl Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl MemoryBus {
    /// A bus with these settings.
    pub fn new(config: Config) -> Self {
        let state = Mutex::new(State::new(&config));
        Self { shared: Arc::new(Shared { config, cursor_key: clock::random(), state }) }
    }

    /// A bus that keeps nothing: [`history`](Bus::history) is `None`.
    pub fn without_history() -> Self {
        Self::new(Config { history: false, ..Config::default() })
    }

    /// A bus whose links each queue at most [`queue_bytes`](Config::queue_bytes).
    pub fn with_queue_bytes(queue_bytes: usize) -> Self {
        Self::new(Config { queue_bytes, ..Config::default() })
    }

    /// Ends all links, as if the bus had died and come back. What they had queued is still
    /// delivered, then each stream ends.
    pub fn cut_links(&self) {
        let ended = self.shared.state().index.remove_all();
        ended.iter().for_each(|queue| queue.end());
    }

    /// Takes the bus away, or brings it back. While it is away, everything gives
    /// [`BusError::Unavailable`]; taking it away ends all links.
    pub fn set_available(&self, available: bool) {
        let ended = {
            let mut state = self.shared.state();
            state.away = !available;
            if available { Vec::new() } else { state.index.remove_all() }
        };
        ended.iter().for_each(|queue| queue.end());
    }

    /// Loses history, idempotency keys and presence, as a store does that is flushed: a new epoch begins. The links
    /// stay.
    pub fn flush(&self) {
        self.shared.state().flush(&self.shared.config);
    }

    /// For tests of repair: the next `publications` that history keeps reach no link, and the links go on, which no bus may
    /// do (see [`Bus`]). Clients that stay connected get them once the next message of the topic comes, or within
    /// [`Limits::history_check`](tidings_core::Limits::history_check); one that comes back with the cursor of a later
    /// message of another topic may not. The receipts say so by 0 links.
    pub fn drop_next(&self, publications: u32) {
        self.shared.state().dropping = publications;
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let mut wakers = Vec::new();
        let mut state = self.shared.state();
        let now = (self.shared.config.clock)();
        let answers = batch.iter().map(|one| state.publish(now, one, &mut wakers)).collect();
        drop(state);
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
        known(partition)?;
        let queue = Arc::new(Queue::new(self.shared.config.queue_bytes));
        let id = self.shared.present()?.1.index.insert(Arc::clone(&queue));
        let guard = LinkGuard { shared: Arc::clone(&self.shared), id };
        Ok(BusLink {
            interest: Box::new(LinkInterest { shared: Arc::clone(&self.shared), id }),
            deliveries: Box::pin(Deliveries::new(queue, guard)),
        })
    }

    fn history(&self) -> Option<&dyn History> {
        self.shared.config.history.then_some(self as &dyn History)
    }

    fn presence(&self) -> Option<&dyn Presence> {
        Some(self)
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
        self.shared.state().index.subscribe(self.id, topics).ok_or_else(ended)
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        self.shared.state().index.unsubscribe(self.id, topics).ok_or_else(ended)
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
        self.shared.state().index.remove(self.id);
    }
}

fn known(partition: u16) -> Result<(), BusError> {
    match partition {
        0 => Ok(()),
        _ => Err(BusError::Refused(format!("there is no partition {partition}"))),
    }
}

fn ended() -> BusError {
    BusError::Unavailable("the link has ended".to_owned())
}
