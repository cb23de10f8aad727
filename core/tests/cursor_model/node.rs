//! A node of the model: a link, the machine under test, and shards with inboxes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tidings_core::{Ask, Delivery, HistoryPage, Mark, Positions, Question, Step, Topic, Tops};

use crate::log::{Log, topic};

pub(crate) struct Node {
    pub(crate) positions: Positions,
    pub(crate) alive: bool,
    link: VecDeque<Delivery>,
    subscribed: BTreeSet<Topic>,
    /// What was asked of the history, and the answer once it was read.
    asks: Vec<(Ask, Option<Answer>)>,
    pub(crate) shards: Vec<Shard>,
    /// How many members want each topic.
    wanted: HashMap<Topic, usize>,
    partitions: u16,
}

enum Answer {
    Tops(Tops),
    Page(HistoryPage),
}

pub(crate) struct Shard {
    pub(crate) inbox: VecDeque<Entry>,
    /// The cursor of the last entry.
    pub(crate) point: Box<[Mark]>,
    pub(crate) members: BTreeMap<u64, Member>,
}

pub(crate) enum Entry {
    Message(Delivery, Box<[Mark]>),
    Gap(Topic, u64),
    Point(Box<[Mark]>),
    /// A connection comes; with a cursor it is held until it is level.
    Attach(u64, Vec<Topic>, bool),
    Room(u64, Topic),
    /// A connection has read everything up to these clocks.
    Live(u64, Vec<(Topic, u64, u64)>),
}

/// A connection in its shard.
#[derive(Default)]
pub(crate) struct Member {
    topics: BTreeSet<Topic>,
    held: Option<Vec<Told>>,
    floors: HashMap<Topic, (u64, u64)>,
    pub(crate) is_in: bool,
    pub(crate) out: VecDeque<Out>,
}

#[derive(Debug)]
pub(crate) enum Out {
    Message(Delivery, Box<[Mark]>),
    Gap(Topic),
    Connected(Box<[Mark]>),
    Joined(Topic, Box<[Mark]>),
}

impl Node {
    pub(crate) fn new(log: &Log, shards: usize) -> Self {
        let shard =
            |_| Shard { inbox: VecDeque::new(), point: log.marks(), members: BTreeMap::new() };
        Self {
            positions: Positions::new(log.start()),
            alive: true,
            link: VecDeque::new(),
            subscribed: BTreeSet::new(),
            asks: Vec::new(),
            shards: (0..shards).map(shard).collect(),
            wanted: HashMap::new(),
            partitions: log.partitions,
        }
    }

    pub(crate) fn want(&mut self, topic: &Topic) {
        *self.wanted.entry(topic.clone()).or_default() += 1;
        self.positions.want(topic, crate::log::number(topic) as u16 % self.partitions);
        if self.alive {
            self.subscribe(&topic.clone());
        }
    }

    fn subscribe(&mut self, topic: &Topic) {
        self.subscribed.insert(topic.clone());
        self.positions.subscribed(topic);
    }

