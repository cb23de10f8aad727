//! What a node holds, for people who look after it.
//!
//! Numbers are kept where they change, so that asking costs the same however much there is. Lists are made of a look at
//! every connection, a few at a time, and other tasks go between.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hub::Hub;
use super::pass::CHUNK;
use super::shard::Members;
use super::types::{Page, RoomInfo, Stats, UserInfo};
use crate::{RoomId, Scope, TenantId, Topic, UserId};

/// What is counted where it changes.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    users: AtomicUsize,
    rooms: AtomicUsize,
    /// Bytes that wait for clients.
    pub(super) queued: AtomicUsize,
    connections: Mutex<BTreeMap<&'static str, usize>>,
}

impl Counts {
    /// A topic has somebody, or will have.
    pub(super) fn opened(&self, topic: &Topic) {
        if let Some(count) = self.of(topic) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A topic has nobody any more.
    pub(super) fn closed(&self, topic: &Topic) {
        if let Some(count) = self.of(topic) {
            count.fetch_sub(1, Relaxed);
        }
    }

    fn of(&self, topic: &Topic) -> Option<&AtomicUsize> {
        match topic.scope {
            Scope::User(_) => Some(&self.users),
            Scope::Room(_) => Some(&self.rooms),
            Scope::Client(_) | Scope::Everyone => None,
        }
    }

    pub(super) fn connected(&self, transport: &'static str) {
        *self.connections().entry(transport).or_default() += 1;
    }

    pub(super) fn disconnected(&self, transport: &'static str) {
        self.connections().entry(transport).and_modify(|count| *count -= 1);
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// What this node holds now. Costs the same however much that is.
    pub fn stats(&self) -> Stats {
        let counts = &self.0.counts;
        Stats {
            connections: counts.connections().clone(),
            users: counts.users.load(Relaxed),
            rooms: counts.rooms.load(Relaxed),
            queued_bytes: counts.queued.load(Relaxed),
        }
    }

    /// All rooms of this node, sorted by tenant and name.
    pub async fn rooms(&self) -> Vec<RoomInfo> {
        self.list_rooms(&Page::default()).await
    }

    /// All users of this node, sorted by tenant and name.
    pub async fn users(&self) -> Vec<UserInfo> {
        self.list_users(&Page::default()).await
    }

    /// A page of the rooms of this node. It takes a look at every connection, while others come and go: of what changes
    /// meanwhile it may tell the state before or after.
    pub async fn list_rooms(&self, page: &Page<RoomId>) -> Vec<RoomInfo> {
        let mut found = BTreeMap::<_, (usize, HashSet<UserId>)>::new();
        self.walk(|Seen { tenant, user, rooms }| {
            for room in rooms {
                if let Some((connections, users)) = page.entry(&mut found, (tenant.clone(), room)) {
                    *connections += 1;
                    users.insert(user.clone());
                }
            }
        })
        .await;
        let info = |((tenant, room), (connections, users)): (_, (_, HashSet<_>))| RoomInfo {
            tenant,
            room,
            connections,
            users: users.len(),
        };
        found.into_iter().map(info).collect()
    }

    /// A page of the users of this node, as [`list_rooms`](Self::list_rooms) makes one.
    pub async fn list_users(&self, page: &Page<UserId>) -> Vec<UserInfo> {
        let mut found = BTreeMap::<_, (usize, HashSet<RoomId>)>::new();
        self.walk(|Seen { tenant, user, rooms }| {
            if let Some((connections, all)) = page.entry(&mut found, (tenant, user)) {
                *connections += 1;
                all.extend(rooms);
            }
        })
        .await;
        let info = |((tenant, user), (connections, rooms)): (_, (_, HashSet<_>))| UserInfo {
            tenant,
            user,
            connections,
            rooms: rooms.len(),
        };
        found.into_iter().map(info).collect()
    }

    /// Sees every connection, a few of a shard at a time.
    async fn walk(&self, mut see: impl FnMut(Seen)) {
        for shard in &self.0.shards {
            let mut next = Some(0);
            while let Some(first) = next {
                let seen = shard.ask(move |members| members.see(first)).await;
                let Some((seen, later)) = seen else { break };
                seen.into_iter().for_each(&mut see);
                next = later;
            }
        }
    }
}

/// A connection as lists see it.
pub(super) struct Seen {
    tenant: TenantId,
    user: UserId,
    rooms: Vec<RoomId>,
}

impl Members {
    /// The next few connections from a slot on, and the slot after them when there are more.
    pub(super) fn see(&self, first: u32) -> (Vec<Seen>, Option<u32>) {
        let all = self.router.slots();
        let end = all.min(first + CHUNK as u32);
        let seen = |slot| {
            let who = &self.router.at(slot)?.who;
            let rooms = self.router.topics_at(slot).filter_map(|topic| topic.as_room().cloned());
            let (tenant, user) = (who.tenant.clone(), who.user.clone());
            Some(Seen { tenant, user, rooms: rooms.collect() })
        };
        ((first..end).filter_map(seen).collect(), Some(end).filter(|&end| end < all))
    }
}

impl<N: Ord + Clone> Page<N> {
    /// The place of a name that may be on this page; it leaves the page when enough are before it.
    fn entry<'a, V: Default>(
        &self,
        found: &'a mut BTreeMap<(TenantId, N), V>,
        key: (TenantId, N),
    ) -> Option<&'a mut V> {
        let wrong = self.tenant.as_ref().is_some_and(|tenant| *tenant != key.0);
        let earlier = self.after.as_ref().is_some_and(|after| key <= *after);
        if wrong || earlier || self.limit == Some(0) {
            return None;
        }
        if Some(found.len()) == self.limit && !found.contains_key(&key) {
            if found.last_key_value().is_some_and(|(last, _)| key > *last) {
                return None;
            }
            found.pop_last();
        }
        Some(found.entry(key).or_default())
    }
}
