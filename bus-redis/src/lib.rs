//! The Redis bus of Tidings.

mod config;
mod connection;
mod fault;
mod link;
mod message;
mod partition;
mod place;
mod probe;
mod publisher;
mod queue;
mod script;
mod send;
mod server;
mod spawn;
mod spelling;
mod stats;
mod tls;
mod topology;
mod url;

mod bus;

pub use bus::{ConnectError, RedisBus};
pub use config::RedisConfig;
pub use stats::{PublishErrors, RedisStats, ServerStats};