    pub(crate) fn give_up(&mut self, topic: &Topic) {
        let count = self.wanted.get_mut(topic).expect("only what was wanted is given up");
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(topic);
            self.subscribed.remove(topic);
            self.positions.forget(topic);
        }
    }

    /// Says in an inbox where the node stands, as before each answer to a wish.
    pub(crate) fn point(&mut self, shard: usize) {
        let marks = self.positions.marks();
        self.shards[shard].inbox.push_back(Entry::Point(marks));
    }

    pub(crate) fn hear(&mut self, delivery: &Delivery) {
        if self.alive && self.subscribed.contains(&delivery.topic) {
            self.link.push_back(delivery.clone());
        }
    }

    pub(crate) fn deliver(&mut self, log: &Log) {
        let Some(delivery) = self.link.pop_front() else { return };
        let (partition, mut steps) = (log.partition(&delivery.topic), Vec::new());
        self.positions.delivered(partition, delivery, &mut steps);
        self.carry_out(steps);
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            for shard in &mut self.shards {
                shard.inbox.push_back(match &step {
                    Step::Deliver(delivery, marks) => {
                        Entry::Message(delivery.clone(), marks.clone())
                    }
                    Step::Gap(topic, _, epoch) => Entry::Gap(topic.clone(), *epoch),
                    Step::Ready(_) => continue,
                });
            }
        }
    }

    pub(crate) fn die(&mut self) {
        self.alive = false;
        self.link.clear();
        self.subscribed.clear();
        (0..self.partitions).for_each(|partition| self.positions.lost(partition));
    }

    pub(crate) fn connect(&mut self) {
        if !self.alive {
            self.alive = true;
            let wanted: Vec<_> = self.wanted.keys().cloned().collect();
            wanted.iter().for_each(|topic| self.subscribe(topic));
        }
    }

    /// A question that is under way is read by the store now.
    pub(crate) fn read(&mut self, log: &Log, which: usize) {
        while let Some(ask) = self.positions.poll() {
            self.asks.push((ask, None));
        }
        let unread = self.asks.iter().filter(|(_, answer)| answer.is_none()).count();
        let unread_asks = self.asks.iter_mut().filter(|(_, answer)| answer.is_none());
        if let Some((ask, answer)) = unread_asks.cycle_to(which, unread) {
            *answer = Some(match &ask.question {
                Question::Tops(topics) => Answer::Tops(log.tops(ask.partition, topics)),
                Question::After(topic, clock) => {
                    Answer::Page(log.after(topic, *clock, 1 + which % 3))
                }
            });
        }
    }

    /// An answer arrives, or is lost.
    pub(crate) fn answer(&mut self, which: usize) {
        if self.asks.is_empty() {
            return;
        }
        let (ask, answer) = self.asks.swap_remove(which % self.asks.len());
        let mut steps = Vec::new();
        match answer {
            None => self.positions.failed(&ask),
            Some(_) if which % 16 == 15 => self.positions.failed(&ask),
            Some(Answer::Tops(tops)) => self.positions.tops(&ask, &tops, &mut steps),
            Some(Answer::Page(page)) => self.positions.page(&ask, page, &mut steps),
        }
        self.carry_out(steps);
    }

    pub(crate) fn calm(&mut self, log: &Log) {
        self.connect();
        self.positions.look_at_all();
        while !self.link.is_empty() {
            self.deliver(log);
        }
        loop {
            self.read(log, 2);
            if self.asks.is_empty() {
                break;
            }
            self.answer(0);
        }
        self.shards.iter_mut().for_each(|shard| {
            while !shard.inbox.is_empty() {
                shard.step()
            }
        });
    }

    pub(crate) fn shard_step(&mut self, which: usize) {
        let number = which % self.shards.len();
        self.shards[number].step();
    }
}

impl Shard {
    fn step(&mut self) {
        match self.inbox.pop_front() {
            None => {}
            Some(Entry::Point(marks)) => self.point = marks,
            Some(Entry::Gap(topic, epoch)) => {
                for member in self.members.values_mut().filter(|m| m.topics.contains(&topic)) {
                    member.tell(Told::Gap(topic.clone(), epoch));
                }
            }
            Some(Entry::Message(delivery, marks)) => {
                self.point.clone_from(&marks);
                for member in
                    self.members.values_mut().filter(|m| m.topics.contains(&delivery.topic))
                {
                    member.tell(Told::Message(delivery.clone(), marks.clone()));
                }
            }
            Some(Entry::Attach(id, topics, resumes)) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.topics.extend(topics);
                member.is_in = true;
                if resumes {
                    member.held = Some(Vec::new());
                } else {
                    member.out.push_back(Out::Connected(self.point.clone()));
                }
            }
            Some(Entry::Room(id, topic)) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.topics.insert(topic.clone());
                member.out.push_back(Out::Joined(topic, self.point.clone()));
            }
            Some(Entry::Live(id, floors)) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.floors =
                    floors.into_iter().map(|(t, epoch, clock)| (t, (epoch, clock))).collect();
                for told in member.held.take().unwrap_or_default() {
                    member.tell(told);
                }
            }
        }
    }
}

enum Told {
    Message(Delivery, Box<[Mark]>),
    Gap(Topic, u64),
}

impl Member {
    fn tell(&mut self, told: Told) {
        if let Some(held) = &mut self.held {
            return held.push(told);
        }
        match told {
            Told::Gap(topic, epoch) => {
                self.floors.retain(|t, floor| *t != topic || floor.0 == epoch);
                self.out.push_back(Out::Gap(topic));
            }
            Told::Message(delivery, marks) => {
                let position = delivery.position.expect("the model keeps everything");
                let floor = self.floors.get(&delivery.topic);
                // The node may lag behind what was read, even by an epoch.
                let was_read = |&(epoch, clock): &(u64, u64)| {
                    position.epoch != epoch || position.clock <= clock
                };
                if !floor.is_some_and(was_read) {
                    self.out.push_back(Out::Message(delivery, marks));
                }
            }
        }
    }
}

/// Picks one of an iterator by a number of any size.
trait Pick: Iterator + Sized {
    fn cycle_to(mut self, which: usize, len: usize) -> Option<Self::Item> {
        self.nth(which.checked_rem(len)?)
    }
}

impl<I: Iterator> Pick for I {}

pub(crate) fn all_topics() -> impl Iterator<Item = Topic> {
    (0..crate::log::TOPICS).map(topic)
}
