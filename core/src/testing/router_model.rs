//! Any number of routers answers as one map of sets does: the model, for proptest and fuzzers alike.
//!
//! ```
//! use tidings_core::testing::router_model::{Op, check};
//!
//! let join = Op::Join { connection: 0, topic: 3 };
//! check(2, [Op::Attach { shard: 0 }, Op::Attach { shard: 1 }, join, Op::Detach { connection: 0 }]);
//! ```

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::machines::{Change, ConnectionKey, Router};
use crate::{RoomId, TenantId, Topic, UserId};

/// What is done to routers. Each number counts modulo what there is.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Op {
    /// A connection comes to a shard.
    Attach { shard: usize },
    /// It goes; it may have gone before.
    Detach { connection: usize },
    /// It comes into a topic, also when it has gone or is in it.
    Join { connection: usize, topic: usize },
    /// It leaves a topic, also one that it is not in.
    Leave { connection: usize, topic: usize },
}

/// Any operation, with a taste for joins.
pub fn op() -> impl Strategy<Value = Op> {
    let (connection, topic) = (0..40_usize, 0..TOPICS);
    prop_oneof![
        2 => (0..4_usize).prop_map(|shard| Op::Attach { shard }),
        1 => connection.clone().prop_map(|connection| Op::Detach { connection }),
        5 => (connection.clone(), topic.clone())
            .prop_map(|(connection, topic)| Op::Join { connection, topic }),
        3 => (connection, topic).prop_map(|(connection, topic)| Op::Leave { connection, topic }),
    ]
}

/// Plays a script on so many routers and compares after each operation.
///
/// # Panics
/// When the routers do not answer as a map of sets does.
pub fn check(shards: usize, script: impl IntoIterator<Item = Op>) {
    let mut world = World::new(shards);
    for op in script {
        world.run(op);
        world.check();
    }
    world.end();
}

#[derive(Debug)]
struct Connection {
    shard: usize,
    key: ConnectionKey,
    alive: bool,
}

/// Routers, and what they should know. A connection's value is its number.
#[derive(Debug)]
pub struct World {
    shards: Vec<Router<usize>>,
    connections: Vec<Connection>,
    /// Never empty sets.
    members: BTreeMap<Topic, BTreeSet<usize>>,
}

