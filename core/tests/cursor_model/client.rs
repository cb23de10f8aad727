//! A client of the model: it is cut, comes back to any node with its newest cursor, joins and leaves rooms, and
//! remembers all it got.

use std::collections::{BTreeMap, BTreeSet};

use tidings_core::machines::{Dispatched as _, Replay, Resume, Starts};
use tidings_core::{GapReason, HistoryPage, Mark, Topic};

use crate::log::{self, Log};
use crate::node::Node;
use crate::shard::{Entry, Member, Out, Reply, Sent, all_topics};

pub(crate) struct Client {
    number: usize,
    topics: BTreeSet<Topic>,
    cursor: Option<Box<[Mark]>>,
    /// The cursor cannot be read any more.
    garbled: bool,
    /// Per topic the number of the last message that is not owed.
    since: BTreeMap<Topic, u64>,
    /// Per topic all that came, in order: a message, or a gap.
    got: BTreeMap<Topic, Vec<Option<u64>>>,
    gaps: usize,
    connections: u64,
    on: Option<Connection>,
}

struct Connection {
    node: usize,
    shard: usize,
    id: u64,
    /// What is under way; a replay rests meanwhile.
    operation: Operation,
    /// Where it comes back from.
    cursor: Option<Box<[Mark]>>,
    resume: Option<Resume>,
    pages: Vec<(Topic, HistoryPage)>,
    /// It asked its shard to go live.
    going_live: bool,
    wanted: Vec<Topic>,
    /// What was published in each topic when it was entered.
    since: BTreeMap<Topic, u64>,
    /// Rooms that were joined and not yet answered, with what had been published there.
    joining: BTreeMap<Topic, u64>,
    /// Per topic the last number of this connection.
    here: BTreeMap<Topic, u64>,
}

#[derive(PartialEq)]
enum Operation {
    None,
    /// Its topics are wanted.
    Wanting,
    /// It waits for its shard.
    Entering,
    /// Its cursor cannot be read: it asks where its topics stand.
    Beginning,
    /// It reads until it is known what it missed.
    Proving,
    /// It waits until it is told that it is connected.
    Opening,
    /// A room is wanted.
    Joining(Topic, From),
    /// It waits until it is in the room.
    EnteringRoom(Topic, From),
    ProvingRoom(Topic, From, Mark),
    Leaving(Topic),
}

/// How a room is joined.
#[derive(Clone, Copy, PartialEq)]
enum From {
    Live,
    /// It asks who is there, so that it is held.
    Here,
    Cursor,
}

impl Client {
    pub(crate) fn new(number: usize) -> Self {
        let topics = all_topics().skip(number).take(2 + number % 3).collect();
        let (since, got) = (BTreeMap::new(), BTreeMap::new());
        Self {
            number,
            topics,
            cursor: None,
            garbled: false,
            since,
            got,
            gaps: 0,
            connections: 0,
            on: None,
        }
    }

    pub(crate) fn cut(&mut self, nodes: &mut [Node]) {
        let Some(on) = self.on.take() else { return };
        nodes[on.node].shards[on.shard].detach(on.id);
        on.wanted.iter().for_each(|topic| nodes[on.node].give_up(topic));
    }

    /// A few frames reach it, if there are any, and then it is cut off.
    pub(crate) fn part(&mut self, nodes: &mut [Node], frames: usize) {
        let member = self.on.as_ref().and_then(|on| on.member(&mut nodes[on.node]));
        if member.is_some_and(|member| !member.out.is_empty()) {
            self.receive(nodes, frames);
            self.cut(nodes);
        }
    }

    /// Its cursor is spoiled while it is away.
    pub(crate) fn garble(&mut self) {
        self.garbled |= self.on.is_none() && self.cursor.is_some();
    }

    pub(crate) fn join(&mut self, nodes: &mut [Node], which: usize) {
        let Some(on) = self.on.as_mut().filter(|on| on.is_idle()) else { return };
        let new: Vec<_> = all_topics().filter(|t| !on.wanted.contains(t)).collect();
        let Some(topic) = new.get(which % new.len().max(1)).cloned() else { return };
        nodes[on.node].want(&topic);
        on.wanted.push(topic.clone());
        on.operation = Operation::Joining(topic, [From::Live, From::Here, From::Cursor][which % 3]);
    }

