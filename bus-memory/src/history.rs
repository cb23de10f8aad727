//! The history of the bus, read under its lock.

use async_trait::async_trait;
use tidings_core::{BusError, History, HistoryPage, Topic, Tops};

use crate::{MemoryBus, known};

#[async_trait]
impl History for MemoryBus {
    async fn cursor_key(&self) -> Result<[u8; 16], BusError> {
        let _present = self.shared.present()?;
        Ok(self.shared.cursor_key)
    }

    async fn tops(&self, partition: u16, topics: &[Topic]) -> Result<Tops, BusError> {
        known(partition)?;
        let (now, mut state) = self.shared.present()?;
        let kept = state.kept.as_mut().ok_or_else(off)?;
        Ok(kept.store.tops(now, topics))
    }

    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError> {
        let (now, mut state) = self.shared.present()?;
        let kept = state.kept.as_mut().ok_or_else(off)?;
        Ok(kept.store.after(now, topic, clock, limit))
    }
}

fn off() -> BusError {
    BusError::Refused("history is off".to_owned())
}
