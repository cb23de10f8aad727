//! One Redis.

use std::sync::Arc;

use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;
use tidings_redis_testing::{Options, Redis};

use crate::Nodes;
use crate::tenant::Tenant;

struct Fixture {
    nodes: Nodes,
    tenant: Tenant,
    redis: [Redis; 1],
}

impl BusFixture for Fixture {
    const HISTORY: bool = true;
    const PRESENCE: bool = true;

    async fn start() -> Self {
        let redis = [Redis::start(Options::default()).await];
        let tenant = Tenant::create(&redis).await;
        let url = format!("redis://{}:secret@{}", tenant.name, redis[0].address());
        Self { nodes: Nodes::start(&url, tenant.config()).await, tenant, redis }
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.nodes.bus()
    }

    async fn break_links(&self) {
        self.redis[0].cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.ok();
    }

    async fn lose_store(&self) {
        self.redis[0].cli(&["FLUSHALL"]).await.ok();
    }

    async fn set_available(&self, available: bool) {
        self.tenant.set_available(&self.redis, available).await;
    }
}

tidings_core::bus_laws!(Fixture);

mod hub {
    use super::Fixture;

    tidings_core::hub_laws!(Fixture);
}
