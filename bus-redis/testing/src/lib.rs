//! Real Redis servers for tests, each private to the test that starts it, and a proxy that breaks connections.
//!
//! A server runs `redis-server` from the `PATH` on loopback, in a temporary folder of its own, and is killed when its
//! handle is dropped, also when the test panics. Nothing here knows the bus: it is usable from the tests of any crate.
//! What goes wrong in it panics, as a test should; it is no library for programs.
//!
//! ```no_run
//! use tidings_redis_testing::{Options, Redis};
//!
//! # async fn test() {
//! let mut redis = Redis::start(Options::default()).await;
//! redis.cli(&["SET", "key", "value"]).await.ok();
//! redis.kill9();
//! redis.restart().await;
//! assert!(redis.cli(&["GET", "key"]).await.is_nil());
//! # }
//! ```

#![expect(clippy::disallowed_methods, reason = "tests wait, and a proxy has tasks")]

mod cluster;
mod port;
mod process;
mod proxy;
mod redis;
mod reply;
mod sentinel;
mod tls;
mod wait;

pub use cluster::Cluster;
pub use proxy::{Proxy, Traffic};
pub use redis::{Options, Redis};
pub use reply::Reply;
pub use sentinel::{SENTINEL_MASTER, SentinelTrio};
pub use tls::Certificates;
pub use wait::{PATIENCE, in_time, tell, until};
