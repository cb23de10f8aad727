//! Which server has which partition.

use std::sync::Arc;

use tidings_core::MAX_PARTITIONS;

use crate::cluster::Cluster;
use crate::connection::Opener;
use crate::fault::Failure;
use crate::hash::{choose, fnv1a, tag};
use crate::place::Place;
use crate::server::Server;
use crate::stats::{Counters, ServerStats};
use crate::url::{Kind, Target};

/// Which server has which partition.
#[derive(Debug)]
pub(crate) enum Topology {
    /// One partition on each; they know nothing of each other. With the hash of each one's name.
    Servers(Vec<(u64, Arc<Server>)>),
    /// Several partitions, each on the node that has its slot. With the hash of each one's name, and its tag.
    Cluster(Vec<(u64, String)>, Cluster),
}

impl Topology {
    /// Starts to connect. Must be called within a runtime.
    pub(crate) fn start(
        target: Target,
        opener: &Arc<Opener>,
        counters: &Arc<Counters>,
    ) -> Result<Self, String> {
        if opener.config.durable == Some(true) && target.kind != Kind::Servers {
            return Err("durable cannot be true with Sentinels or in a cluster: a replica that takes over may lack the \
                        last of what was answered"
                .to_owned());
        }
        let start = |place| Server::start(opener.clone(), counters.clone(), place);
        let mut addresses = target.addresses;
        match target.kind {
            Kind::Servers => {
                // The order in which a node's URL names them must not matter.
                addresses.sort_unstable();
                if let Some(twice) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(format!("the URL names {} twice", twice[0]));
                }
                if addresses.len() > usize::from(MAX_PARTITIONS) {
                    let count = addresses.len();
                    return Err(format!("the URL names {count} servers, at most {MAX_PARTITIONS}"));
                }
                let servers = addresses.into_iter();
                let server = |address| (fnv1a(&format!("{address}")), start(Place::Fixed(address)));
                Ok(Self::Servers(servers.map(server).collect()))
            }
            Kind::Sentinel { master, login } => {
                let place = Place::Sentinels { addresses, master, login };
                Ok(Self::Servers(vec![(0, start(place))]))
            }
            Kind::Cluster => {
                let count = opener.config.partitions;
                let names = (0..count).map(|n| (fnv1a(&n.to_string()), tag(n, count)));
                let cluster = Cluster::start(addresses, opener.clone(), counters.clone());
                Ok(Self::Cluster(names.collect(), cluster))
            }
        }
    }

    pub(crate) async fn server(&self, partition: u16) -> Result<Arc<Server>, Failure> {
        match self {
            Self::Servers(servers) => {
                let server = servers.get(usize::from(partition)).map(|(_, server)| server.clone());
                server.ok_or_else(|| Failure::away("there is no such partition"))
            }
            Self::Cluster(_, cluster) => cluster.owner(self.tag(partition)).await,
        }
    }

    /// A slot is not where it was thought to be.
    pub(crate) fn moved(&self) {
        match self {
            Self::Servers(_) => {}
            Self::Cluster(_, cluster) => cluster.refresh(),
        }
    }

    pub(crate) fn partitions(&self) -> u16 {
        let count = match self {
            Self::Servers(servers) => servers.len(),
            Self::Cluster(names, _) => names.len(),
        };
        u16::try_from(count).unwrap_or(u16::MAX)
    }

    /// What all names of a partition have in braces.
    pub(crate) fn tag(&self, partition: u16) -> &str {
        match self {
            Self::Servers(_) => "0",
            Self::Cluster(names, _) => {
                names.get(usize::from(partition)).map_or("", |(_, tag)| tag.as_str())
            }
        }
    }

    /// The partition of a topic, by its spelling.
    pub(crate) fn partition(&self, spelled: &str) -> u16 {
        let place = match self {
            Self::Servers(servers) => choose(spelled, servers.iter().map(|(name, _)| *name)),
            Self::Cluster(names, _) => choose(spelled, names.iter().map(|(name, _)| *name)),
        };
        u16::try_from(place).unwrap_or(0)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(..))
    }

    pub(crate) fn servers(&self) -> Vec<ServerStats> {
        let servers = match self {
            Self::Servers(servers) => servers.iter().map(|(_, server)| server.clone()).collect(),
            Self::Cluster(_, cluster) => cluster.servers(),
        };
        let stats =
            |server: Arc<Server>| ServerStats { address: server.name(), away: server.away() };
        servers.into_iter().map(stats).collect()
    }
}
