//! Which server has which partition.

use std::sync::Arc;

use crate::connection::Opener;
use crate::fault::Failure;
use crate::place::Place;
use crate::server::Server;
use crate::stats::{Counters, ServerStats};
use crate::url::{Kind, Target};

/// Which server has which partition.
#[derive(Debug)]
pub(crate) enum Topology {
    /// One partition on each; they know nothing of each other.
    Servers(Vec<Arc<Server>>),
}

impl Topology {
    /// Starts to connect. Must be called within a runtime.
    pub(crate) fn start(
        target: &Target,
        opener: &Arc<Opener>,
        counters: &Arc<Counters>,
    ) -> Result<Self, String> {
        match &target.kind {
            Kind::Servers => {
                let start = |address: &crate::url::Address| {
                    Server::start(opener.clone(), counters.clone(), Place::Fixed(address.clone()))
                };
                Ok(Self::Servers(target.addresses.iter().map(start).collect()))
            }
            Kind::Sentinel { .. } => Err("redis+sentinel:// is not built yet".to_owned()),
            Kind::Cluster => Err("redis+cluster:// is not built yet".to_owned()),
        }
    }

    pub(crate) async fn server(&self, partition: u16) -> Result<Arc<Server>, Failure> {
        match self {
            Self::Servers(servers) => {
                let server = servers.get(usize::from(partition));
                server.cloned().ok_or_else(|| Failure::away("there is no such partition"))
            }
        }
    }

    /// A slot is not where it was thought to be.
    pub(crate) fn moved(&self) {}

    pub(crate) fn partitions(&self) -> u16 {
        match self {
            Self::Servers(servers) => u16::try_from(servers.len()).unwrap_or(u16::MAX),
        }
    }

    /// What all names of a partition have in braces.
    pub(crate) fn tag(&self, _partition: u16) -> String {
        match self {
            Self::Servers(_) => "0".to_owned(),
        }
    }

    /// The partition of a topic, by its spelling.
    pub(crate) fn partition(&self, _spelled: &str) -> u16 {
        0
    }

    pub(crate) fn is_cluster(&self) -> bool {
        match self {
            Self::Servers(_) => false,
        }
    }

    pub(crate) fn servers(&self) -> Vec<ServerStats> {
        match self {
            Self::Servers(servers) => servers
                .iter()
                .map(|server| ServerStats { address: server.name(), away: server.away() })
                .collect(),
        }
    }
}
