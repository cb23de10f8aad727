//! Which topics a link is to deliver: a level-triggered machine between wishes and commands.
//!
//! Joins and leaves state wishes; the machine computes the next command. Only one command is under
//! way at a time, so a subscribe and an unsubscribe cannot overtake each other. It has no clock and
//! does not talk to a bus: [`poll`](Interest::poll) says what to do, and the driver reports back.
//!
//! A batch may fail because of one of its topics. So after a failure batches are halved until something succeeds, and a
//! topic that fails alone waits for its next turn beside the others, which go on.
//!
//! What it remembers is bounded by the topics that are wanted or may be delivered: each of them waits at most once, and
//! without a link none does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::Topic;

/// The wishes of a node for one link, and what the link confirmed.
///
/// Order of calls: [`set`](Self::set) at any time; [`link_up`](Self::link_up) when there is a link, also the first;
/// [`poll`](Self::poll) gives a command only then, and only when none is under way; each command ends with
/// [`confirmed`](Self::confirmed), [`failed`](Self::failed) or [`link_lost`](Self::link_lost).
#[derive(Debug, Default)]
pub struct Interest {
    topics: HashMap<Topic, State>,
    /// Topics to subscribe, by their turns.
    subscribes: BTreeMap<u64, Topic>,
    /// Topics to unsubscribe, and those that were refused alone, by when they come due.
    later: BTreeSet<(Duration, Topic)>,
    next_turn: u64,
    in_flight: Option<Command>,
    is_up: bool,
    linger: Duration,
    /// Most topics of a command while commands fail.
    most: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    wanted: bool,
    held: Held,
    /// When the last wish ended; an unsubscribe waits for `linger` after it.
    unwanted_since: Duration,
    /// It was refused alone, and is not asked before then.
    refused: Option<Duration>,
    place: Place,
}

/// Whether the link delivers a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Held {
    #[default]
    No,
    Maybe,
    Yes,
}

