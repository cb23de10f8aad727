//! The way to what attends a node's memberships: rooms whose presence is shown, and users whose connections count.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::attendant::{Attendant, Change};
use super::command::all_nodes;
use crate::{Bus, Limits, NodeId, Scope, Tally, Topic, TopicRules, UserId};

/// The way to the tasks, and what of a node's memberships is attended.
#[derive(Clone)]
pub(crate) struct Attendance {
    bus: Arc<dyn Bus>,
    /// One for each partition.
    tasks: Arc<[mpsc::UnboundedSender<Change>]>,
    rules: Arc<TopicRules>,
    /// Whether the connections of users are counted.
    users: bool,
}

/// How a connection left a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// In order, so that its user is gone at once.
    Left,
    /// Its connection was lost and may be back soon, so that its user lingers.
    Lost,
}

impl Attendance {
    /// The tasks are to be run by the caller; they end with the last handle.
    pub(crate) fn new(
        bus: &Arc<dyn Bus>,
        node: &NodeId,
        rules: &Arc<TopicRules>,
        limits: &Limits,
    ) -> (Self, Vec<Attendant>) {
        let mut tasks = Vec::new();
        let mut attendants = Vec::new();
        for partition in 0..bus.partitions() {
            let (sender, changes) = mpsc::unbounded_channel();
            tasks.push(sender);
            attendants.push(Attendant::new(bus, partition, node, limits.presence_linger, changes));
        }
        let (bus, rules, users) = (bus.clone(), rules.clone(), limits.connections_per_user > 0);
        (Self { bus, tasks: tasks.into(), rules, users }, attendants)
    }

    /// Whether it is told who is in a topic, or counted.
    pub(crate) fn attends(&self, topic: &Topic) -> bool {
        match topic.scope {
            Scope::Room(_) => self.rules.of(topic).presence,
            Scope::User(_) => self.users,
            Scope::Client(_) => *topic == all_nodes(),
            Scope::Everyone => false,
        }
    }

    /// A connection of the user is in the topic.
    pub(crate) fn come(&self, topic: &Topic, user: &UserId) {
        if self.attends(topic) {
            self.tell(topic, Change::Come((topic.clone(), user.clone())));
        }
    }

    /// A connection of the user is no longer in the topic.
    pub(crate) fn leave(&self, topic: &Topic, user: &UserId, departure: Departure) {
        if self.attends(topic) {
            self.tell(topic, Change::Leave((topic.clone(), user.clone()), departure));
        }
    }

    /// What the claim of a user in a topic came to, once it holds; `None` when it cannot be made now.
    pub(crate) async fn claimed(&self, topic: &Topic, user: &UserId) -> Option<Tally> {
        let (waiting, claimed) = oneshot::channel();
        self.tell(topic, Change::Ask((topic.clone(), user.clone()), waiting));
        claimed.await.unwrap_or_default()
    }

    /// How many connections of the user this node has in the topic, with those on their way in.
    pub(crate) async fn count(&self, topic: &Topic, user: &UserId) -> u32 {
        let (count, counted) = oneshot::channel();
        self.tell(topic, Change::Count((topic.clone(), user.clone()), count));
        counted.await.unwrap_or_default()
    }

    fn tell(&self, topic: &Topic, change: Change) {
        let task = self.tasks.get(usize::from(self.bus.partition(topic)));
        let _ = task.map(|task| task.send(change));
    }
}