    pub(crate) fn leave(&mut self, nodes: &mut [Node], which: usize) {
        let Some(on) = self.on.as_mut().filter(|on| on.is_idle()) else { return };
        let Some(topic) = on.wanted.get(which).cloned() else { return };
        on.resume.iter_mut().for_each(|resume| resume.remove(&topic));
        let leave = Entry::Leave(on.id, topic.clone());
        nodes[on.node].shards[on.shard].inbox.push_back(leave);
        on.operation = Operation::Leaving(topic);
    }

    /// Does what comes next: connects, enters, reads pages, sends up to `budget` replayed messages.
    pub(crate) fn go_on(&mut self, nodes: &mut [Node], log: &Log, budget: usize) {
        let Some(mut on) = self.on.take() else { return self.connect(nodes) };
        let node = &mut nodes[on.node];
        let ended = on.member(node).is_none_or(|member| member.ended);
        if ended || self.operate(&mut on, node, log, budget).is_err() {
            return self.come_back(on, node);
        }
        self.on = Some(on);
    }

    fn operate(
        &mut self,
        on: &mut Connection,
        node: &mut Node,
        log: &Log,
        budget: usize,
    ) -> Result<(), Broken> {
        let published = |topic: &Topic| log.topics[log::number(topic)].len() as u64;
        let reply = on.member(node).and_then(|member| member.reply.take());
        on.operation = match std::mem::replace(&mut on.operation, Operation::None) {
            Operation::None => {
                self.pull(on, node, log, budget, reply)?;
                Operation::None
            }
            Operation::Wanting if on.wanted.iter().all(|t| node.positions.is_ready(t)) => {
                on.since = on.wanted.iter().map(|t| (t.clone(), published(t))).collect();
                node.point(on.shard);
                on.cursor.clone_from(&self.cursor);
                on.put(node, Entry::Attach(on.id, on.wanted.clone(), on.cursor.is_some()));
                Operation::Entering
            }
            Operation::Entering if reply.is_some() => match on.cursor.take() {
                None => Operation::None,
                Some(_) if self.garbled => {
                    on.put(node, Entry::Pull(on.id, None));
                    Operation::Beginning
                }
                Some(cursor) => {
                    let mut resume = Resume::new(cursor.clone());
                    for topic in &on.wanted {
                        let partition = log.partition(topic);
                        resume.add(topic.clone(), partition, cursor[usize::from(partition)]);
                    }
                    on.resume = Some(resume);
                    Operation::Proving
                }
            },
            Operation::Beginning => match reply {
                Some(Reply::Pulls(Starts { topics, marks }, _)) => {
                    let mut resume = Resume::new(vec![Mark::NOWHERE; marks.len()]);
                    for (topic, here) in topics {
                        resume.go_on(topic.clone(), log.partition(&topic), here);
                        resume.miss(&topic, GapReason::Cursor);
                    }
                    on.resume = Some(resume);
                    Operation::Proving
                }
                _ => Operation::Beginning,
            },
            Operation::Proving if on.read(log, budget)? => {
                let marks = on.resume.as_ref().map(Resume::marks).unwrap_or_default();
                on.put(node, Entry::Open(on.id, marks));
                Operation::Opening
            }
            Operation::Opening if reply.is_some() => Operation::None,
            Operation::Joining(topic, from) if node.positions.is_ready(&topic) => {
                on.joining.insert(topic.clone(), published(&topic));
                node.point(on.shard);
                let is_live = from == From::Live && on.resume.is_none();
                on.put(
                    node,
                    match is_live {
                        true => Entry::Room(on.id, topic.clone()),
                        false => Entry::Pull(on.id, Some(topic.clone())),
                    },
                );
                Operation::EnteringRoom(topic, from)
            }
            Operation::EnteringRoom(topic, from) => match reply {
                None => Operation::EnteringRoom(topic, from),
                Some(Reply::Pulls(starts, here)) => {
                    let mut resume = on.resume.take().unwrap_or_else(|| resume(log, starts));
                    let partition = log.partition(&topic);
                    let here = here.expect("it has entered");
                    let cursor = self.cursor.clone().filter(|_| from == From::Cursor);
                    match cursor {
                        Some(marks) => {
                            let mark = marks[usize::from(partition)];
                            if let Some(owed) = log.published_to(&topic, mark) {
                                on.joining.insert(topic.clone(), owed);
                            }
                            resume.add(topic.clone(), partition, mark);
                        }
                        None => resume.go_on(topic.clone(), partition, here),
                    }
                    on.resume = Some(resume);
                    Operation::ProvingRoom(topic, from, here)
                }
                Some(Reply::In | Reply::Overflown) => Operation::None,
            },
            Operation::ProvingRoom(topic, from, here) => {
                // Sometimes it cannot be read in time, of which a gap tells whoever brought a cursor.
                let late = budget == 3 && (from != From::Cursor || log.may_be_late);
                if !late && !on.read(log, budget)? {
                    Operation::ProvingRoom(topic, from, here)
                } else {
                    let Some(resume) = &mut on.resume else { return Ok(()) };
                    let unproven = late && !resume.is_proven();
                    if unproven {
                        resume.unask();
                        on.pages.clear();
                        resume.remove(&topic);
                        resume.go_on(topic.clone(), log.partition(&topic), here);
                        if from == From::Cursor {
                            resume.miss(&topic, GapReason::Outage);
                        }
                    }
                    let joined = Out::Joined(topic, resume.marks());
                    on.say(node, joined);
                    Operation::None
                }
            }
            Operation::Leaving(topic) if reply.is_some() => {
                node.give_up(&topic);
                on.wanted.retain(|wanted| *wanted != topic);
                Operation::None
            }
            waits => waits,
        };
        Ok(())
    }