/// Where a topic waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    None,
    Subscribe(u64),
    Later(Duration),
    /// In the command under way; what is next is decided when that ends.
    InFlight,
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
    /// return costs nothing. It has no link yet.
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
        if !wanted {
            state.unwanted_since = now;
        }
        if state.place != Place::InFlight {
            self.settle(topic);
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

    /// How many topics it remembers: those that are wanted, and those that the link may deliver still.
    pub fn known(&self) -> usize {
        self.topics.len()
    }

    /// How many topics wait for a command.
    pub fn queued(&self) -> usize {
        self.subscribes.len() + self.later.len()
    }

    /// The next command, of at most `max` topics; `None` without a link, while one is under way or when nothing is to
    /// be done. Subscribes go first: somebody waits for them.
    pub fn poll(&mut self, now: Duration, max: usize) -> Option<Command> {
        if self.in_flight.is_some() {
            return None;
        }
        let max = self.most.map_or(max, |most| most.min(max));
        let subscribe = self.take_subscribes(max);
        let command = match subscribe.is_empty() {
            true => self.take_due(now, max)?,
            false => Command::Subscribe(subscribe),
        };
        self.mark(command.topics(), Held::Maybe, Place::InFlight);
        self.in_flight = Some(command.clone());
        Some(command)
    }

    /// When [`poll`](Self::poll) may have a command that it does not have yet.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.later.first().map(|(due, _)| *due)
    }

    /// The command under way succeeded.
    pub fn confirmed(&mut self) {
        let Some(command) = self.in_flight.take() else { return };
        self.most = None;
        let held = match command {
            Command::Subscribe(_) => Held::Yes,
            Command::Unsubscribe(_) => Held::No,
        };
        self.ended(&command, held);
    }

    /// The command under way failed and the link lives: the wishes stand and will be polled again.
    /// Its topics may be delivered or not: who wants them subscribes again, who does not unsubscribes.
    /// The next commands are of half as many topics, until one succeeds. A subscribe that failed alone waits for a while.
    pub fn failed(&mut self, now: Duration) {
        let Some(command) = self.in_flight.take() else { return };
        self.most = Some((command.topics().len() / 2).max(1));
        if let [topic] = command.topics()
            && let Some(state) = self.topics.get_mut(topic)
        {
            match command {
                Command::Subscribe(_) => state.refused = Some(now + RETRY),
                Command::Unsubscribe(_) => state.unwanted_since = now,
            }
        }
        self.ended(&command, Held::Maybe);
    }

    /// There is a link, and it has nothing yet: all that is wanted waits for it.
    pub fn link_up(&mut self) {
        self.is_up = true;
        let wanted: Vec<_> = self.wanted().cloned().collect();
        for topic in &wanted {
            self.settle(topic);
        }
    }

    /// The link is gone, and with it everything that it had confirmed. The wishes stand.
    pub fn link_lost(&mut self) {
        self.is_up = false;
        self.in_flight = None;
        self.most = None;
        self.subscribes.clear();
        self.later.clear();
        self.topics.retain(|_, state| state.wanted);
        for state in self.topics.values_mut() {
            *state = State { wanted: true, ..State::default() };
        }
    }

    fn take_subscribes(&mut self, max: usize) -> Vec<Topic> {
        let next = std::iter::from_fn(|| self.subscribes.pop_first());
        next.take(max).map(|(_, topic)| topic).collect()
    }

    /// What has waited until it came due. A topic that was refused alone is asked for alone again.
    fn take_due(&mut self, now: Duration, max: usize) -> Option<Command> {
        let is_wanted = |topic: &&Topic| self.topics.get(*topic).is_some_and(|state| state.wanted);
        let due = self.later.iter().take_while(|(due, _)| *due <= now).map(|(_, topic)| topic);
        let mut due = due.peekable();
        let command = match due.next_if(is_wanted) {
            Some(refused) => Command::Subscribe(vec![refused.clone()]),
            None => {
                let leave = due.take_while(|topic| !is_wanted(topic)).take(max).cloned().collect();
                Command::Unsubscribe(leave)
            }
        };
        command.topics().iter().for_each(|_| drop(self.later.pop_first()));
        (!command.topics().is_empty()).then_some(command)
    }

    fn ended(&mut self, command: &Command, held: Held) {
        self.mark(command.topics(), held, Place::None);
        for topic in command.topics() {
            self.settle(topic);
        }
    }

    fn mark(&mut self, topics: &[Topic], held: Held, place: Place) {
        for topic in topics {
            if let Some(state) = self.topics.get_mut(topic) {
                (state.held, state.place) = (held, place);
                state.refused = state.refused.filter(|_| held != Held::Yes);
            }
        }
    }

    /// Puts a topic where it is to wait now, and nowhere else; forgets it when nothing is left to do for it.
    fn settle(&mut self, topic: &Topic) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        match state.place {
            Place::Subscribe(turn) => drop(self.subscribes.remove(&turn)),
            Place::Later(due) => drop(self.later.remove(&(due, topic.clone()))),
            Place::None | Place::InFlight => {}
        }
        state.place = match (state.wanted, state.held) {
            (false, Held::No) => {
                self.topics.remove(topic);
                return;
            }
            _ if !self.is_up => Place::None,
            (true, Held::Yes) => Place::None,
            (true, _) if state.refused.is_none() => {
                self.next_turn += 1;
                self.subscribes.insert(self.next_turn, topic.clone());
                Place::Subscribe(self.next_turn)
            }
            (wanted, _) => {
                let lingered = state.unwanted_since + self.linger;
                let due = state.refused.filter(|_| wanted).unwrap_or(lingered);
                self.later.insert((due, topic.clone()));
                Place::Later(due)
            }
        };
    }
}

impl Command {
    /// The topics that it is about.
    pub fn topics(&self) -> &[Topic] {
        let (Self::Subscribe(topics) | Self::Unsubscribe(topics)) = self;
        topics
    }
}

/// How long a subscribe that was refused alone waits.
const RETRY: Duration = Duration::from_secs(5);
