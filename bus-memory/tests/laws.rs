//! The in-process bus keeps every law of a bus.

use std::sync::Arc;

use tidings_bus_memory::MemoryBus;
use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;

struct Fixture(MemoryBus);

impl BusFixture for Fixture {
    const HISTORY: bool = true;
    const PRESENCE: bool = true;

    async fn start() -> Self {
        Self(MemoryBus::default())
    }

    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.clone())
    }

    async fn break_links(&self) {
        self.0.cut_links();
    }

    async fn lose_store(&self) {
        self.0.flush();
    }
}

tidings_core::bus_laws!(Fixture);

/// It keeps them also when it keeps no history.
mod without_history {
    use super::*;

    struct Forgetful(Fixture);

    impl BusFixture for Forgetful {
        const HISTORY: bool = false;
        const PRESENCE: bool = true;

        async fn start() -> Self {
            Self(Fixture(MemoryBus::without_history()))
        }

        fn bus(&self) -> Arc<dyn Bus> {
            self.0.bus()
        }

        async fn break_links(&self) {
            self.0.break_links().await;
        }

        async fn lose_store(&self) {
            self.0.lose_store().await;
        }
    }

    tidings_core::bus_laws!(Forgetful);
}
