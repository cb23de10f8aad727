//! The scene of the laws of a hub, on the memory bus: what the tests beside try is of no bus, or needs a clock that they
//! move.

#![allow(dead_code, unused_imports, reason = "each test takes what it needs")]

use std::sync::Arc;

use tidings_bus_memory::MemoryBus;
use tidings_core::testing::hub_laws::scene;
use tidings_core::{Bus, Hub};

pub(crate) use tidings_core::testing::hub_laws::scene::*;

pub(crate) async fn hub(bus: &MemoryBus) -> Hub {
    scene::hub(&(Arc::new(bus.clone()) as Arc<dyn Bus>)).await
}
