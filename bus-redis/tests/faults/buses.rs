//! The buses of two nodes, with and without their protections.

use std::sync::Arc;
use std::time::Duration;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::Bus;
use tidings_redis_testing::in_time;

/// As in production, with shorter times.
pub(crate) fn config() -> RedisConfig {
    let mut config = RedisConfig::default();
    config.deadline = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(2);
    config.probe_interval = Duration::from_secs(1);
    config
}

/// Two buses of the same configuration.
pub(crate) async fn two(url: &str, config: RedisConfig) -> [RedisBus; 2] {
    let connect = async || {
        let bus = in_time("a bus", RedisBus::connect(url, config.clone())).await;
        bus.expect("Redis is there")
    };
    [connect().await, connect().await]
}

/// As a hub takes them.
pub(crate) fn shared(buses: [RedisBus; 2]) -> [Arc<dyn Bus>; 2] {
    buses.map(|bus| Arc::new(bus) as Arc<dyn Bus>)
}

/// With every protection.
pub(crate) async fn nodes(url: &str) -> [Arc<dyn Bus>; 2] {
    shared(two(url, config()).await)
}

/// Links are not probed.
pub(crate) async fn trusting(url: &str) -> [Arc<dyn Bus>; 2] {
    let mut config = config();
    config.probe_interval = Duration::ZERO;
    shared(two(url, config).await)
}

/// Nothing has a deadline that a test would see, and links are not probed.
pub(crate) async fn patient(url: &str) -> [Arc<dyn Bus>; 2] {
    let mut config = config();
    config.probe_interval = Duration::ZERO;
    config.deadline = Duration::from_secs(3600);
    shared(two(url, config).await)
}
