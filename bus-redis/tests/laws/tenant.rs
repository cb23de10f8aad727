//! A law's own part of servers, which it may share with other laws: a prefix and a user of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tidings_bus_redis::RedisConfig;
use tidings_redis_testing::{Redis, Reply};
use tokio::sync::Mutex;

/// Servers that live as long as some law uses them.
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    pub(crate) async fn get(&self, start: impl Future<Output = T>) -> Arc<T> {
        let mut shared = self.0.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(start.await);
        *shared = Arc::downgrade(&started);
        started
    }
}

/// A user with its own channels and keys.
pub(crate) struct Tenant {
    pub(crate) name: String,
}

impl Tenant {
    /// Makes the user on each server.
    pub(crate) async fn create(servers: &[Redis]) -> Self {
        let name = format!("law{:016x}", rand());
        // As the README tells, with keys and channels of its own.
        let readme = include_str!("../../README.md");
        let line = readme.lines().find_map(|line| line.trim().strip_prefix("ACL SETUSER tidings "));
        let rights =
            line.expect("the README tells the rights").replace("tidings:", &format!("{name}:"));
        let rights: Vec<_> = rights.split(' ').collect();
        for server in servers {
            server.cli(&[&["ACL", "SETUSER", &name], &rights[..]].concat()).await.ok();
        }
        Self { name }
    }

    pub(crate) fn config(&self) -> RedisConfig {
        let mut config = RedisConfig::default();
        config.prefix.clone_from(&self.name);
        config
    }

    pub(crate) async fn break_links(&self, servers: &[Redis]) {
        for server in servers {
            server.cli(&["CLIENT", "KILL", "TYPE", "pubsub", "USER", &self.name]).await.ok();
        }
    }

    /// Shuts it out and ends its connections, or lets it in again.
    pub(crate) async fn set_available(&self, servers: &[Redis], available: bool) {
        for server in servers {
            let switch = if available { "on" } else { "off" };
            server.cli(&["ACL", "SETUSER", &self.name, switch]).await.ok();
            if !available {
                server.cli(&["CLIENT", "KILL", "USER", &self.name]).await.ok();
            }
        }
    }

    /// Deletes what it has, each partition at once.
    pub(crate) async fn lose_store(&self, servers: &[Redis]) {
        for server in servers {
            if !server.is_primary().await {
                continue;
            }
            let keys = server.cli(&["KEYS", &format!("{}:*", self.name)]).await.list();
            let mut slots = BTreeMap::<String, Vec<String>>::new();
            for key in keys.into_iter().map(Reply::text) {
                let tag = key.split('}').next().unwrap_or_default().to_owned();
                slots.entry(tag).or_default().push(key);
            }
            for keys in slots.values() {
                let keys: Vec<_> = keys.iter().map(String::as_str).collect();
                server.cli(&[&["DEL"], &keys[..]].concat()).await.ok();
            }
        }
    }
}

/// Differs in each law of each run.
fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
