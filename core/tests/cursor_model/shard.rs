//! A shard of the model: the machines of the node's shards, [`Flow`] and [`Standing`], with inboxes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use tidings_core::machines::{Dispatched, Floors, Flow, NotLive, Standing, Starts, Told};
use tidings_core::{Delivery, GapReason, Mark, Position, Topic};

use crate::log::{Log, topic};

pub(crate) struct Shard {
    pub(crate) inbox: VecDeque<Entry>,
    standing: Standing,
    pub(crate) members: BTreeMap<u64, Member>,
    partitions: u16,
}

pub(crate) enum Entry {
    Message(Sent),
    Gap(Topic, GapReason, Mark),
    Point(Box<[Mark]>),
    /// A connection comes; with a cursor it is held until it is level.
    Attach(u64, Vec<Topic>, bool),
    /// It is told that it is connected.
    Open(u64, Box<[Mark]>),
    /// It joins a room.
    Room(u64, Topic),
    /// It pulls its topics, and enters a room perhaps.
    Pull(u64, Option<Topic>),
    Leave(u64, Topic),
    /// It has read everything up to these marks.
    Live(u64, Floors),
    Sweep,
}

/// What a shard answers a connection.
pub(crate) enum Reply {
    In,
    /// From where it pulls, and where the room stands that it entered.
    Pulls(Starts, Option<Mark>),
    Overflown,
}

/// A connection in its shard.
#[derive(Default)]
pub(crate) struct Member {
    topics: BTreeSet<Topic>,
    flow: Flow<Sent>,
    pub(crate) reply: Option<Reply>,
    pub(crate) out: VecDeque<Out>,
    /// The client is to come back; it is still sent what is queued, unless it was too slow for it.
    pub(crate) ended: bool,
}

#[derive(Debug)]
pub(crate) enum Out {
    Message(Sent),
    Gap(Topic),
    Connected(Box<[Mark]>),
    Joined(Topic, Box<[Mark]>),
    Left(Topic),
}

impl Shard {
    pub(crate) fn new(log: &Log) -> Self {
        let (inbox, members) = (VecDeque::new(), BTreeMap::new());
        let mut standing = Standing::default();
        standing.moves(&log.marks(), Vec::new);
        Self { inbox, standing, members, partitions: log.partitions }
    }

    fn partition(&self, topic: &Topic) -> u16 {
        crate::log::number(topic) as u16 % self.partitions
    }

    fn moves(&mut self, marks: &[Mark]) {
        let topics: BTreeSet<_> = self.members.values().flat_map(|m| m.topics.clone()).collect();
        let open = topics.into_iter().map(|topic| (topic.clone(), self.partition(&topic)));
        let open = open.collect();
        self.standing.moves(marks, || open);
    }

