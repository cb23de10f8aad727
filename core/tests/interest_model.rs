//! Whatever fails in between, a link ends up with exactly the topics that are wanted, and what the machine remembers
//! is bounded by its topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tidings_core::machines::{Command, Interest};
use tidings_core::{RoomId, TenantId, Topic};

#[derive(Debug, Clone)]
enum Op {
    Wish {
        topic: usize,
        wanted: bool,
    },
    Wait {
        millis: u64,
    },
    Poll {
        max: usize,
    },
    Answer,
    /// The command fails, and yet the link did it for the topics whose bit is set.
    Fail {
        done: u8,
    },
    /// From now on the bus refuses each subscribe that names a topic whose bit is set.
    Refuse {
        topics: u8,
    },
    LoseLink,
    FindLink,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..5_usize, any::<bool>()).prop_map(|(topic, wanted)| Op::Wish { topic, wanted }),
        2 => (0..80_u64).prop_map(|millis| Op::Wait { millis }),
        5 => (1..4_usize).prop_map(|max| Op::Poll { max }),
        4 => Just(Op::Answer),
        2 => any::<u8>().prop_map(|done| Op::Fail { done }),
        2 => (0..32_u8).prop_map(|topics| Op::Refuse { topics }),
        1 => Just(Op::LoseLink),
        3 => Just(Op::FindLink),
    ]
}

fn topic(n: usize) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(format!("room {n}")).expect("it is a name"))
}

/// The machine, the link it drives, and the wishes as they were stated.
#[derive(Debug)]
struct World {
    interest: Interest,
    linger: Duration,
    now: Duration,
    is_up: bool,
    link: BTreeSet<Topic>,
    /// What the link was asked for, unless it was given up since.
    asked: BTreeSet<Topic>,
    under_way: Option<Command>,
    refused: BTreeSet<Topic>,
    wanted: BTreeSet<Topic>,
    unwanted_since: BTreeMap<Topic, Duration>,
}

impl World {
    fn new(linger: Duration) -> Self {
        Self {
            interest: Interest::new(linger),
            linger,
            now: Duration::ZERO,
            is_up: false,
            link: BTreeSet::new(),
            asked: BTreeSet::new(),
            under_way: None,
            refused: BTreeSet::new(),
            wanted: BTreeSet::new(),
            unwanted_since: BTreeMap::new(),
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Wish { topic: n, wanted } => self.wish(topic(n), wanted),
            Op::Wait { millis } => self.now += Duration::from_millis(millis),
            Op::Poll { max } => {
                self.poll(max);
            }
            Op::Answer => self.answer(),
            Op::Fail { done } => {
                if let Some(command) = self.under_way.take() {
                    self.obey(&command, done);
                    self.interest.failed(self.now);
                }
            }
            Op::Refuse { topics } => {
                self.refused = (0..5).filter(|n| topics >> n & 1 == 1).map(topic).collect();
            }
            Op::LoseLink => {
                (self.is_up, self.under_way) = (false, None);
                self.link.clear();
                self.asked.clear();
                self.interest.link_lost();
            }
            Op::FindLink => self.find_link(),
        }
    }

    fn find_link(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.interest.link_up();
        }
    }

    fn wish(&mut self, topic: Topic, wanted: bool) {
        self.interest.set(self.now, &topic, wanted);
        if wanted {
            self.wanted.insert(topic);
        } else if self.wanted.remove(&topic) {
            self.unwanted_since.insert(topic, self.now);
        }
    }

    /// Whether there was a command.
    fn poll(&mut self, max: usize) -> bool {
        let Some(command) = self.interest.poll(self.now, max) else { return false };
        assert!(self.is_up, "a command needs a link");
        assert_eq!(self.under_way, None, "one command at a time");
        let (Command::Subscribe(topics) | Command::Unsubscribe(topics)) = &command;
        assert!((1..=max).contains(&topics.len()));
        assert_eq!(topics.iter().collect::<BTreeSet<_>>().len(), topics.len(), "each topic once");
        for topic in topics {
            let subscribe = matches!(command, Command::Subscribe(_));
            assert_eq!(self.wanted.contains(topic), subscribe, "a command follows the wish");
            if subscribe {
                self.asked.insert(topic.clone());
            } else {
                assert!(self.unwanted_since[topic] + self.linger <= self.now, "it lingers");
            }
        }
        self.under_way = Some(command);
        true
    }

    /// The link answers: it does all of the command, or refuses it.
    fn answer(&mut self) {
        if let Some(command) = self.under_way.take() {
            if let Command::Subscribe(topics) = &command
                && topics.iter().any(|topic| self.refused.contains(topic))
            {
                return self.interest.failed(self.now);
            }
            self.obey(&command, u8::MAX);
            if let Command::Unsubscribe(topics) = &command {
                self.asked.retain(|topic| !topics.contains(topic));
            }
            self.interest.confirmed();
        }
    }

    /// What the link does of a command.
    fn obey(&mut self, command: &Command, done: u8) {
        let (Command::Subscribe(topics) | Command::Unsubscribe(topics)) = command;
        for (_, topic) in topics.iter().enumerate().filter(|(n, _)| done >> n & 1 == 1) {
            match command {
                Command::Subscribe(_) => self.link.insert(topic.clone()),
                Command::Unsubscribe(_) => self.link.remove(topic),
            };
        }
    }

    fn check(&self) {
        assert_eq!(self.interest.wanted().cloned().collect::<BTreeSet<_>>(), self.wanted);
        let known = self.wanted.union(&self.asked).count();
        assert_eq!(self.interest.known(), known, "what is neither wanted nor held is forgotten");
        let queued = if self.is_up { known } else { 0 };
        assert!(self.interest.queued() <= queued, "each topic waits once, and only for a link");
        for topic in (0..5).map(topic).filter(|topic| self.interest.is_subscribed(topic)) {
            assert!(self.link.contains(&topic), "{topic:?} counts as subscribed");
            let leaving = matches!(&self.under_way, Some(Command::Unsubscribe(topics)) if topics.contains(&topic));
            assert!(!leaving, "{topic:?} may be gone at any moment");
        }
    }

    /// Lets what failed alone come due and then no time pass, and insists that it comes to rest.
    fn go_on(&mut self) {
        self.find_link();
        self.now += Duration::from_secs(60);
        for _ in 0..100 {
            self.answer();
            self.check();
            if !self.poll(4) {
                return;
            }
        }
        panic!("what is refused is asked for again and again");
    }

    /// Lets everything succeed until nothing is left to do.
    fn drain(&mut self) {
        self.refused.clear();
        for _ in 0..1000 {
            self.answer();
            self.check();
            if self.poll(4) {
                continue;
            }
            match self.interest.next_timeout() {
                Some(due) => {
                    assert!(due > self.now, "what is due is polled");
                    self.now = due;
                }
                None => return,
            }
        }
        panic!("it never comes to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/proptest-regressions/interest_model.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_link_ends_up_with_what_is_wanted(
        linger in prop_oneof![Just(0_u64), 1..100_u64],
        script in vec(op(), 0..80),
    ) {
        let mut world = World::new(Duration::from_millis(linger));
        for op in &script {
            world.run(op);
            world.check();
        }
        world.go_on();
        for topic in world.wanted.difference(&world.refused) {
            prop_assert!(world.interest.is_subscribed(topic), "{:?} starves", topic);
        }
        world.drain();
        prop_assert_eq!(&world.link, &world.wanted);
        for topic in &world.wanted {
            prop_assert!(world.interest.is_subscribed(topic));
        }
        prop_assert_eq!(world.interest.poll(world.now, 1), None);
    }
}