    fn connect(&mut self, nodes: &mut [Node]) {
        self.connections += 1;
        let number = (self.connections as usize + self.number) % nodes.len();
        let node = &mut nodes[number];
        if !node.alive {
            return;
        }
        let (id, shard) =
            (self.connections * 10 + self.number as u64, self.number % node.shards.len());
        let wanted: Vec<_> = self.topics.iter().cloned().collect();
        wanted.iter().for_each(|topic| node.want(topic));
        node.shards[shard].members.insert(id, Member::default());
        self.on = Some(Connection {
            node: number,
            shard,
            id,
            operation: Operation::Wanting,
            cursor: None,
            resume: None,
            pages: Vec::new(),
            going_live: false,
            wanted,
            since: BTreeMap::new(),
            joining: BTreeMap::new(),
            here: BTreeMap::new(),
        });
    }

    /// The replay goes on.
    fn pull(
        &mut self,
        on: &mut Connection,
        node: &mut Node,
        log: &Log,
        budget: usize,
        reply: Option<Reply>,
    ) -> Result<(), Broken> {
        if on.going_live {
            match (reply, &mut on.resume) {
                (None, _) => return Ok(()),
                (Some(Reply::Overflown), Some(resume)) => resume.again(),
                _ => on.resume = None,
            }
            on.going_live = false;
        }
        on.read(log, budget)?;
        let mut outs = Vec::new();
        let Some(resume) = &mut on.resume else { return Ok(()) };
        for _ in 0..budget {
            match resume.take() {
                None => break,
                Some(Replay::Gap(topic, _)) => outs.push(Out::Gap(topic)),
                Some(Replay::Deliver(delivery, marks)) => {
                    outs.push(Out::Message(Sent::new(delivery, marks)));
                }
            }
        }
        if resume.is_level() {
            let live = Entry::Live(on.id, resume.floors());
            on.going_live = true;
            on.put(node, live);
        }
        outs.into_iter().for_each(|out| on.say(node, out));
        Ok(())
    }

    /// The connection ends by itself: what is queued is still received.
    fn come_back(&mut self, mut on: Connection, node: &mut Node) {
        let member = node.shards[on.shard].detach(on.id);
        on.wanted.iter().for_each(|topic| node.give_up(topic));
        for out in member.map(|m| m.out).unwrap_or_default() {
            self.take(out, &mut on);
        }
    }

    /// Up to `count` frames reach the client.
    pub(crate) fn receive(&mut self, nodes: &mut [Node], count: usize) {
        let Some(mut on) = self.on.take() else { return };
        if let Some(member) = on.member(&mut nodes[on.node]) {
            let count = count.min(member.out.len());
            for out in member.out.drain(..count).collect::<Vec<_>>() {
                self.take(out, &mut on);
            }
        }
        self.on = Some(on);
    }

