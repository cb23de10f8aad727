//! Any number of routers answers as one map of sets does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tidings_core::{Change, ConnectionKey, RoomId, Router, TenantId, Topic, UserId};

#[derive(Debug, Clone)]
enum Op {
    Attach { shard: usize },
    Detach { connection: usize },
    Join { connection: usize, topic: usize },
    Leave { connection: usize, topic: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let (connection, topic) = (0..40_usize, 0..6_usize);
    prop_oneof![
        2 => (0..4_usize).prop_map(|shard| Op::Attach { shard }),
        1 => connection.clone().prop_map(|connection| Op::Detach { connection }),
        5 => (connection.clone(), topic.clone())
            .prop_map(|(connection, topic)| Op::Join { connection, topic }),
        3 => (connection, topic).prop_map(|(connection, topic)| Op::Leave { connection, topic }),
    ]
}

/// Three names, each of a room and of a user.
fn topic(n: usize) -> Topic {
    let name = ["a", "b", "*"][n / 2];
    let tenant = TenantId::default();
    match n % 2 {
        0 => Topic::room(tenant, RoomId::new(name).expect("it is a name")),
        _ => Topic::user(tenant, UserId::new(name).expect("it is a name")),
    }
}

#[derive(Debug)]
struct Connection {
    shard: usize,
    key: ConnectionKey,
    alive: bool,
}

/// The routers, and what they should know. A connection's value is its number.
#[derive(Debug)]
struct World {
    shards: Vec<Router<usize>>,
    connections: Vec<Connection>,
    /// Never empty sets.
    members: BTreeMap<Topic, BTreeSet<usize>>,
}

impl World {
    fn new(shards: usize) -> Self {
        let shards = (0..shards).map(|_| Router::default()).collect();
        Self { shards, connections: Vec::new(), members: BTreeMap::new() }
    }

    fn run(&mut self, op: &Op) {
        let count = self.connections.len();
        match *op {
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

    fn topics_of(&self, number: usize) -> BTreeSet<Topic> {
        let of = self.members.iter().filter(|(_, members)| members.contains(&number));
        of.map(|(topic, _)| topic.clone()).collect()
    }

    fn check(&self) {
        for (shard, router) in self.shards.iter().enumerate() {
            let mut open = BTreeSet::new();
            for topic in (0..6).map(topic) {
                let here = self.here(shard, &topic);
                let slots = router.members(&topic);
                assert_eq!(slots.len(), here.len());
                let known = slots.map(|slot| *router.at(slot).expect("a member is a connection"));
                assert_eq!(known.collect::<BTreeSet<_>>(), here);
                if !here.is_empty() {
                    open.insert(topic);
                }
            }
            assert_eq!(router.topics().count(), open.len(), "empty topics vanish");
            assert_eq!(router.topics().cloned().collect::<BTreeSet<_>>(), open);
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
            assert_eq!(router.topics_of(key).cloned().collect::<BTreeSet<_>>(), expected);
            for topic in (0..6).map(topic) {
                assert_eq!(router.is_member(key, &topic), expected.contains(&topic));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn routers_agree_with_a_map_of_sets(shards in 1..=4_usize, script in vec(op(), 0..120)) {
        let mut world = World::new(shards);
        for op in &script {
            world.run(op);
            world.check();
        }
        for number in 0..world.connections.len() {
            world.detach(number);
        }
        world.check();
        prop_assert!(world.members.is_empty());
        prop_assert!(world.shards.iter().all(Router::is_empty));
    }
}
