//! The Redis bus of Tidings: nodes on one Redis act as one. It keeps history, knows idempotency keys and presence.
//!
//! ```no_run
//! use tidings_bus_redis::{RedisBus, RedisConfig};
//! use tidings_core::{Bus, Message, Publication, RoomId, TenantId, Topic};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = RedisBus::connect("redis://127.0.0.1:6379", RedisConfig::default()).await?;
//! let lobby = Topic::room(TenantId::default(), RoomId::new("lobby")?);
//! bus.publish(vec![Publication::new(lobby, Message::of("news", &"hello")?)]).await;
//! # Ok(())
//! # }
//! ```
//!
//! URLs: `redis://host` (one Redis), `redis://a,b,c` (several that know nothing of each other),
//! `redis+sentinel://s1,s2,s3/NAME`, `redis+cluster://a,b,c`, each also as `rediss…`, and `redis+unix:///path`.
//! The README tells which to choose, what keys and channels there are, and how other languages publish.
//!
//! A node listens on one connection per partition, publishes on another and commands on a third; none is shared. It subscribes to
//! what it has listeners for and to nothing else. A link that breaks, hears nothing of its own probes, or is cut by
//! Redis ends, and core opens another; connections for commands come back by themselves.
//!
//! It refuses to guess: what Redis did not answer is [`TimedOut`](tidings_core::BusError::TimedOut), and a replica is
//! never taken for a primary, since every publication goes with a write that a replica refuses.

mod bus;
mod cluster;
mod config;
mod connection;
mod fault;
mod hash;
mod history;
mod link;
mod message;
mod partition;
mod pipe;
mod place;
mod presence;
mod probe;
mod publisher;
mod queue;
mod resp;
mod run;
mod sabotage;
mod script;
mod send;
mod server;
mod slots;
mod spawn;
mod spelling;
mod stats;
mod strays;
mod tls;
mod topology;
mod url;

pub use bus::{ConnectError, RedisBus};
pub use config::RedisConfig;
#[cfg(feature = "sabotage")]
pub use sabotage::Protection;
pub use stats::{PublishErrors, RedisStats, ServerStats};
