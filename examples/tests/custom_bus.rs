//! The bus of the example keeps every law of a bus.

use std::sync::Arc;

use tidings_core::Bus;
use tidings_core::testing::bus_laws::BusFixture;

#[expect(dead_code, reason = "the example's own `main` is run by `examples.rs`")]
#[path = "../examples/custom_bus.rs"]
mod custom_bus;

use custom_bus::ChannelBus;

struct Fixture(ChannelBus);

impl BusFixture for Fixture {
    const HISTORY: bool = false;
    const PRESENCE: bool = false;

    async fn start() -> Self {
        Self(ChannelBus::default())
    }

    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.clone())
    }

    async fn break_links(&self) {
        self.0.set_available(true);
    }

    async fn lose_store(&self) {}

    async fn set_available(&self, available: bool) {
        self.0.set_available(available);
    }
}

tidings_core::bus_laws!(Fixture);
