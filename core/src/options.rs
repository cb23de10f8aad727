//! What is promised of which topic: how much is kept, who is shown, what becomes of a slow client.

use std::time::Duration;

use crate::{Pattern, Retention, Scope, Topic};

/// What a node does for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicOptions {
    /// What is kept of it, where the bus keeps anything; `None` for nothing.
    pub retention: Option<Retention>,
    /// Whether it is known and told who is in it. Counts for rooms.
    pub presence: bool,
    /// What becomes of a client that is too slow for it.
    pub slow: SlowPolicy,
}

/// What becomes of a client whose outbox is full when a message of the topic comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SlowPolicy {
    /// It is closed with 4008 and may resume.
    #[default]
    Disconnect,
    /// The oldest waiting messages of such topics are dropped, and a `gap` with reason `slow` says so.
    DropOldest,
    /// Of waiting messages with the same conflation key (without one, of the same type) only the latest stays.
    KeepLatest,
}

impl Default for TopicOptions {
    /// The 256 last messages of 10 minutes, no presence, slow clients disconnected.
    fn default() -> Self {
        let retention = Retention { count: 256, age: Duration::from_secs(600) };
        Self { retention: Some(retention), presence: false, slow: SlowPolicy::default() }
    }
}

/// The options of every topic: by patterns of rooms, else the default. Must be the same on all nodes of a bus.
#[derive(Debug, Clone, Default)]
pub struct TopicRules {
    rooms: Vec<(Pattern, TopicOptions)>,
    others: TopicOptions,
}

impl TopicRules {
    /// The same for rooms, users and everyone.
    pub fn all(options: TopicOptions) -> Self {
        Self { rooms: Vec::new(), others: options }
    }

    /// Other options for the rooms that match; of several patterns the first counts.
    #[must_use]
    pub fn rooms(mut self, pattern: Pattern, options: TopicOptions) -> Self {
        self.rooms.push((pattern, options));
        self
    }

    /// The options of a topic.
    pub fn of(&self, topic: &Topic) -> &TopicOptions {
        let room = topic.as_room().map(crate::RoomId::as_str);
        let rule = room.and_then(|room| self.rooms.iter().find(|(p, _)| p.matches(room)));
        rule.map_or(&self.others, |(_, options)| options)
    }

    /// What becomes of a client that is too slow for a message of a topic. What is sent to one client is never dropped.
    pub fn slow(&self, topic: &Topic) -> SlowPolicy {
        match topic.scope {
            Scope::Client(_) => SlowPolicy::Disconnect,
            _ => self.of(topic).slow,
        }
    }

    /// What is kept of a topic. What is sent to one client is never kept.
    pub fn retention(&self, topic: &Topic) -> Option<Retention> {
        match topic.scope {
            Scope::Client(_) => None,
            _ => self.of(topic).retention,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientId, RoomId, TenantId};

    fn room(name: &str) -> Topic {
        Topic::room(TenantId::default(), RoomId::new(name).expect("a name"))
    }

    #[test]
    fn the_first_pattern_counts_and_what_is_for_one_client_is_never_kept() {
        let none = TopicOptions { retention: None, ..TopicOptions::default() };
        let rules = TopicRules::default()
            .rooms(Pattern::new("log.keep"), TopicOptions::default())
            .rooms(Pattern::new("log.*"), none);
        assert!(rules.retention(&room("log.keep")).is_some());
        assert!(rules.retention(&room("log.other")).is_none());
        assert!(rules.retention(&room("chat")).is_some());
        assert!(rules.retention(&Topic::everyone(TenantId::default())).is_some());
        let client = Topic::client(TenantId::default(), ClientId::from_bits(1));
        assert!(rules.retention(&client).is_none());
    }
}
