//! A Redis Cluster as this node sees it: which node has which slot, asked again whenever that proves wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::connection::Opener;
use crate::fault::{Failure, Fault};
use crate::hash::slot;
use crate::place::Place;
use crate::sabotage::Protection;
use crate::server::Server;
use crate::slots::Slots;
use crate::spawn::Task;
use crate::stats::Counters;
use crate::url::Address;

/// The nodes of a cluster that own something of ours.
#[derive(Debug)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    _refresher: Task,
}

#[derive(Debug)]
struct Shared {
    seeds: Vec<Address>,
    opener: Arc<Opener>,
    counters: Arc<Counters>,
    /// `None` until it has been asked for.
    map: watch::Sender<Option<Result<Arc<Slots>, Failure>>>,
    servers: Mutex<BTreeMap<Address, Arc<Server>>>,
    stale: Notify,
}

impl Cluster {
    pub(crate) fn start(seeds: Vec<Address>, opener: Arc<Opener>, counters: Arc<Counters>) -> Self {
        let shared = Arc::new(Shared {
            seeds,
            opener,
            counters,
            map: watch::Sender::new(None),
            servers: Mutex::default(),
            stale: Notify::new(),
        });
        Self { _refresher: Task::spawn(keep_fresh(shared.clone())), shared }
    }

    /// The server that has a tag's slot. While it is away the cluster is asked again.
    pub(crate) async fn owner(&self, tag: &str) -> Result<Arc<Server>, Failure> {
        let mut map = self.shared.map.subscribe();
        let asked =
            timeout(self.shared.opener.config.deadline, map.wait_for(Option::is_some)).await;
        let slots = asked.ok().and_then(|map| map.ok()?.clone());
        let slots =
            slots.unwrap_or_else(|| Err(Failure::away("no node of the cluster tells its slots")));
        let slots = slots.inspect_err(|_| self.refresh())?;
        let Some(address) = slots.owner(slot(tag)) else {
            self.refresh();
            return Err(Failure::told("CLUSTERDOWN nobody serves a slot of this bus"));
        };
        let server = self.shared.server(address);
        if server.away().is_some() {
            self.refresh();
        }
        Ok(server)
    }

    /// Asks for the slots again, soon.
    pub(crate) fn refresh(&self) {
        self.shared.stale.notify_one();
    }

    pub(crate) fn servers(&self) -> Vec<Arc<Server>> {
        self.shared.servers().values().cloned().collect()
    }
}

impl Shared {
    fn server(&self, address: &Address) -> Arc<Server> {
        let start = || {
            let place = Place::Node(address.clone());
            Server::start(self.opener.clone(), self.counters.clone(), place)
        };
        self.servers().entry(address.clone()).or_insert_with(start).clone()
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<Address, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all nodes that answer soon say together: of two claims to a slot the younger is true, and each knows best
    /// what it has itself.
    async fn ask(&self) -> Result<Slots, Failure> {
        let mut addresses = self.seeds.clone();
        if let Some(Ok(known)) = &*self.map.borrow() {
            addresses.extend(known.nodes().cloned());
        }
        addresses.sort_unstable();
        addresses.dedup();
        let mut asked: FuturesUnordered<_> =
            addresses.iter().map(|address| self.ask_one(address)).collect();
        let mut outcome = Err(Failure::away("no node of the cluster answers"));
        while outcome.is_err() {
            match asked.next().await {
                Some(Ok(slots)) => outcome = Ok(slots),
                Some(Err(failure)) => outcome = Err(failure),
                None => return outcome,
            }
        }
        let others = async {
            while let Some(other) = asked.next().await {
                if let (Ok(slots), Ok(other)) = (&mut outcome, other) {
                    slots.merge(other);
                }
            }
        };
        let _ = timeout(LATE, others).await;
        outcome
    }

    async fn ask_one(&self, address: &Address) -> Result<Slots, Failure> {
        let mut opened = self.opener.open(address, None).await?;
        let answer = opened.redis.send_packed_command(cmd("CLUSTER").arg("NODES")).await;
        let text = match answer.and_then(Value::extract_error)? {
            Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
            Value::VerbatimString { text, .. } => text,
            _ => return Err(Failure::new(Fault::Other, format!("{address} is in no cluster"))),
        };
        Ok(Slots::read(&text, address, self.opener.tls.is_some()))
    }
}

/// Asks at once, and again whenever somebody found that the answer is wrong.
async fn keep_fresh(shared: Arc<Shared>) {
    loop {
        match shared.ask().await {
            Ok(slots) => {
                // Who owns nothing any more is commanded no more.
                shared.servers().retain(|address, _| slots.owns(address));
                let _ = shared.map.send_replace(Some(Ok(Arc::new(slots))));
            }
            Err(failure) => {
                shared.map.send_if_modified(|map| {
                    let unknown = !matches!(map, Some(Ok(_)));
                    if unknown {
                        *map = Some(Err(failure));
                    }
                    unknown
                });
            }
        }
        if shared.opener.config.lacks(Protection::Refresh) {
            return;
        }
        sleep(PAUSE).await;
        shared.stale.notified().await;
    }
}

/// How long other nodes are waited for when one has answered.
const LATE: Duration = Duration::from_millis(200);
/// The least time between two questions.
const PAUSE: Duration = Duration::from_millis(500);
