//! A Redis Cluster of three primaries with a replica each.

use std::net::SocketAddr;

use crate::port::Port;
use crate::{Options, Redis, Reply, until};

/// Nodes take a silent one for dead after two seconds.
#[derive(Debug)]
pub struct Cluster {
    /// Three primaries, then the replica of each in the same order; failovers change who is what.
    pub nodes: Vec<Redis>,
    bus_ports: Vec<Port>,
}

impl Cluster {
    /// Starts all six and waits until every slot is served and every replica has a copy.
    pub async fn start(options: Options) -> Self {
        let (mut nodes, mut bus_ports) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let port = Port::reserve();
            let options = options.clone().set("cluster-enabled", "yes");
            let options = options.set("cluster-node-timeout", "2000");
            let options = options.set("cluster-port", &port.number().to_string());
            nodes.push(Redis::start(options).await);
            bus_ports.push(port);
        }
        let cluster = Self { nodes, bus_ports };
        cluster.meet().await;
        for (n, slots) in SLOTS.windows(2).enumerate() {
            let range = [slots[0], slots[1] - 1].map(|slot| slot.to_string());
            cluster.nodes[n].cli(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await.ok();
        }
        for n in 0..3 {
            let (replica, primary) = (&cluster.nodes[n + 3], cluster.id(n).await);
            // Refused until the replica has heard of its primary.
            until("the replica's primary", async || {
                replica.cli(&["CLUSTER", "REPLICATE", &primary]).await
                    == Reply::Text("OK".to_owned())
            })
            .await;
        }
        cluster.settled().await;
        cluster
    }

    async fn meet(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            // Without it, new nodes may choose the same epoch and settle that slowly.
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await.ok();
        }
        for (node, bus_port) in self.nodes.iter().zip(&self.bus_ports).skip(1) {
            let [port, bus] = [node.address().port(), bus_port.number()].map(|n| n.to_string());
            self.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await.ok();
        }
    }

    /// Waits until every node that runs sees every slot served, and every replica among them has a copy.
    pub async fn settled(&self) {
        for node in &self.nodes {
            until("the cluster to settle", async || {
                let Ok(Reply::Text(info)) = node.try_cli(&["CLUSTER", "INFO"]).await else {
                    // It is down, which the test knows.
                    return true;
                };
                let whole = info.contains("cluster_state:ok") && info.contains("cluster_size:3");
                whole && (node.is_primary().await || node.is_linked().await)
            })
            .await;
        }
    }

    /// Where the nodes listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> u16 {
        self.answering().await.cli(&["CLUSTER", "KEYSLOT", key]).await.int() as u16
    }

    /// Which node serves a slot, its place in [`nodes`](Self::nodes), as the nodes that answer see it.
    pub async fn owner(&self, slot: u16) -> usize {
        let ranges = self.answering().await.cli(&["CLUSTER", "SLOTS"]).await.list();
        for range in ranges.into_iter().map(Reply::list) {
            if (range[0].clone().int()..=range[1].clone().int()).contains(&slot.into()) {
                let port = range[2].clone().list()[1].clone().int();
                let is_it = |node: &Redis| i64::from(node.address().port()) == port;
                return self.nodes.iter().position(is_it).expect("it is one of ours");
            }
        }
        panic!("nobody serves slot {slot}");
    }

    /// Moves a slot with its keys to another primary, as a live resharding does.
    pub async fn move_slot(&self, slot: u16, to: usize) {
        let from = self.owner(slot).await;
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let (source_id, target_id) = (self.id(from).await, self.id(to).await);
        let slot = slot.to_string();
        let set = ["CLUSTER", "SETSLOT", &slot];
        target.cli(&[&set[..], &["IMPORTING", &source_id]].concat()).await.ok();
        source.cli(&[&set[..], &["MIGRATING", &target_id]].concat()).await.ok();
        let port = target.address().port().to_string();
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await.list();
            if keys.is_empty() {
                break;
            }
            let keys: Vec<_> = keys.into_iter().map(Reply::text).collect();
            let mut command =
                vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE", "KEYS"];
            command.extend(keys.iter().map(String::as_str));
            source.cli(&command).await.ok();
        }
        for node in [target, source].into_iter().chain(&self.nodes) {
            if node.is_primary().await {
                node.cli(&[&set[..], &["NODE", &target_id]].concat()).await.ok();
            }
        }
    }

    /// What the nodes call it.
    pub async fn id(&self, node: usize) -> String {
        self.nodes[node].cli(&["CLUSTER", "MYID"]).await.text()
    }

    /// A node that answers.
    async fn answering(&self) -> &Redis {
        for node in &self.nodes {
            let answer = tokio::time::timeout(ANSWER, node.try_cli(&["PING"])).await;
            if matches!(answer, Ok(Ok(Reply::Text(_)))) {
                return node;
            }
        }
        panic!("no node of the cluster answers");
    }
}

/// Where each primary's slots begin, and the end.
const SLOTS: [u16; 4] = [0, 5461, 10_923, 16_384];
/// How long a hanging node is waited for before another is asked.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(2);