    fn take(&mut self, out: Out, on: &mut Connection) {
        match out {
            Out::Connected(marks) => {
                // Owed from here on, once the client knows of it.
                for (topic, published) in std::mem::take(&mut on.since) {
                    self.since.entry(topic).or_insert(published);
                }
                (self.cursor, self.garbled) = (Some(marks), false);
            }
            Out::Joined(topic, marks) => {
                if let Some(published) = on.joining.remove(&topic) {
                    self.topics.insert(topic.clone());
                    self.since.entry(topic).or_insert(published);
                }
                self.cursor = Some(marks);
            }
            Out::Left(topic) => {
                // Whoever joins again may be sent again what came before.
                on.here.remove(&topic);
                self.topics.remove(&topic);
                self.since.remove(&topic);
            }
            Out::Gap(topic) => {
                self.gaps += 1;
                self.got.entry(topic).or_default().push(None);
            }
            Out::Message(sent) => {
                let topic = sent.topic();
                let payload = sent.0.0.message.payload.clone();
                let payload = payload.expect("every message has its number");
                let number = serde_json::from_slice(payload.bytes()).expect("a number");
                let before = on.here.insert(topic.clone(), number);
                assert!(
                    before < Some(number),
                    "{topic:?}: {number} after {before:?} in one connection"
                );
                self.got.entry(topic.clone()).or_default().push(Some(number));
                self.cursor = Some(sent.0.1.clone());
            }
        }
    }

    /// Nothing is missing that no gap in its place covers.
    pub(crate) fn check(&self, log: &Log, whole: bool) {
        assert!(!whole || self.gaps == 0, "client {} was told of {} gaps", self.number, self.gaps);
        for topic in &self.topics {
            let published = log.topics[log::number(topic)].len() as u64;
            let Some(&since) = self.since.get(topic) else { continue };
            let got = self.got.get(topic).map_or(&[][..], Vec::as_slice);
            for missing in (since + 1..=published).filter(|n| !got.contains(&Some(*n))) {
                // After the last earlier message and before the first later one.
                let from =
                    got.iter().rposition(|g| g.is_some_and(|n| n < missing)).map_or(0, |at| at + 1);
                let gap = got[from..]
                    .iter()
                    .take_while(|g| g.is_none_or(|n| n < missing))
                    .any(Option::is_none);
                assert!(
                    gap,
                    "client {} lost {missing} of {published} in {topic:?}: {got:?}",
                    self.number
                );
            }
        }
    }

    /// The last message of each of its topics has come on this connection.
    pub(crate) fn check_present(&self, log: &Log) {
        let on = self.on.as_ref().expect("all are connected in the end");
        for topic in &self.topics {
            let published = log.topics[log::number(topic)].len() as u64;
            assert_eq!(on.here.get(topic), Some(&published), "{topic:?} of client {}", self.number);
        }
    }
}

/// The store changed: the client has to come back.
struct Broken;

/// A replay of all topics of an open connection.
fn resume(log: &Log, Starts { marks, topics }: Starts) -> Resume {
    let mut resume = Resume::new(marks);
    for (topic, from) in topics {
        let partition = log.partition(&topic);
        resume.go_on(topic, partition, from);
    }
    resume
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.operation == Operation::None && !self.going_live
    }

    fn member<'a>(&self, node: &'a mut Node) -> Option<&'a mut Member> {
        node.shards[self.shard].members.get_mut(&self.id)
    }

    fn put(&self, node: &mut Node, entry: Entry) {
        node.shards[self.shard].inbox.push_back(entry);
    }

    fn say(&self, node: &mut Node, out: Out) {
        if let Some(member) = self.member(node) {
            member.push(out);
        }
    }

    /// Pages are read now and arrive with the next step. Answers whether it is known what was missed.
    fn read(&mut self, log: &Log, budget: usize) -> Result<bool, Broken> {
        let Some(resume) = &mut self.resume else { return Ok(true) };
        for (topic, page) in std::mem::take(&mut self.pages) {
            resume.page(&topic, page).map_err(|_| Broken)?;
        }
        for (topic, after) in resume.wants() {
            let page = log.after(&topic, after, budget);
            self.pages.push((topic, page));
        }
        Ok(resume.is_proven())
    }
}
