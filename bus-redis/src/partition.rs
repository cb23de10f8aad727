//! A unit of order: its server, its names, and what this node has seen of it.

use std::sync::{Arc, Mutex, PoisonError};

use tidings_core::Topic;

use crate::fault::Failure;
use crate::server::{Server, Session};
use crate::spawn::random;
use crate::spelling::{escape, spell};
use crate::topology::Topology;

/// A unit of order. All its keys and channels begin alike and, in a cluster, live in one slot.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) index: u16,
    /// `PREFIX:{TAG}:`
    root: String,
    topology: Arc<Topology>,
    seen: Mutex<Seen>,
    pub(crate) record_lifetime_ms: String,
}

/// The furthest that this node has seen of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    epoch: u64,
    clock: u64,
}

/// What each script that touches history is told first: `server`, `epoch`, `clock`, `new epoch`.
pub(crate) type Standing = [Vec<u8>; 4];

impl Partition {
    pub(crate) fn new(
        index: u16,
        prefix: &str,
        tag: &str,
        record_lifetime_ms: String,
        topology: Arc<Topology>,
    ) -> Self {
        let root = format!("{prefix}:{{{tag}}}:");
        Self { index, root, topology, seen: Mutex::default(), record_lifetime_ms }
    }

    /// The server that has this partition now.
    pub(crate) async fn server(&self) -> Result<Arc<Server>, Failure> {
        self.topology.server(self.index).await
    }

    /// Its server and the connection to it; fails at once while it is away.
    pub(crate) async fn session(&self) -> Result<(Arc<Server>, Session), Failure> {
        let server = self.server().await?;
        let session = server.session().await?;
        Ok((server, session))
    }

    /// The slot may have moved: look again before the next call.
    pub(crate) fn moved(&self) {
        self.topology.moved();
    }

    /// `PUBLISH`, or `SPUBLISH` in a cluster.
    pub(crate) fn publish_command(&self) -> &'static str {
        if self.topology.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// `SUBSCRIBE` and `UNSUBSCRIBE`, or those of a cluster.
    pub(crate) fn subscribe_commands(&self) -> (&'static str, &'static str) {
        if self.topology.is_cluster() {
            ("SSUBSCRIBE", "SUNSUBSCRIBE")
        } else {
            ("SUBSCRIBE", "UNSUBSCRIBE")
        }
    }

    pub(crate) fn channel(&self, topic: &Topic) -> String {
        self.key("", &spell(topic))
    }

    /// A name of this partition's.
    pub(crate) fn key(&self, kind: &str, rest: &str) -> String {
        [&self.root, kind, rest].concat()
    }

    /// The key of the partition's own hash.
    pub(crate) fn state_key(&self) -> String {
        self.key("clock", "")
    }

    pub(crate) fn samples_key(&self) -> String {
        self.key("samples", "")
    }

    pub(crate) fn record_key(&self, spelled: &str) -> String {
        self.key("record:", spelled)
    }

    pub(crate) fn stream_key(&self, spelled: &str) -> String {
        self.key("messages:", spelled)
    }

    pub(crate) fn receipt_key(&self, spelled: &str, idempotency_key: &str) -> String {
        let mut rest = format!("{spelled}:");
        escape(idempotency_key, &mut rest);
        self.key("receipt:", &rest)
    }

    /// What each script that touches history is told of this node's knowledge.
    pub(crate) fn standing(&self, session: &Session) -> Standing {
        let Seen { epoch, clock } = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = if epoch == 0 { String::new() } else { epoch.to_string() };
        let server = session.identity.as_bytes().to_vec();
        [
            server,
            epoch.into_bytes(),
            clock.to_string().into_bytes(),
            random().to_string().into_bytes(),
        ]
    }

    /// Remembers how far the partition is. Of another epoch only an answer of the store itself is believed.
    pub(crate) fn saw(&self, epoch: u64, clock: u64, store_says: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.epoch == epoch {
            seen.clock = seen.clock.max(clock);
        } else if store_says || seen.epoch == 0 {
            *seen = Seen { epoch, clock };
        }
    }
}
