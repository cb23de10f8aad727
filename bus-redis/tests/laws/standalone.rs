//! One Redis.

use std::sync::Arc;

use tidings_bus_redis::RedisConfig;
use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;
use tidings_redis_testing::{Options, Redis};

use crate::Nodes;

struct Fixture {
    nodes: Nodes,
    redis: Redis,
}

impl BusFixture for Fixture {
    const HISTORY: bool = true;
    const PRESENCE: bool = true;

    async fn start() -> Self {
        let redis = Redis::start(Options::default()).await;
        Self { nodes: Nodes::start(&redis.url(), RedisConfig::default()).await, redis }
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
