//! What becomes of who was on a node that died: its lease still runs, and then it does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::presence::{builder, showing};
use super::scene::*;
use crate::testing::bus_laws::BusFixture;
use crate::{
    AttachError, Bus, BusError, BusLink, Claim, History, LeaseId, Limits, NodeId, Presence,
    Publication, Receipt, Tally, Topic, UserId,
};

/// A node that is started again under its name keeps nobody in a room who was there in its last run.
pub async fn a_node_started_again_under_its_name_shows_nobody_of_its_last_run<F: BusFixture>() {
    let fixture = F::start().await;
    let dies = Mortal::over(fixture.bus());
    let name = NodeId::new("node").expect("a name");
    let first = builder(&dies.as_bus(), |_| {}).node(name.clone()).start().await;
    let first = first.expect("the bus is there");
    let mut client = Client::connect(&first, "u").await;
    client.join("r").await;
    until(async || first.count_present(&room("r")).await.is_ok_and(|n| n == 1)).await;
    dies.die();
    drop((client, first));
    let second = builder(&fixture.bus(), |_| {}).node(name).start().await;
    let second = second.expect("the bus is there");
    let mut other = Client::connect(&second, "other").await;
    other.join("s").await;
    until(async || second.count_present(&room("s")).await.is_ok_and(|n| n == 1)).await;
    assert_eq!(second.count_present(&room("r")).await.expect("it is there"), 1, "its lease runs");
    dies.run_out().await;
    until(async || second.count_present(&room("r")).await.is_ok_and(|n| n == 0)).await;
    assert_eq!(second.count_present(&room("s")).await.expect("it is there"), 1);
}

/// Connections of a node that died count while its lease runs, and the user is told to try again; then they do not.
pub async fn connections_of_a_dead_node_refuse_nobody_for_good<F: BusFixture>() {
    let fixture = F::start().await;
    let limit = |limits: &mut Limits| limits.connections_per_user = 1;
    let dies = Mortal::over(fixture.bus());
    let name = NodeId::new("node").expect("a name");
    let first = builder(&dies.as_bus(), limit).node(name.clone()).start().await;
    let first = first.expect("the bus is there");
    let client = Client::connect(&first, "u").await;
    dies.die();
    drop((client, first));
    let again = builder(&fixture.bus(), limit).node(name).start().await;
    let again = again.expect("the bus is there");
    let other = showing(&fixture.bus(), limit).await;
    for hub in [&again, &other] {
        let refused = attach(hub, "u").await.err();
        assert_eq!(refused, Some(AttachError::TooManyUnheard));
        assert_eq!(refused.map(|error| error.close_reason().code), Some(1013));
    }
    dies.run_out().await;
    until(async || attach(&other, "u").await.is_ok()).await;
}

/// One node's view of a bus, which can die as a process does: its leases run on without it.
#[derive(Debug)]
struct Mortal {
    bus: Arc<dyn Bus>,
    is_dead: AtomicBool,
    leases: Mutex<Vec<(u16, LeaseId)>>,
}

impl Mortal {
    fn over(bus: Arc<dyn Bus>) -> Arc<Self> {
        Arc::new(Self { bus, is_dead: AtomicBool::new(false), leases: Mutex::default() })
    }

    fn as_bus(self: &Arc<Self>) -> Arc<dyn Bus> {
        Arc::clone(self) as Arc<dyn Bus>
    }

    /// From now on the node claims nothing.
    fn die(&self) {
        self.is_dead.store(true, Ordering::Release);
    }

    /// Lets the leases of the node run out now.
    async fn run_out(&self) {
        let leases = self.leases().clone();
        for (partition, lease) in leases {
            let renewed = self.inner().renew(partition, &lease, Duration::from_millis(1));
            assert!(in_time(renewed).await.expect("the bus is there"), "it still runs");
        }
    }

    fn leases(&self) -> MutexGuard<'_, Vec<(u16, LeaseId)>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> &dyn Presence {
        self.bus.presence().expect("the bus knows presence")
    }

    fn lives(&self) -> Result<(), BusError> {
        match self.is_dead.load(Ordering::Acquire) {
            true => Err(BusError::Unavailable("the node is dead".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Presence for Mortal {
    async fn begin(&self, partition: u16, lease: &LeaseId, time: Duration) -> Result<(), BusError> {
        self.lives()?;
        self.leases().push((partition, lease.clone()));
        self.inner().begin(partition, lease, time).await
    }

    async fn renew(
        &self,
        partition: u16,
        lease: &LeaseId,
        time: Duration,
    ) -> Result<bool, BusError> {
        self.lives()?;
        self.inner().renew(partition, lease, time).await
    }

    async fn claim(
        &self,
        partition: u16,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Result<Option<Vec<Tally>>, BusError> {
        self.lives()?;
        self.inner().claim(partition, lease, claims).await
    }

    async fn expire(&self, partition: u16) -> Result<Vec<(Topic, UserId)>, BusError> {
        self.lives()?;
        self.inner().expire(partition).await
    }

    async fn members(&self, topic: &Topic) -> Result<Vec<UserId>, BusError> {
        self.inner().members(topic).await
    }

    async fn count(&self, topic: &Topic) -> Result<u64, BusError> {
        self.inner().count(topic).await
    }
}

#[async_trait]
impl Bus for Mortal {
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
        self.bus.connect(partition).await
    }

    fn history(&self) -> Option<&dyn History> {
        self.bus.history()
    }

    fn presence(&self) -> Option<&dyn Presence> {
        Some(self)
    }
}