impl World {
    /// So many empty routers; at least one.
    pub fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Router::default()).collect();
        Self { shards, connections: Vec::new(), members: BTreeMap::new() }
    }

    /// Does one operation, to the routers and to the map of sets.
    ///
    /// # Panics
    /// When they do not answer the same.
    pub fn run(&mut self, op: Op) {
        let count = self.connections.len();
        match op {
            Op::Attach { shard } => {
                let shard = shard % self.shards.len();
                let key = self.shards[shard].attach(count);
                let reused = self.connections.iter().any(|c| c.shard == shard && c.key == key);
                assert!(!reused, "a key names one connection for ever");
                self.connections.push(Connection { shard, key, alive: true });
            }
            _ if count == 0 => {}
            Op::Detach { connection } => self.detach(connection % count),
            Op::Join { connection, topic: n } => self.join(connection % count, &topic(n)),
            Op::Leave { connection, topic: n } => self.leave(connection % count, &topic(n)),
        }
    }

    /// Detaches who is left; then nobody is in anything.
    ///
    /// # Panics
    /// When somebody is.
    pub fn end(mut self) {
        for number in 0..self.connections.len() {
            self.detach(number);
        }
        self.check();
        assert!(self.members.is_empty() && self.shards.iter().all(Router::is_empty));
    }

    fn detach(&mut self, number: usize) {
        let Connection { shard, key, alive } = self.connections[number];
        let answer = self.shards[shard].detach(key);
        assert_eq!(answer.is_some(), alive);
        let Some((value, left)) = answer else { return };
        assert_eq!(value, number);
        assert_eq!(left.len(), self.topics_of(number).len());
        for (topic, change) in left {
            assert_ne!(change, Change::None);
            assert_eq!(change, self.model_leave(number, &topic));
        }
        assert!(self.topics_of(number).is_empty());
        self.connections[number].alive = false;
    }

    fn join(&mut self, number: usize, topic: &Topic) {
        let Connection { shard, key, alive } = self.connections[number];
        let expected = match self.here(shard, topic) {
            _ if !alive => Change::None,
            here if here.contains(&number) => Change::None,
            here if here.is_empty() => Change::Opened,
            _ => Change::Joined,
        };
        if alive {
            self.members.entry(topic.clone()).or_default().insert(number);
        }
        assert_eq!(self.shards[shard].join(key, topic), expected);
    }

    fn leave(&mut self, number: usize, topic: &Topic) {
        let Connection { shard, key, .. } = self.connections[number];
        let expected = self.model_leave(number, topic);
        assert_eq!(self.shards[shard].leave(key, topic), expected);
    }

    fn model_leave(&mut self, number: usize, topic: &Topic) -> Change {
        let shard = self.connections[number].shard;
        let Some(members) = self.members.get_mut(topic) else { return Change::None };
        if !members.remove(&number) {
            return Change::None;
        }
        if members.is_empty() {
            self.members.remove(topic);
        }
        if self.here(shard, topic).is_empty() { Change::Closed } else { Change::Left }
    }

    /// The topic's members of one shard, as they should be.
    fn here(&self, shard: usize, topic: &Topic) -> BTreeSet<usize> {
        let members = self.members.get(topic).into_iter().flatten().copied();
        members.filter(|&number| self.connections[number].shard == shard).collect()
    }

    fn topics_of(&self, number: usize) -> BTreeSet<&Topic> {
        let of = self.members.iter().filter(|(_, members)| members.contains(&number));
        of.map(|(topic, _)| topic).collect()
    }

    /// Compares all that the routers know.
    ///
    /// # Panics
    /// When it is not what the map of sets knows.
    pub fn check(&self) {
        let topics: Vec<_> = (0..TOPICS).map(topic).collect();
        for (shard, router) in self.shards.iter().enumerate() {
            let mut open = BTreeSet::new();
            for topic in &topics {
                let (here, before) = (self.here(shard, topic), router.looked_at());
                let slots = router.members(topic);
                assert_eq!(slots.len(), here.len());
                let known = slots.map(|slot| *router.at(slot).expect("a member is a connection"));
                assert_eq!(known.collect::<BTreeSet<_>>(), here);
                assert_eq!(router.looked_at() - before, here.len(), "only members are looked at");
                for slot in router.members(topic) {
                    assert!(slot < router.slots());
                    assert!(router.topics_at(slot).any(|other| other == topic));
                    let &number = router.at(slot).expect("a member is a connection");
                    assert_eq!(router.topics_at(slot).count(), self.topics_of(number).len());
                }
                if !here.is_empty() {
                    open.insert(topic);
                }
            }
            assert_eq!(router.topics().count(), open.len(), "empty topics vanish");
            assert_eq!(router.topics().collect::<BTreeSet<_>>(), open);
            let alive = self.connections.iter().filter(|c| c.alive && c.shard == shard).count();
            assert_eq!((router.len(), router.is_empty()), (alive, alive == 0));
            let listed = router.iter().map(|(key, &number)| {
                assert_eq!(self.connections[number].key, key);
                number
            });
            assert_eq!(listed.collect::<BTreeSet<_>>().len(), alive);
        }
        for (number, &Connection { shard, key, alive }) in self.connections.iter().enumerate() {
            let router = &self.shards[shard];
            assert_eq!(router.get(key).copied(), alive.then_some(number));
            let expected = self.topics_of(number);
            assert_eq!(router.topics_of(key).count(), expected.len());
            assert_eq!(router.topics_of(key).collect::<BTreeSet<_>>(), expected);
            for topic in &topics {
                assert_eq!(router.is_member(key, topic), expected.contains(topic));
            }
        }
    }
}

/// Topics whose names are the same in several scopes and tenants.
fn topic(n: usize) -> Topic {
    let n = n % TOPICS;
    let tenant = match n % 2 {
        0 => TenantId::default(),
        _ => TenantId::new("a").expect("it is a name"),
    };
    let Some(name) = ["a", "b", "*"].get(n / 4) else { return Topic::everyone(tenant) };
    match n / 2 % 2 {
        0 => Topic::room(tenant, RoomId::new(*name).expect("it is a name")),
        _ => Topic::user(tenant, UserId::new(*name).expect("it is a name")),
    }
}

/// How many topics there are: three names of rooms and users, and everyone, of two tenants.
const TOPICS: usize = 14;
