//! What is left of a bus when a protection is taken away, for the twins.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tidings_core::{Bus, BusError, BusLink, History, Presence, Publication, Receipt, Topic};

/// A bus whose links never say that they ended, as if nobody watched the connection: nodes stay deaf.
#[derive(Debug)]
pub(crate) struct HidesEnds(pub(crate) Arc<dyn Bus>);

#[async_trait]
impl Bus for HidesEnds {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.0.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        self.0.partitions()
    }

    fn partition(&self, topic: &Topic) -> u16 {
        self.0.partition(topic)
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        let BusLink { interest, deliveries } = self.0.connect(partition).await?;
        let arrived = deliveries.take_while(|delivery| std::future::ready(delivery.is_ok()));
        Ok(BusLink { interest, deliveries: arrived.chain(stream::pending()).boxed() })
    }

    fn history(&self) -> Option<&dyn History> {
        self.0.history()
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.0.presence()
    }
}