    /// Does the next entry, or up to `most` messages in one pass.
    pub(crate) fn step(&mut self, most: usize) {
        let mut pass = Vec::new();
        while pass.len() < most
            && let Some(Entry::Message(_)) = self.inbox.front()
            && let Some(Entry::Message(message)) = self.inbox.pop_front()
        {
            pass.push(message);
        }
        if !pass.is_empty() {
            return self.pass(&pass);
        }
        let Some(entry) = self.inbox.pop_front() else { return };
        match entry {
            Entry::Message(_) => unreachable!("it would have been in a pass"),
            Entry::Point(marks) => self.moves(&marks),
            Entry::Gap(topic, reason, mark) => {
                let mut any = false;
                for member in self.members.values_mut().filter(|m| m.topics.contains(&topic)) {
                    any = true;
                    let mut told = Vec::new();
                    let gap = member.flow.gap(&topic, reason, Some(mark), &mut told);
                    member.tell(told);
                    member.ended |= gap.is_err();
                }
                if any {
                    self.standing.gap(&topic, mark);
                }
            }
            Entry::Attach(id, topics, resumes) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.topics.extend(topics);
                member.reply = Some(Reply::In);
                if resumes {
                    member.flow = Flow::held();
                } else {
                    member.push(Out::Connected(self.standing.point().into()));
                }
            }
            Entry::Open(id, marks) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.flow.open();
                member.reply = Some(Reply::In);
                member.push(Out::Connected(marks));
            }
            Entry::Room(id, topic) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                assert!(!member.flow.is_held(), "a connection that reads is pulled into a room");
                member.topics.insert(topic.clone());
                member.push(Out::Joined(topic, self.standing.point().into()));
                member.reply = Some(Reply::In);
            }
            Entry::Pull(id, topic) => self.pull(id, topic),
            Entry::Leave(id, topic) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.topics.remove(&topic);
                member.flow.leave(&topic);
                member.push(Out::Left(topic.clone()));
                member.reply = Some(Reply::In);
                self.close(&topic);
            }
            Entry::Live(id, floors) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                let mut told = Vec::new();
                let live = member.flow.go_live(floors, self.standing.point(), &mut told);
                member.tell(told);
                member.ended |= live == Err(NotLive::EpochChanged);
                member.reply = Some(match live {
                    Err(NotLive::Overflown) => Reply::Overflown,
                    _ => Reply::In,
                });
            }
            Entry::Sweep => {
                for member in self.members.values_mut() {
                    member.flow.forget_floors(self.standing.point());
                }
            }
        }
    }

    pub(crate) fn detach(&mut self, id: u64) -> Option<Member> {
        let member = self.members.remove(&id)?;
        member.topics.iter().for_each(|topic| self.close(topic));
        Some(member)
    }

    fn close(&mut self, topic: &Topic) {
        if !self.members.values().any(|member| member.topics.contains(topic)) {
            self.standing.forget(topic);
        }
    }

    fn pull(&mut self, id: u64, room: Option<Topic>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.topics.extend(room.clone());
        member.flow.pull();
        let (marks, member) = (self.standing.point().into(), &self.members[&id]);
        let start = |topic: &Topic| {
            let (partition, floor) = (self.partition(topic), member.flow.floor(topic));
            (topic.clone(), self.standing.start(topic, partition, floor).expect("a partition"))
        };
        let mut topics: HashMap<_, _> = member.topics.iter().map(start).collect();
        let here = room.and_then(|room| topics.remove(&room));
        let reply = Reply::Pulls(Starts { marks, topics }, here);
        self.members.get_mut(&id).expect("it was there").reply = Some(reply);
    }

    /// As the shard of the node does it: first who gets what, then each gets his.
    fn pass(&mut self, pass: &[Sent]) {
        let mut pending: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, sent) in pass.iter().enumerate() {
            for (id, member) in &mut self.members {
                if member.topics.contains(sent.topic()) && member.admits(sent) {
                    pending.entry(*id).or_default().push(number);
                }
            }
        }
        for (id, numbers) in pending {
            let member = self.members.get_mut(&id).expect("it was there");
            numbers.into_iter().for_each(|number| member.give(&pass[number]));
        }
        self.moves(&pass.last().expect("a pass has messages").0.1);
        for sent in pass {
            let position = sent.position().expect("the model keeps everything");
            let mut members = self.members.values();
            let has_members = || members.any(|member| member.topics.contains(sent.topic()));
            self.standing.passed(sent.topic(), position, has_members);
        }
    }
}

impl Member {
    fn admits(&mut self, sent: &Sent) -> bool {
        let mut told = Vec::new();
        let admits = self.flow.admits(sent, MOST_WAITING, &mut told);
        self.tell(told);
        admits
    }

    /// A client that is too slow comes back, and what was queued for it is dropped.
    fn give(&mut self, sent: &Sent) {
        if self.out.len() >= MOST_QUEUED {
            self.out.clear();
            self.ended = true;
        }
        self.push(Out::Message(sent.clone()));
    }

    fn tell(&mut self, told: Vec<Told<Sent>>) {
        for told in told {
            self.push(match told {
                Told::Message(sent) => Out::Message(sent),
                Told::Gap(topic, ..) => Out::Gap(topic),
            });
        }
    }

    pub(crate) fn push(&mut self, out: Out) {
        if !self.ended {
            self.out.push_back(out);
        }
    }
}

/// A message with the cursor that goes with it.
#[derive(Debug, Clone)]
pub(crate) struct Sent(pub(crate) Rc<(Delivery, Box<[Mark]>)>);

impl Sent {
    pub(crate) fn new(delivery: Delivery, marks: Box<[Mark]>) -> Self {
        Self(Rc::new((delivery, marks)))
    }
}

impl Dispatched for Sent {
    fn topic(&self) -> &Topic {
        &self.0.0.topic
    }

    fn position(&self) -> Option<Position> {
        self.0.0.position
    }

    fn cost(&self) -> usize {
        1
    }
}

pub(crate) fn all_topics() -> impl Iterator<Item = Topic> {
    (0..crate::log::TOPICS).map(topic)
}

/// Messages that may wait for a connection that is held, and that may be queued for a slow one.
const MOST_WAITING: usize = 4;
const MOST_QUEUED: usize = 6;
