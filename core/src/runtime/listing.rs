//! What a node holds, for people who look after it.

use std::collections::{BTreeMap, HashSet};

use super::hub::Hub;
use super::types::{RoomInfo, Stats, UserInfo};
use crate::{RoomId, Scope, TenantId, Topic, UserId};

impl Hub {
    /// What this node holds now.
    pub async fn stats(&self) -> Stats {
        let mut stats = Stats {
            users: self.users().await.len(),
            rooms: self.rooms().await.len(),
            ..Stats::default()
        };
        for shard in &self.0.shards {
            let slots = shard.ask(|members| {
                let slots =
                    members.router.iter().map(|(_, s)| (s.transport, s.outbox.queued_bytes()));
                slots.collect::<Vec<_>>()
            });
            for (transport, bytes) in slots.await.unwrap_or_default() {
                *stats.connections.entry(transport).or_default() += 1;
                stats.queued_bytes += bytes;
            }
        }
        stats
    }

    /// The rooms of this node, sorted by tenant and name.
    pub async fn rooms(&self) -> Vec<RoomInfo> {
        let mut rooms: BTreeMap<(TenantId, RoomId), (usize, HashSet<UserId>)> = BTreeMap::new();
        for (topic, clients) in self.members().await {
            if let Scope::Room(room) = topic.scope {
                let entry = rooms.entry((topic.tenant, room)).or_default();
                entry.0 += clients.len();
                entry.1.extend(clients);
            }
        }
        let info = |((tenant, room), (connections, users)): (_, (_, HashSet<_>))| RoomInfo {
            tenant,
            room,
            connections,
            users: users.len(),
        };
        rooms.into_iter().map(info).collect()
    }

    /// The users of this node, sorted by tenant and name.
    pub async fn users(&self) -> Vec<UserInfo> {
        let mut users: BTreeMap<(TenantId, UserId), (usize, HashSet<RoomId>)> = BTreeMap::new();
        for (topic, clients) in self.members().await {
            match topic.scope {
                Scope::User(user) => {
                    users.entry((topic.tenant, user)).or_default().0 += clients.len()
                }
                Scope::Room(room) => clients.into_iter().for_each(|user| {
                    users.entry((topic.tenant.clone(), user)).or_default().1.insert(room.clone());
                }),
                Scope::Client(_) | Scope::Everyone => {}
            }
        }
        let info = |((tenant, user), (connections, rooms)): (_, (_, HashSet<_>))| UserInfo {
            tenant,
            user,
            connections,
            rooms: rooms.len(),
        };
        users.into_iter().map(info).collect()
    }

    /// The topics of this node, each with the user of each of its connections.
    async fn members(&self) -> Vec<(Topic, Vec<UserId>)> {
        let mut all = Vec::new();
        for shard in &self.0.shards {
            let topics = shard.ask(|members| {
                let router = &members.router;
                let users = |topic| {
                    router
                        .members(topic)
                        .filter_map(|s| router.at(s))
                        .map(|s| s.who.user.clone())
                        .collect()
                };
                router.topics().map(|topic| (topic.clone(), users(topic))).collect::<Vec<_>>()
            });
            all.extend(topics.await.unwrap_or_default());
        }
        all
    }
}
