//! A node of the model: a link, its places in all topics, and its shards.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tidings_core::machines::{Ask, Positions, Question, Step};
use tidings_core::{Delivery, HistoryPage, Topic, Tops};

use crate::log::Log;
use crate::shard::{Entry, Sent, Shard};

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

impl Node {
    pub(crate) fn new(log: &Log, shards: usize) -> Self {
        Self {
            positions: Positions::new(log.start()),
            alive: true,
            link: VecDeque::new(),
            subscribed: BTreeSet::new(),
            asks: Vec::new(),
            shards: (0..shards).map(|_| Shard::new(log)).collect(),
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
                        Entry::Message(Sent::new(delivery.clone(), marks.clone()))
                    }
                    Step::Gap(topic, reason, mark) => Entry::Gap(topic.clone(), *reason, *mark),
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
        self.settle(log);
    }

    /// All that is under way arrives.
    pub(crate) fn settle(&mut self, log: &Log) {
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
                shard.step(3)
            }
        });
    }

    pub(crate) fn sweep(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.inbox.push_back(Entry::Sweep));
    }

    pub(crate) fn shard_step(&mut self, which: usize) {
        let number = which % self.shards.len();
        self.shards[number].step(1 + which % 4);
    }
}

/// Picks one of an iterator by a number of any size.
trait Pick: Iterator + Sized {
    fn cycle_to(mut self, which: usize, len: usize) -> Option<Self::Item> {
        self.nth(which.checked_rem(len)?)
    }
}

impl<I: Iterator> Pick for I {}
