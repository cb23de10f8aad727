//! What a bus has counted, for metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

/// Publications that were not accepted, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishErrors {
    /// Redis could not be reached, or too much was waiting already.
    pub away: u64,
    /// No answer came in time.
    pub timed_out: u64,
    /// `BUSY`: a script ran too long.
    pub busy: u64,
    /// `OOM`: Redis was at its `maxmemory`; messages without history still pass.
    pub out_of_memory: u64,
    /// `NOPERM`: the user lacks a right.
    pub no_permission: u64,
    /// `NOAUTH`, `WRONGPASS`: Redis did not take the credentials.
    pub no_auth: u64,
    /// `LOADING`: Redis was loading its data.
    pub loading: u64,
    /// `READONLY`: the server had become a replica.
    pub read_only: u64,
    /// `CLUSTERDOWN`: the cluster did not serve the slot.
    pub cluster_down: u64,
    /// `MASTERDOWN`: a replica had lost its primary.
    pub master_down: u64,
    /// `MISCONF`: Redis could not save its data.
    pub cannot_save: u64,
    /// `NOREPLICAS`: fewer replicas followed than `min-replicas-to-write`.
    pub no_replicas: u64,
    /// `MOVED`, `ASK`, `TRYAGAIN`: the slot moved and did not arrive within the deadline.
    pub moved: u64,
    /// Anything else.
    pub other: u64,
}

impl PublishErrors {
    /// Every count with the name of its field.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("away", self.away),
            ("timed_out", self.timed_out),
            ("busy", self.busy),
            ("out_of_memory", self.out_of_memory),
            ("no_permission", self.no_permission),
            ("no_auth", self.no_auth),
            ("loading", self.loading),
            ("read_only", self.read_only),
            ("cluster_down", self.cluster_down),
            ("master_down", self.master_down),
            ("cannot_save", self.cannot_save),
            ("no_replicas", self.no_replicas),
            ("moved", self.moved),
            ("other", self.other),
        ]
        .into_iter()
    }
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
    pub(crate) publish_bytes: AtomicUsize,
    publish_errors: [AtomicU64; Fault::Other as usize + 1],
}

impl Counters {
    pub(crate) fn publish_failed(&self, failure: &Failure) {
        bump(&self.publish_errors[failure.fault as usize]);
    }

    pub(crate) fn read(&self, servers: Vec<ServerStats>) -> RedisStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = |fault: Fault| get(&self.publish_errors[fault as usize]);
        RedisStats {
            servers,
            links: get(&self.links),
            links_ended: get(&self.links_ended),
            probes_missed: get(&self.probes_missed),
            reconnects: get(&self.reconnects),
            subscriptions: get(&self.subscriptions),
            publish_bytes: self.publish_bytes.load(Ordering::Relaxed) as u64,
            queue_bytes: get(&self.queue_bytes),
            malformed: get(&self.malformed),
            publish_errors: PublishErrors {
                away: of(Fault::Away),
                timed_out: of(Fault::TimedOut),
                busy: of(Fault::Busy),
                out_of_memory: of(Fault::OutOfMemory),
                no_permission: of(Fault::NoPermission),
                no_auth: of(Fault::NoAuth),
                loading: of(Fault::Loading),
                read_only: of(Fault::ReadOnly),
                cluster_down: of(Fault::ClusterDown),
                master_down: of(Fault::MasterDown),
                cannot_save: of(Fault::CannotSave),
                no_replicas: of(Fault::NoReplicas),
                moved: of(Fault::Moved),
                other: of(Fault::Other),
            },
        }
    }
}

/// Counts one more.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
