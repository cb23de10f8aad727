//! [`RedisBus`]: the seam of core, filled.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tidings_core::{Bus, BusError, BusLink, History, Presence, Publication, Receipt, Topic};

use crate::connection::Opener;
use crate::link;
use crate::partition::Partition;
use crate::publisher::Publisher;
use crate::sabotage::Protection;
use crate::spelling::spell;
use crate::stats::Counters;
use crate::tls::Tls;
use crate::topology::Topology;
use crate::url::Target;
use crate::{RedisConfig, RedisStats};

/// A bus over Redis. Clones are the same bus; it ends with the last of them.
///
/// Needs a tokio runtime with its time and IO drivers.
#[derive(Clone)]
pub struct RedisBus {
    shared: Arc<Shared>,
}

struct Shared {
    opener: Arc<Opener>,
    counters: Arc<Counters>,
    topology: Arc<Topology>,
    partitions: Vec<Arc<Partition>>,
    publishers: Vec<Publisher>,
}

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL or the configuration is wrong. Correct it.
    #[error("{0}")]
    Configuration(String),
    /// Redis cannot be reached, or refuses.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl RedisBus {
    /// Connects to the Redis of a URL and proves that it can be commanded.
    ///
    /// # Errors
    /// [`ConnectError`] when the URL or `config` is wrong, Redis cannot be reached, refuses the user, or is a
    /// replica. Once connected a bus is never given up: it comes back by itself.
    pub async fn connect(url: &str, config: RedisConfig) -> Result<Self, ConnectError> {
        let target = Target::parse(url).map_err(ConnectError::Configuration)?;
        config.check().map_err(ConnectError::Configuration)?;
        let config = RedisConfig { durable: target.durable.or(config.durable), ..config };
        let tls = target.tls.then(|| Tls::new(config.tls_ca.as_deref())).transpose();
        let tls = tls.map_err(ConnectError::Configuration)?;
        let opener = Arc::new(Opener { config: config.clone(), login: target.login.clone(), tls });
        let counters = Arc::<Counters>::default();
        let topology = Topology::start(target, &opener, &counters);
        let topology = Arc::new(topology.map_err(ConnectError::Configuration)?);
        let partition = |index| Arc::new(Partition::new(index, &config, topology.clone()));
        let partitions: Vec<_> = (0..topology.partitions()).map(partition).collect();
        // A share for each, so that one that hangs has no other refused.
        let most = config.publish_bytes / partitions.len().max(1);
        let publish = |partition: &Arc<Partition>| {
            Publisher::start(partition.clone(), counters.clone(), config.clone(), most)
        };
        let publishers = partitions.iter().map(publish).collect();
        let proven = if config.lacks(Protection::FirstAnswer) { &[] } else { &partitions[..] };
        for partition in proven {
            let server = partition.server().await.map_err(BusError::from)?;
            server.session().await.map_err(BusError::from)?;
        }
        let shared = Shared { opener, counters, topology, partitions, publishers };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn partition_of(&self, topic: &Topic) -> &Arc<Partition> {
        &self.shared.partitions[usize::from(self.partition(topic))]
    }

    /// A partition by its number.
    pub(crate) fn numbered(&self, partition: u16) -> Result<&Arc<Partition>, BusError> {
        let found = self.shared.partitions.get(usize::from(partition));
        found.ok_or_else(|| BusError::Refused(format!("there is no partition {partition}")))
    }

    pub(crate) fn all_partitions(&self) -> &[Arc<Partition>] {
        &self.shared.partitions
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What the bus does and has done.
    pub fn stats(&self) -> RedisStats {
        let Shared { counters, topology, publishers, .. } = &*self.shared;
        let publish_bytes: usize = publishers.iter().map(Publisher::waiting).sum();
        counters.read(topology.servers(), publish_bytes as u64)
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let publishers = &self.shared.publishers;
        if let ([only], false) = (publishers.as_slice(), batch.is_empty()) {
            return only.publish(batch).await;
        }
        let places: Vec<_> = batch.iter().map(|p| usize::from(self.partition(&p.topic))).collect();
        let mut parts = vec![Vec::new(); publishers.len()];
        for (publication, place) in batch.into_iter().zip(&places) {
            parts[*place].push(publication);
        }
        let answers = parts.into_iter().zip(publishers).map(async |(part, publisher)| {
            if part.is_empty() { Vec::new() } else { publisher.publish(part).await }
        });
        let mut answers: Vec<_> = join_all(answers).await.into_iter().map(Vec::into_iter).collect();
        let unanswered = || Err(BusError::TimedOut);
        places.iter().map(|place| answers[*place].next().unwrap_or_else(unanswered)).collect()
    }

    fn partitions(&self) -> u16 {
        self.shared.topology.partitions()
    }

    fn partition(&self, topic: &Topic) -> u16 {
        match self.partitions() {
            1 => 0,
            _ => self.shared.topology.partition(&spell(topic)),
        }
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        let partition = self.numbered(partition)?;
        let Shared { opener, counters, .. } = &*self.shared;
        Ok(link::connect(partition.clone(), opener, counters).await?)
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn presence(&self) -> Option<&dyn Presence> {
        Some(self)
    }
}

/// Shows servers, never credentials.
impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> =
            self.shared.topology.servers().into_iter().map(|server| server.address).collect();
        f.debug_struct("RedisBus").field("servers", &servers).finish_non_exhaustive()
    }
}
