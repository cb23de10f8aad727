//! The presence of the bus, claimed and read under its lock.

use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{BusError, Claim, LeaseId, Presence, Tally, Topic, UserId};

use crate::MemoryBus;

#[async_trait]
impl Presence for MemoryBus {
    async fn begin(&self, _: u16, lease: &LeaseId, time: Duration) -> Result<(), BusError> {
        let (now, mut state) = self.shared.present()?;
        state.claims.begin(now.saturating_add(time), lease);
        Ok(())
    }

    async fn renew(&self, _: u16, lease: &LeaseId, time: Duration) -> Result<bool, BusError> {
        let (now, mut state) = self.shared.present()?;
        Ok(state.claims.renew(now, lease, now.saturating_add(time)))
    }

    async fn claim(
        &self,
        _: u16,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Result<Option<Vec<Tally>>, BusError> {
        let (now, mut state) = self.shared.present()?;
        Ok(state.claims.claim(now, lease, claims))
    }

    async fn expire(&self, _: u16) -> Result<Vec<(Topic, UserId)>, BusError> {
        let (now, mut state) = self.shared.present()?;
        Ok(state.claims.expire(now))
    }

    async fn members(&self, topic: &Topic) -> Result<Vec<UserId>, BusError> {
        Ok(self.shared.present()?.1.claims.members(topic))
    }

    async fn count(&self, topic: &Topic) -> Result<u64, BusError> {
        Ok(self.shared.present()?.1.claims.count(topic))
    }
}
