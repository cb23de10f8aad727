//! Any bus, with links of one node that lose what they are told to, or that are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt, future};
use tokio::sync::watch;

use crate::{Bus, BusError, BusLink, Delivery, History, Presence, Publication, Receipt, Topic};

/// One node's view of a bus. Deliveries of kept messages vanish on its links, as on a broken wire: the store has them,
/// other nodes hear them, and nobody is told.
#[derive(Debug)]
pub(super) struct Lossy {
    bus: Arc<dyn Bus>,
    losing: Arc<AtomicU32>,
    /// Whether the node has no links, while others have theirs.
    cut: watch::Sender<bool>,
}

impl Lossy {
    pub(super) fn over(bus: Arc<dyn Bus>) -> Self {
        Self { bus, losing: Arc::default(), cut: watch::channel(false).0 }
    }

    /// The next so many kept messages do not arrive.
    pub(super) fn lose(&self, messages: u32) {
        self.losing.store(messages, Ordering::Release);
    }

    /// Takes the links away, or lets the node open new ones.
    pub(super) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

/// Whether a delivery is one of those that get lost.
fn is_lost(losing: &AtomicU32, delivery: &Result<Delivery, BusError>) -> bool {
    let is_kept = delivery.as_ref().is_ok_and(|delivery| delivery.position.is_some());
    let less = |left: u32| left.checked_sub(1);
    is_kept && losing.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
}

#[async_trait]
impl Bus for Lossy {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.bus.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        self.bus.partitions()
    }

    fn partition(&self, topic: &Topic) -> u16 {
        self.bus.partition(topic)
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        let mut cut = self.cut.subscribe();
        if *cut.borrow() {
            return Err(BusError::Unavailable("the law has cut it".to_owned()));
        }
        let BusLink { interest, deliveries } = self.bus.connect(partition).await?;
        let losing = Arc::clone(&self.losing);
        let deliveries = deliveries.filter(move |one| future::ready(!is_lost(&losing, one)));
        let ended = async move { drop(cut.wait_for(|cut| *cut).await) };
        let deliveries = deliveries.take_until(Box::pin(ended));
        Ok(BusLink { interest, deliveries: deliveries.boxed() })
    }

    fn history(&self) -> Option<&dyn History> {
        self.bus.history()
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.bus.presence()
    }
}
