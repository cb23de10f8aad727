//! What was kept, in an epoch that may be a lie.

use async_trait::async_trait;
use tidings_core::{BusError, History, HistoryPage, Topic, Tops};

use crate::RedisBus;

#[async_trait]
impl History for RedisBus {
    async fn cursor_key(&self) -> Result<[u8; 16], BusError> {
        self.real.cursor_key().await
    }

    async fn tops(&self, partition: u16, topics: &[Topic]) -> Result<Tops, BusError> {
        let tops = self.real.tops(partition, topics).await?;
        Ok(Tops { epoch: self.epoch(tops.epoch), ..tops })
    }

    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError> {
        let mut page = self.real.after(topic, clock, limit).await?;
        page.epoch = self.epoch(page.epoch);
        page.deliveries = page.deliveries.into_iter().map(|one| self.delivery(one)).collect();
        Ok(page)
    }
}
