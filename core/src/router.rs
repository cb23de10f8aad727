//! Who gets what: the one place where membership is kept.
//!
//! A router knows the connections of one shard by their slots. It never awaits, locks or sends; the
//! shard asks it for the members of a topic and does the rest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::Topic;

/// The connections of a shard and the topics they are in. `T` is what the shard keeps per connection.
#[derive(Debug)]
pub struct Router<T> {
    by_topic: HashMap<Topic, u32>,
    topics: Slots<TopicEntry>,
    connections: Slots<Connection<T>>,
    generation: u32,
}

/// A connection in a router. A key of a connection that has left never names a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    slot: u32,
    generation: u32,
}

/// What a join or a leave changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The first member of the topic came.
    Opened,
    /// A further member came.
    Joined,
    /// A member left, others stay.
    Left,
    /// The last member left; the topic is forgotten.
    Closed,
    /// Nothing: it was in already, or not in, or the connection is gone.
    None,
}

#[derive(Debug)]
struct TopicEntry {
    topic: Topic,
    /// Dense, so that a fan-out walks memory in order: the member's slot and the place in its list.
    members: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Connection<T> {
    value: T,
    generation: u32,
    /// The topics it is in, each with its place among the topic's members. Leaving is O(1).
    memberships: Vec<(u32, u32)>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        let (topics, connections) = (Slots::default(), Slots::default());
        Self { by_topic: HashMap::new(), topics, connections, generation: 0 }
    }
}

impl<T> Router<T> {
    /// Takes a connection in; it is in no topic yet.
    pub fn attach(&mut self, value: T) -> ConnectionKey {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot =
            self.connections.insert(Connection { value, generation, memberships: Vec::new() });
        ConnectionKey { slot, generation }
    }

    /// Lets a connection go. Answers its value and its topics, each with [`Change::Left`] or [`Change::Closed`].
    pub fn detach(&mut self, key: ConnectionKey) -> Option<(T, Vec<(Topic, Change)>)> {
        let mut left = Vec::new();
        while let Some(&(topic, _)) = self.connection(key)?.memberships.last() {
            let name = self.topics.get(topic)?.topic.clone();
            let change = self.leave(key, &name);
            left.push((name, change));
        }
        Some((self.connections.remove(key.slot)?.value, left))
    }

    /// Puts a connection into a topic.
    pub fn join(&mut self, key: ConnectionKey, topic: &Topic) -> Change {
        if self.connection(key).is_none() || self.is_member(key, topic) {
            return Change::None;
        }
        let id = match self.by_topic.get(topic) {
            Some(&id) => id,
            None => {
                let id =
                    self.topics.insert(TopicEntry { topic: topic.clone(), members: Vec::new() });
                self.by_topic.insert(topic.clone(), id);
                id
            }
        };
        let (Some(entry), Some(connection)) =
            (self.topics.get_mut(id), self.connections.get_mut(key.slot))
        else {
            return Change::None;
        };
        let place = entry.members.len() as u32;
        entry.members.push((key.slot, connection.memberships.len() as u32));
        connection.memberships.push((id, place));
        if place == 0 { Change::Opened } else { Change::Joined }
    }

    /// Takes a connection out of a topic.
    pub fn leave(&mut self, key: ConnectionKey, topic: &Topic) -> Change {
        let Some(index) = self.membership(key, topic) else { return Change::None };
        let Some(connection) = self.connections.get_mut(key.slot) else { return Change::None };
        let (id, place) = connection.memberships.swap_remove(index);
        if let Some(&(moved_topic, moved_place)) = connection.memberships.get(index) {
            self.member_mut(moved_topic, moved_place).1 = index as u32;
        }
        let Some(entry) = self.topics.get_mut(id) else { return Change::None };
        entry.members.swap_remove(place as usize);
        if let Some(&(moved_slot, moved_index)) = entry.members.get(place as usize) {
            let moved = self
                .connections
                .get_mut(moved_slot)
                .map(|c| &mut c.memberships[moved_index as usize]);
            moved.expect("a member is a connection").1 = place;
        } else if entry.members.is_empty() {
            self.topics.remove(id);
            self.by_topic.remove(topic);
            return Change::Closed;
        }
        Change::Left
    }

