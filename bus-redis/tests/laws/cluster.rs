//! A Redis Cluster.

use std::sync::Arc;

use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;
use tidings_redis_testing::{Cluster, Options};

use crate::Nodes;
use crate::tenant::{Shared, Tenant};

static CLUSTER: Shared<Cluster> = Shared::new();

struct Fixture {
    nodes: Nodes,
    tenant: Tenant,
    cluster: Arc<Cluster>,
}

impl BusFixture for Fixture {
    const HISTORY: bool = true;
    const PRESENCE: bool = true;

    async fn start() -> Self {
        let cluster = CLUSTER.get(Cluster::start(Options::default())).await;
        let tenant = Tenant::create(&cluster.nodes).await;
        let hosts: Vec<_> = cluster.addresses().iter().map(ToString::to_string).collect();
        let url = format!("redis+cluster://{}:secret@{}", tenant.name, hosts.join(","));
        Self { nodes: Nodes::start(&url, tenant.config()).await, tenant, cluster }
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.nodes.bus()
    }

    async fn break_links(&self) {
        self.tenant.break_links(&self.cluster.nodes).await;
    }

    async fn lose_store(&self) {
        self.tenant.lose_store(&self.cluster.nodes).await;
    }

    async fn set_available(&self, available: bool) {
        self.tenant.set_available(&self.cluster.nodes, available).await;
    }
}

tidings_core::bus_laws!(Fixture);

mod hub {
    use super::Fixture;

    tidings_core::hub_laws!(Fixture);
}
