//! The in-process bus keeps every law of a bus, and hubs on it those of a hub.

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

    async fn set_available(&self, available: bool) {
        self.0.set_available(available);
    }
}

tidings_core::bus_laws!(Fixture);

/// Hubs on it keep every law of a hub.
mod hub {
    use super::Fixture;

    tidings_core::hub_laws!(Fixture);
}

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

        async fn set_available(&self, available: bool) {
            self.0.set_available(available).await;
        }
    }

    tidings_core::bus_laws!(Forgetful);

    /// A hub on it tells a lost link as a gap.
    #[test]
    fn a_cut_bus_that_keeps_nothing_is_told_as_a_gap_and_goes_on() {
        use tidings_core::testing::{bus_laws, hub_laws::connections};

        bus_laws::run(connections::a_cut_bus_that_keeps_nothing_is_told_as_a_gap_and_goes_on::<
            Forgetful,
        >());
    }
}
