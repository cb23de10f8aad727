//! A primary, its replica, and three Sentinels that watch them.

use std::net::SocketAddr;

use crate::{Options, Redis, Reply, until};

/// Under which name the Sentinels know the primary.
pub const SENTINEL_MASTER: &str = "tidings";

/// Sentinels take a silent primary for dead after a second, and two of three must agree.
#[derive(Debug)]
pub struct SentinelTrio {
    /// The two servers; the first begins as the primary.
    pub servers: [Redis; 2],
    /// The three Sentinels.
    pub sentinels: [Redis; 3],
}

impl SentinelTrio {
    /// Starts all five and waits until they know each other.
    pub async fn start(options: Options) -> Self {
        let primary = Redis::start(options.clone()).await;
        let of = format!("127.0.0.1 {}", primary.address().port());
        let replica = Redis::start(options.set("replicaof", &of)).await;
        let lines = format!(
            "{}sentinel down-after-milliseconds {SENTINEL_MASTER} 1000\n\
             sentinel failover-timeout {SENTINEL_MASTER} 5000\n",
            monitor(&primary, 2)
        );
        let sentinel = || Redis::start_with(Options::default(), Some(lines.clone()));
        let sentinels = [sentinel().await, sentinel().await, sentinel().await];
        let trio = Self { servers: [primary, replica], sentinels };
        trio.settled().await;
        trio
    }

    /// Where the Sentinels listen.
    pub fn addresses(&self) -> [SocketAddr; 3] {
        [0, 1, 2].map(|n| self.sentinels[n].address())
    }

    /// What the first Sentinel that answers calls the primary: its place in [`servers`](Self::servers).
    pub async fn primary(&self) -> usize {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_MASTER];
        let Reply::List(address) = self.sentinels[0].cli(&ask).await.ok() else {
            panic!("the Sentinel knows no primary");
        };
        let port = address[1].clone().text();
        let is_it = |server: &Redis| server.address().port().to_string() == port;
        self.servers.iter().position(is_it).expect("it is one of ours")
    }

    /// Waits until the Sentinels have named this server the primary, and it says so itself.
    pub async fn promoted(&self, server: usize) {
        until("the promotion", async || {
            self.primary().await == server && self.servers[server].is_primary().await
        })
        .await;
    }

    /// Waits until a failover can succeed: all know each other, and the replica has a copy.
    pub async fn settled(&self) {
        for sentinel in &self.sentinels {
            until("the Sentinels to know each other", async || {
                let list = sentinel.cli(&["SENTINEL", "MASTER", SENTINEL_MASTER]).await.list();
                let texts: Vec<_> = list.into_iter().map(Reply::text).collect();
                let is = |name: &str, value: &str| texts.windows(2).any(|w| w == [name, value]);
                is("num-slaves", "1") && is("num-other-sentinels", "2")
            })
            .await;
        }
        // Asked each time: a failover may be under way.
        until("the replica's copy", async || {
            self.servers[1 - self.primary().await].is_linked().await
        })
        .await;
    }
}

impl Redis {
    /// Starts a Sentinel that takes a server for the primary, be it one or not, and never acts alone.
    pub async fn sentinel_of(server: &Self) -> Self {
        Self::start_with(Options::default(), Some(monitor(server, NEVER))).await
    }

    /// Makes a Sentinel take another server for the primary.
    pub async fn take_for_primary(&self, server: &Self) {
        self.cli(&["SENTINEL", "REMOVE", SENTINEL_MASTER]).await.ok();
        let port = server.address().port().to_string();
        let monitor = ["SENTINEL", "MONITOR", SENTINEL_MASTER, "127.0.0.1", &port];
        self.cli(&[&monitor[..], &[&NEVER.to_string()]].concat()).await.ok();
    }

    /// Whether it calls itself a primary.
    pub async fn is_primary(&self) -> bool {
        let role = self.try_cli(&["ROLE"]).await;
        matches!(role, Ok(Reply::List(parts)) if parts[0] == Reply::Text("master".to_owned()))
    }

    /// Whether it is a replica that has its primary's data and hears from it.
    pub async fn is_linked(&self) -> bool {
        // A Sentinel that demotes a server cuts its connections, also ours.
        let info = self.try_cli(&["INFO", "replication"]).await;
        matches!(info, Ok(Reply::Text(text)) if text.contains("master_link_status:up"))
    }
}

/// The line by which a Sentinel watches a server, with how many Sentinels must agree that it is gone.
fn monitor(server: &Redis, quorum: u32) -> String {
    format!("sentinel monitor {SENTINEL_MASTER} 127.0.0.1 {} {quorum}\n", server.address().port())
}

/// More Sentinels than any test has.
const NEVER: u32 = 100;
