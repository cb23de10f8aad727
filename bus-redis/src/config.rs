//! What may be set of a Redis bus beside its URL.

use std::fmt;
use std::time::Duration;

use tidings_core::MAX_PARTITIONS;

use crate::sabotage::Protection;

/// Everything of a Redis bus that is not in its URL. All nodes of a cluster need the same
/// [`prefix`](Self::prefix), [`partitions`](Self::partitions) and [`record_lifetime`](Self::record_lifetime).
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// What the names of all channels and keys begin with; `tidings`. Two buses on one Redis that
    /// differ in it never meet. Without braces.
    pub prefix: String,
    /// Within what time each call is answered; 5 s. Beyond it the answer is
    /// [`BusError::TimedOut`](tidings_core::BusError::TimedOut), and the connection is opened anew.
    pub deadline: Duration,
    /// How long opening a connection may take, TLS and login included; 3 s.
    pub connect_timeout: Duration,
    /// Between two end-to-end probes of a link; 5 s. A link of which two in a row do not come back ends.
    /// Zero switches the probe off: then a half-open connection is found only by the kernel.
    pub probe_interval: Duration,
    /// Bytes of deliveries that may wait for this node on one link; 64 MiB. Beyond it the link ends with
    /// [`BusError::Lagged`](tidings_core::BusError::Lagged).
    pub queue_bytes: usize,
    /// Bytes of publications that may wait for Redis, over all callers; 64 MiB. Each partition has an equal share, so
    /// that one that hangs has no other refused. Beyond the share a publication is refused at once with
    /// [`BusError::Unavailable`](tidings_core::BusError::Unavailable), unless nothing else waits.
    pub publish_bytes: usize,
    /// Units of order on a Redis Cluster, 1 to 64; 16. More spread better over many primaries; each costs a
    /// node one connection and a cursor some bytes. Elsewhere there is one per server.
    pub partitions: u16,
    /// How long Redis remembers the position of a topic after its last message; 24 h, and always at least
    /// ten times the age of what it keeps. A client that was away longer gets `gap`.
    pub record_lifetime: Duration,
    /// Takes a Redis whose `maxmemory-policy` is not `noeviction`; no. With one, history and presence can
    /// lose in silence what was evicted.
    pub allow_eviction: bool,
    /// Whether a restart of Redis loses nothing that it answered; not set. Then each server of `redis://` is asked, if it
    /// allows `CONFIG GET`: it loses nothing with `appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite
    /// no`. Any other that is restarted gets a new epoch, and all clients a `gap`. `?durable=1` and `?durable=0` in the
    /// URL go before it. It counts over a failover behind one address too, so set it to true only for a Redis that
    /// loses nothing then either. With Sentinels and in a cluster it cannot be true: a replica that takes over may lack
    /// the last of what was answered.
    pub durable: Option<bool>,
    /// Certificates in PEM that TLS trusts besides the system's; none.
    pub tls_ca: Option<Vec<u8>>,
    /// A protection that the bus is to lack, so that a test can prove that it is needed; none.
    #[cfg(feature = "sabotage")]
    pub without: Option<Protection>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            prefix: "tidings".to_owned(),
            deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(5),
            queue_bytes: 64 << 20,
            publish_bytes: 64 << 20,
            partitions: 16,
            record_lifetime: Duration::from_secs(24 * 3600),
            allow_eviction: false,
            durable: None,
            tls_ca: None,
            #[cfg(feature = "sabotage")]
            without: None,
        }
    }
}

impl RedisConfig {
    /// The protection that is taken away; never one in a normal build.
    pub(crate) fn without(&self) -> Option<Protection> {
        #[cfg(feature = "sabotage")]
        return self.without;
        #[cfg(not(feature = "sabotage"))]
        None
    }

    pub(crate) fn lacks(&self, protection: Protection) -> bool {
        self.without() == Some(protection)
    }

    /// What of it cannot be, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            return Err(
                "the prefix must be at least one character, none of them a brace".to_owned()
            );
        }
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(format!("partitions must be 1 to {MAX_PARTITIONS}"));
        }
        if self.deadline.is_zero() || self.connect_timeout.is_zero() {
            return Err("deadline and connect_timeout must not be zero".to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, deadline, connect_timeout, probe_interval, queue_bytes, .. } = self;
        let Self { publish_bytes, partitions, record_lifetime, allow_eviction, tls_ca, .. } = self;
        let Self { durable, .. } = self;
        f.debug_struct("RedisConfig")
            .field("prefix", prefix)
            .field("deadline", deadline)
            .field("connect_timeout", connect_timeout)
            .field("probe_interval", probe_interval)
            .field("queue_bytes", queue_bytes)
            .field("publish_bytes", publish_bytes)
            .field("partitions", partitions)
            .field("record_lifetime", record_lifetime)
            .field("allow_eviction", allow_eviction)
            .field("durable", durable)
            .field("tls_ca", &tls_ca.as_ref().map(Vec::len))
            .finish()
    }
}
