//! The Redis bus with one planted fault: what the fault run must notice.
//!
//! It has the names of the real one, so that the server is built on it unchanged. `PLANTED_FAULT` chooses the fault; each
//! is one that the real bus could have.

mod history;
mod presence;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::StreamExt;
use tidings_core::{
    Bus, BusError, BusLink, Delivery, History, Position, Presence, Publication, Receipt, Topic,
};

pub use tidings_bus_redis::{ConnectError, PublishErrors, RedisConfig, RedisStats, ServerStats};

/// What is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plant {
    /// Now and then a publication is not done and answered as if it were.
    Void,
    /// Now and then a publication is done and answered as if it never would be.
    NotDone,
    /// A store that has lost something seems to be the one from before.
    OneEpoch,
    /// All runs of a node claim under one lease, that of its name.
    OneName,
    /// Claims that the store has lost are not made again.
    LostClaims,
}

impl Plant {
    fn chosen() -> Result<Self, String> {
        match std::env::var("PLANTED_FAULT").as_deref() {
            Ok("void") => Ok(Self::Void),
            Ok("not-done") => Ok(Self::NotDone),
            Ok("one-epoch") => Ok(Self::OneEpoch),
            Ok("one-name") => Ok(Self::OneName),
            Ok("lost-claims") => Ok(Self::LostClaims),
            _ => {
                Err("PLANTED_FAULT is void, not-done, one-epoch, one-name or lost-claims"
                    .to_owned())
            }
        }
    }
}

/// A Redis bus that is broken.
#[derive(Debug, Clone)]
pub struct RedisBus {
    real: tidings_bus_redis::RedisBus,
    plant: Arc<Plant>,
    published: Arc<AtomicU64>,
}

impl RedisBus {
    /// Connects as the real bus does.
    ///
    /// # Errors
    /// Those of the real bus, and when `PLANTED_FAULT` names no fault.
    pub async fn connect(url: &str, config: RedisConfig) -> Result<Self, ConnectError> {
        let plant = Plant::chosen().map_err(ConnectError::Configuration)?;
        let real = tidings_bus_redis::RedisBus::connect(url, config).await?;
        Ok(Self { real, plant: Arc::new(plant), published: Arc::default() })
    }

    /// What the real bus does and has done.
    pub fn stats(&self) -> RedisStats {
        self.real.stats()
    }

    fn is(&self, plant: &Plant) -> bool {
        *self.plant == *plant
    }

    /// The epoch as it is told.
    fn epoch(&self, epoch: u64) -> u64 {
        if self.is(&Plant::OneEpoch) { 1 } else { epoch }
    }

    fn position(&self, position: Position) -> Position {
        Position { epoch: self.epoch(position.epoch), ..position }
    }

    fn delivery(&self, mut delivery: Delivery) -> Delivery {
        delivery.position = delivery.position.map(|position| self.position(position));
        delivery
    }

    /// Whether it is the turn of a publication to be hit.
    fn hits(&self, plant: &Plant) -> bool {
        self.is(plant) && self.published.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY)
    }

    fn told(&self, answer: Result<Receipt, BusError>) -> Result<Receipt, BusError> {
        let mut receipt = answer?;
        if self.hits(&Plant::NotDone) {
            return Err(BusError::Unavailable("a planted fault".to_owned()));
        }
        receipt.position = receipt.position.map(|position| self.position(position));
        Ok(receipt)
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let mut sent = Vec::new();
        let mut void = Vec::new();
        for publication in batch {
            let hit = self.hits(&Plant::Void);
            void.push(hit);
            sent.extend((!hit).then_some(publication));
        }
        let mut answers = self.real.publish(sent).await.into_iter();
        let answer = |void| match void {
            true => Ok(Receipt::default()),
            false => self.told(answers.next().unwrap_or(Err(BusError::TimedOut))),
        };
        void.into_iter().map(answer).collect()
    }

    fn partitions(&self) -> u16 {
        self.real.partitions()
    }

    fn partition(&self, topic: &Topic) -> u16 {
        self.real.partition(topic)
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        let BusLink { interest, deliveries } = self.real.connect(partition).await?;
        let bus = self.clone();
        let deliveries =
            deliveries.map(move |delivery| delivery.map(|delivery| bus.delivery(delivery)));
        Ok(BusLink { interest, deliveries: deliveries.boxed() })
    }

    fn history(&self) -> Option<&dyn History> {
        self.real.history().map(|_| self as &dyn History)
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.real.presence().map(|_| self as &dyn Presence)
    }
}

/// One publication in so many.
const EVERY: u64 = 50;
