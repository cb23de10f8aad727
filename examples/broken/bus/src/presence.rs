//! Who is where, claimed under a lease that may be a lie.

use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{BusError, Claim, LeaseId, Presence, Tally, Topic, UserId};

use crate::{Plant, RedisBus};

impl RedisBus {
    /// The lease as the store is told it.
    fn lease(&self, lease: &LeaseId) -> LeaseId {
        let node = lease.as_str().rsplit_once(':').map(|(node, _)| node);
        match node.map(LeaseId::new) {
            Some(Ok(node)) if self.is(&Plant::OneName) => node,
            _ => lease.clone(),
        }
    }
}

#[async_trait]
impl Presence for RedisBus {
    async fn begin(&self, partition: u16, lease: &LeaseId, time: Duration) -> Result<(), BusError> {
        self.real.begin(partition, &self.lease(lease), time).await
    }

    async fn renew(
        &self,
        partition: u16,
        lease: &LeaseId,
        time: Duration,
    ) -> Result<bool, BusError> {
        let lease = self.lease(lease);
        let lives = self.real.renew(partition, &lease, time).await?;
        if !lives && self.is(&Plant::LostClaims) {
            self.real.begin(partition, &lease, time).await?;
        }
        Ok(lives || self.is(&Plant::LostClaims))
    }

    async fn claim(
        &self,
        partition: u16,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Result<Option<Vec<Tally>>, BusError> {
        let lease = self.lease(lease);
        let tallies = self.real.claim(partition, &lease, claims).await?;
        if tallies.is_some() || !self.is(&Plant::LostClaims) {
            return Ok(tallies);
        }
        self.real.begin(partition, &lease, LEASE).await?;
        self.real.claim(partition, &lease, claims).await
    }

    async fn expire(&self, partition: u16) -> Result<Vec<(Topic, UserId)>, BusError> {
        self.real.expire(partition).await
    }

    async fn members(&self, topic: &Topic) -> Result<Vec<UserId>, BusError> {
        self.real.members(topic).await
    }

    async fn count(&self, topic: &Topic) -> Result<u64, BusError> {
        self.real.count(topic).await
    }
}

/// Until the next renewal at least.
const LEASE: Duration = Duration::from_secs(30);
