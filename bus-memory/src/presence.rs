//! The presence of the bus, claimed and read under its lock.

use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{BusError, Claim, NodeId, Presence, Tally, Topic, UserId};

use crate::MemoryBus;
use crate::state::away;

#[async_trait]
impl Presence for MemoryBus {
    async fn claim(
        &self,
        node: &NodeId,
        lease: Duration,
        claims: &[Claim],
    ) -> Vec<Result<Tally, BusError>> {
        let Ok((now, mut state)) = self.shared.present() else {
            return claims.iter().map(|_| Err(away())).collect();
        };
        state.claims.claim(now, node, lease, claims).into_iter().map(Ok).collect()
    }

    async fn renew(&self, node: &NodeId, lease: Duration) -> Result<bool, BusError> {
        let (now, mut state) = self.shared.present()?;
        Ok(state.claims.renew(now, node, lease))
    }

    async fn expire(&self) -> Result<Vec<(Topic, UserId)>, BusError> {
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
