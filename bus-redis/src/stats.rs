//! What a bus has counted, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::{Failure, Fault};

/// A reading of what a bus does and has done since it was connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Each server that this node commands, and whether it answers.
    pub servers: Vec<ServerStats>,
    /// Links that are up.
    pub links: u64,
    /// Links that have ended, for whatever reason.
    pub links_ended: u64,
    /// Probes that did not come back in time.
    pub probes_missed: u64,
    /// Times that the connections for commands were opened again after a loss.
    pub reconnects: u64,
    /// Topics that links are subscribed to.
    pub subscriptions: u64,
    /// Bytes of publications that wait for an answer.
    pub publish_bytes: u64,
    /// Bytes of deliveries that wait to be read by this node.
    pub queue_bytes: u64,
    /// What arrived in a channel or a history and was no message; it was dropped.
    pub malformed: u64,
    /// Publications that were not accepted, by reason.
    pub publish_errors: PublishErrors,
}

/// A server that this node commands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Where it is, without credentials.
    pub address: String,
    /// `None` while it answers; otherwise why it does not.
    pub away: Option<String>,
}

macro_rules! publish_errors {
    ($($(#[$doc:meta])* $name:ident = $fault:ident;)*) => {
        /// Publications that were not accepted, by reason.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct PublishErrors {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl PublishErrors {
            fn read(of: impl Fn(Fault) -> u64) -> Self {
                Self { $($name: of(Fault::$fault),)* }
            }

            /// Every count with the name of its field.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

publish_errors! {
    /// Redis could not be reached, or too much was waiting already.
    away = Away;
    /// No answer came in time.
    timed_out = TimedOut;
    /// `BUSY`: a script ran too long.
    busy = Busy;
    /// `OOM`: Redis was at its `maxmemory`; messages without history still pass.
    out_of_memory = OutOfMemory;
    /// `NOPERM`: the user lacks a right.
    no_permission = NoPermission;
    /// `NOAUTH`, `WRONGPASS`: Redis did not take the credentials.
    no_auth = NoAuth;
    /// `LOADING`: Redis was loading its data.
    loading = Loading;
    /// `READONLY`: the server had become a replica.
    read_only = ReadOnly;
    /// `CLUSTERDOWN`: the cluster did not serve the slot.
    cluster_down = ClusterDown;
    /// `MASTERDOWN`: a replica had lost its primary.
    master_down = MasterDown;
    /// `MISCONF`: Redis could not save its data.
    cannot_save = CannotSave;
    /// `NOREPLICAS`: fewer replicas followed than `min-replicas-to-write`.
    no_replicas = NoReplicas;
    /// `MOVED`, `ASK`, `TRYAGAIN`: the slot moved and did not arrive within the deadline.
    moved = Moved;
    /// Anything else.
    other = Other;
}

/// The counters behind [`RedisStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) links: AtomicU64,
    pub(crate) links_ended: AtomicU64,
    pub(crate) probes_missed: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) queue_bytes: AtomicU64,
    pub(crate) malformed: AtomicU64,
    publish_errors: [AtomicU64; Fault::Other as usize + 1],
}

impl Counters {
    pub(crate) fn publish_failed(&self, failure: &Failure) {
        bump(&self.publish_errors[failure.fault as usize]);
    }

    pub(crate) fn read(&self, servers: Vec<ServerStats>, publish_bytes: u64) -> RedisStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = |fault: Fault| get(&self.publish_errors[fault as usize]);
        RedisStats {
            servers,
            links: get(&self.links),
            links_ended: get(&self.links_ended),
            probes_missed: get(&self.probes_missed),
            reconnects: get(&self.reconnects),
            subscriptions: get(&self.subscriptions),
            publish_bytes,
            queue_bytes: get(&self.queue_bytes),
            malformed: get(&self.malformed),
            publish_errors: PublishErrors::read(of),
        }
    }
}

/// Counts one more.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
