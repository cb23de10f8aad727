//! A primary and a replica that Sentinels watch.

use std::sync::Arc;

use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;
use tidings_redis_testing::{Options, SENTINEL_MASTER, SentinelTrio};

use crate::Nodes;
use crate::tenant::{Shared, Tenant};

static TRIO: Shared<SentinelTrio> = Shared::new();

struct Fixture {
    nodes: Nodes,
    tenant: Tenant,
    trio: Arc<SentinelTrio>,
}

impl BusFixture for Fixture {
    const HISTORY: bool = true;
    const PRESENCE: bool = true;

    async fn start() -> Self {
        let trio = TRIO.get(SentinelTrio::start(Options::default())).await;
        let tenant = Tenant::create(&trio.servers).await;
        let hosts = trio.addresses().map(|address| address.to_string()).join(",");
        let url = format!("redis+sentinel://{}:secret@{hosts}/{SENTINEL_MASTER}", tenant.name);
        Self { nodes: Nodes::start(&url, tenant.config()).await, tenant, trio }
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.nodes.bus()
    }

    async fn break_links(&self) {
        self.tenant.break_links(&self.trio.servers).await;
    }

    async fn lose_store(&self) {
        self.tenant.lose_store(&self.trio.servers).await;
    }

    async fn set_available(&self, available: bool) {
        self.tenant.set_available(&self.trio.servers, available).await;
    }
}

tidings_core::bus_laws!(Fixture);

mod hub {
    use super::Fixture;

    tidings_core::hub_laws!(Fixture);
}
