//! Which topics a link is to deliver: a level-triggered machine between wishes and commands.
//!
//! Joins and leaves state wishes; the machine computes the next command. Only one command is under
//! way at a time, so a subscribe and an unsubscribe cannot overtake each other. It has no clock and
//! does not talk to a bus: [`poll`](Interest::poll) says what to do, and the driver reports back.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::Topic;

/// The wishes of a node for one link, and what the link confirmed.
///
/// Order of calls: [`set`](Self::set) at any time; [`poll`](Self::poll) gives a command only when none
/// is under way; each command ends with [`confirmed`](Self::confirmed), [`failed`](Self::failed) or
/// [`link_lost`](Self::link_lost).
#[derive(Debug, Default)]
pub struct Interest {
    topics: HashMap<Topic, State>,
    /// Topics whose wish and confirmation may differ; may name a topic twice or in vain.
    dirty: VecDeque<Topic>,
    /// Topics that nobody wants any more, in the order in which their time comes.
    lingering: VecDeque<(Duration, Topic)>,
    in_flight: Option<Command>,
    linger: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    wanted: bool,
    held: Held,
    /// When the last wish ended; an unsubscribe waits for `linger` after it.
    unwanted_since: Duration,
}

/// Whether the link delivers a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Held {
    #[default]
    No,
    Maybe,
    Yes,
}

/// What the driver is to ask of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ask for these topics.
    Subscribe(Vec<Topic>),
    /// Give these topics up.
    Unsubscribe(Vec<Topic>),
}

impl Interest {
    /// A machine that gives a topic up only `linger` after its last wish ended, so that a quick
    /// return costs nothing.
    pub fn new(linger: Duration) -> Self {
        Self { linger, ..Self::default() }
    }

    /// States whether the node wants a topic. Saying the same twice changes nothing.
    pub fn set(&mut self, now: Duration, topic: &Topic, wanted: bool) {
        let state = match self.topics.get_mut(topic) {
            Some(state) => state,
            None if !wanted => return,
            None => self.topics.entry(topic.clone()).or_default(),
        };
        if state.wanted == wanted {
            return;
        }
        state.wanted = wanted;
        if wanted {
            self.dirty.push_back(topic.clone());
        } else {
            state.unwanted_since = now;
            self.lingering.push_back((now + self.linger, topic.clone()));
        }
    }

    /// Whether what is published in the topic now arrives.
    pub fn is_subscribed(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|state| state.held == Held::Yes)
    }

    /// The topics that the node wants now.
    pub fn wanted(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(|(_, state)| state.wanted).map(|(topic, _)| topic)
    }

    /// The next command, of at most `max` topics; `None` while one is under way or nothing is to be done.
    /// Subscribes go first: somebody waits for them.
    pub fn poll(&mut self, now: Duration, max: usize) -> Option<Command> {
        if self.in_flight.is_some() {
            return None;
        }
        let subscribe = self.take_subscribes(max);
        let command = if subscribe.is_empty() {
            let unsubscribe = self.take_unsubscribes(now, max);
            (!unsubscribe.is_empty()).then_some(Command::Unsubscribe(unsubscribe))?
        } else {
            Command::Subscribe(subscribe)
        };
        let (Command::Subscribe(topics) | Command::Unsubscribe(topics)) = &command;
        self.mark(topics, Held::Maybe);
        self.in_flight = Some(command.clone());
        Some(command)
    }

    /// When [`poll`](Self::poll) may have an unsubscribe that it does not have yet.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.lingering.front().map(|(due, _)| *due)
    }

    /// The command under way succeeded.
    pub fn confirmed(&mut self) {
        match self.in_flight.take() {
            Some(Command::Subscribe(topics)) => self.mark(&topics, Held::Yes),
            Some(Command::Unsubscribe(topics)) => {
                self.mark(&topics, Held::No);
                for topic in topics {
                    self.settle(topic);
                }
            }
            None => {}
        }
    }

    /// The command under way failed and the link lives: the wishes stand and will be polled again.
    /// Its topics may be delivered or not: who wants them subscribes again, who does not unsubscribes.
    pub fn failed(&mut self) {
        match self.in_flight.take() {
            Some(Command::Subscribe(topics)) => self.dirty.extend(topics),
            Some(Command::Unsubscribe(topics)) => {
                for topic in topics {
                    let since =
                        self.topics.get(&topic).map_or(Duration::ZERO, |s| s.unwanted_since);
                    self.lingering.push_back((since + self.linger, topic));
                }
            }
            None => {}
        }
    }

    /// The link is gone, and with it everything that it had confirmed. The wishes stand.
    pub fn link_lost(&mut self) {
        self.in_flight = None;
        self.dirty.clear();
        self.lingering.clear();
        self.topics.retain(|_, state| state.wanted);
        for (topic, state) in &mut self.topics {
            state.held = Held::No;
            self.dirty.push_back(topic.clone());
        }
    }

    fn take_subscribes(&mut self, max: usize) -> Vec<Topic> {
        let mut batch = Vec::new();
        while batch.len() < max {
            let Some(topic) = self.dirty.pop_front() else { break };
            let needed = self.topics.get(&topic).is_some_and(|s| s.wanted && s.held != Held::Yes);
            // A batch is bounded, so this stays cheap; a topic is dirty twice only after a change of mind.
            if needed && !batch.contains(&topic) {
                batch.push(topic);
            } else if !needed {
                self.settle(topic);
            }
        }
        batch
    }

    fn take_unsubscribes(&mut self, now: Duration, max: usize) -> Vec<Topic> {
        let mut batch = Vec::new();
        while batch.len() < max && self.lingering.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, topic)) = self.lingering.pop_front() else { break };
            let due = |s: &State| {
                !s.wanted && s.held != Held::No && s.unwanted_since + self.linger <= now
            };
            if self.topics.get(&topic).is_some_and(due) && !batch.contains(&topic) {
                batch.push(topic);
            } else {
                self.settle(topic);
            }
        }
        batch
    }

    fn mark(&mut self, topics: &[Topic], held: Held) {
        for topic in topics {
            if let Some(state) = self.topics.get_mut(topic) {
                state.held = held;
            }
        }
    }

    /// Looks at a topic whose command ended or was not needed: forgets it, or puts it back in line.
    fn settle(&mut self, topic: Topic) {
        match self.topics.get(&topic) {
            Some(state) if !state.wanted && state.held == Held::No => {
                self.topics.remove(&topic);
            }
            Some(state) if state.wanted && state.held != Held::Yes && self.in_flight.is_none() => {
                self.dirty.push_back(topic);
            }
            _ => {}
        }
    }
}