    /// The slots of a topic's members, for [`at`](Self::at); empty when nobody is in it.
    pub fn members(&self, topic: &Topic) -> impl ExactSizeIterator<Item = u32> + '_ {
        let entry = self.by_topic.get(topic).and_then(|&id| self.topics.get(id));
        entry.map_or(&[][..], |entry| &entry.members).iter().map(|&(slot, _)| slot)
    }

    /// The topics that a connection is in.
    pub fn topics_of(&self, key: ConnectionKey) -> impl Iterator<Item = &Topic> {
        let memberships = self.connection(key).map_or(&[][..], |c| &c.memberships);
        memberships.iter().filter_map(|&(id, _)| self.topics.get(id).map(|entry| &entry.topic))
    }

    /// The topics that the connection in a slot is in.
    pub fn topics_at(&self, slot: u32) -> impl Iterator<Item = &Topic> {
        let memberships = self.connections.get(slot).map_or(&[][..], |c| &c.memberships);
        memberships.iter().filter_map(|&(id, _)| self.topics.get(id).map(|entry| &entry.topic))
    }

    /// Whether a connection is in a topic.
    pub fn is_member(&self, key: ConnectionKey, topic: &Topic) -> bool {
        self.membership(key, topic).is_some()
    }

    /// All topics that have a member, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.by_topic.keys()
    }

    /// What is kept of a connection.
    pub fn get(&self, key: ConnectionKey) -> Option<&T> {
        self.connection(key).map(|connection| &connection.value)
    }

    /// What is kept of a connection, to change it.
    pub fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut T> {
        let connection = self.connections.get_mut(key.slot)?;
        (connection.generation == key.generation).then_some(&mut connection.value)
    }

    /// What is kept of the connection in a slot.
    pub fn at(&self, slot: u32) -> Option<&T> {
        self.connections.get(slot).map(|connection| &connection.value)
    }

    /// What is kept of the connection in a slot, to change it.
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.connections.get_mut(slot).map(|connection| &mut connection.value)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionKey, &T)> {
        self.connections
            .iter()
            .map(|(slot, c)| (ConnectionKey { slot, generation: c.generation }, &c.value))
    }

    /// All connections are in slots below this, for [`at_mut`](Self::at_mut); some of these may be empty.
    pub fn slots(&self) -> u32 {
        self.connections.entries.len() as u32
    }

    /// How many connections were looked at so far, by whatever way; it wraps. What it grew by is what a pass cost.
    pub fn looked_at(&self) -> usize {
        self.connections.looked_at.load(Relaxed)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn connection(&self, key: ConnectionKey) -> Option<&Connection<T>> {
        self.connections.get(key.slot).filter(|c| c.generation == key.generation)
    }

    /// The place of a topic in a connection's list. A connection is in few topics, so a walk is cheap;
    /// of a connection in many, the topic's members may be fewer.
    fn membership(&self, key: ConnectionKey, topic: &Topic) -> Option<usize> {
        let connection = self.connection(key)?;
        let id = *self.by_topic.get(topic)?;
        connection.memberships.iter().position(|&(other, _)| other == id)
    }

    fn member_mut(&mut self, topic: u32, place: u32) -> &mut (u32, u32) {
        let entry = self.topics.get_mut(topic).expect("a membership names a topic");
        &mut entry.members[place as usize]
    }
}

/// A list that gives freed places out again.
#[derive(Debug)]
struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
    len: usize,
    looked_at: AtomicUsize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), len: 0, looked_at: AtomicUsize::new(0) }
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = Some(value);
            return slot;
        }
        self.entries.push(Some(value));
        self.entries.len() as u32 - 1
    }

    fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.entries.get_mut(slot as usize)?.take()?;
        self.len -= 1;
        self.free.push(slot);
        Some(value)
    }

    fn get(&self, slot: u32) -> Option<&T> {
        self.count();
        self.entries.get(slot as usize)?.as_ref()
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.count();
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let entries = self.entries.iter().enumerate().inspect(|_| self.count());
        entries.filter_map(|(slot, e)| e.as_ref().map(|e| (slot as u32, e)))
    }

    /// A router has one owner: no count is lost, and none needs a locked instruction.
    fn count(&self) {
        self.looked_at.store(self.looked_at.load(Relaxed).wrapping_add(1), Relaxed);
    }
}
