//! The Redis bus keeps every law of a bus, on real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;
use tidings_redis_testing::{Options, Redis};

/// Three nodes of a bus.
struct Nodes {
    buses: Vec<RedisBus>,
    next: AtomicUsize,
}

impl Nodes {
    async fn start(url: &str) -> Self {
        let mut buses = Vec::new();
        for _ in 0..3 {
            let bus = RedisBus::connect(url, RedisConfig::default()).await;
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

mod standalone {
    use super::*;

    struct Fixture {
        nodes: Nodes,
        redis: Redis,
    }

    impl BusFixture for Fixture {
        const HISTORY: bool = true;
        const PRESENCE: bool = true;

        async fn start() -> Self {
            let redis = Redis::start(Options::default()).await;
            Self { nodes: Nodes::start(&redis.url()).await, redis }
        }

        fn bus(&self) -> Arc<dyn Bus> {
            self.nodes.bus()
        }

        async fn break_links(&self) {
            self.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.ok();
        }

        async fn lose_store(&self) {
            self.redis.cli(&["FLUSHALL"]).await.ok();
        }
    }

    tidings_core::bus_laws!(Fixture);
}
