//! The Redis bus keeps every law of a bus, and hubs on it those of a hub, on real servers of each topology.

mod cluster;
mod sentinel;
mod shards;
mod standalone;
mod tenant;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::Bus;

/// Three nodes of a bus.
struct Nodes {
    buses: Vec<RedisBus>,
    next: AtomicUsize,
}

impl Nodes {
    async fn start(url: &str, config: RedisConfig) -> Self {
        let mut buses = Vec::new();
        for _ in 0..3 {
            let bus = RedisBus::connect(url, config.clone()).await;
            buses.push(bus.expect("Redis is there"));
        }
        Self { buses, next: AtomicUsize::new(0) }
    }

    /// Each in turn.
    fn bus(&self) -> Arc<dyn Bus> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.buses[n % self.buses.len()].clone())
    }
}
