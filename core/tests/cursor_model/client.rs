//! A client of the model: it is cut, comes back to any node with its newest cursor, joins late, and remembers all it got.

use std::collections::{BTreeMap, BTreeSet};

use tidings_core::{HistoryPage, Mark, Replay, Resume, Topic};

use crate::log::{self, Log};
use crate::node::{Entry, Member, Node, Out, all_topics};

pub(crate) struct Client {
    number: usize,
    topics: BTreeSet<Topic>,
    cursor: Option<Box<[Mark]>>,
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
    state: State,
    /// Where it comes back from.
    cursor: Option<Box<[Mark]>>,
    resume: Option<Resume>,
    pages: Vec<(Topic, HistoryPage)>,
    /// A room that was asked for, and what was published in it when it was ready.
    joining: Option<(Topic, Option<u64>)>,
    wanted: Vec<Topic>,
    /// What was published in each topic when it was entered.
    since: BTreeMap<Topic, u64>,
    /// Per topic the last number of this connection.
    here: BTreeMap<Topic, u64>,
}

#[derive(PartialEq)]
enum State {
    /// Its topics are wanted.
    Wanting,
    /// It waits for its shard.
    Entering,
    Pulling,
    In,
}

impl Client {
    pub(crate) fn new(number: usize) -> Self {
        let topics = all_topics().skip(number).take(2 + number % 3).collect();
        let (since, got) = (BTreeMap::new(), BTreeMap::new());
        Self { number, topics, cursor: None, since, got, gaps: 0, connections: 0, on: None }
    }

    pub(crate) fn cut(&mut self, nodes: &mut [Node]) {
        let Some(on) = self.on.take() else { return };
        nodes[on.node].shards[on.shard].members.remove(&on.id);
        on.wanted.iter().for_each(|topic| nodes[on.node].give_up(topic));
        // A room that was never answered is not owed.
        self.topics.retain(|topic| {
            on.state == State::Wanting || on.joining.as_ref().is_none_or(|(t, _)| t != topic)
        });
    }

    pub(crate) fn join(&mut self, nodes: &mut [Node], which: usize) {
        let Some(on) = self.on.as_mut().filter(|on| on.state == State::In && on.joining.is_none())
        else {
            return;
        };
        let new: Vec<_> = all_topics().filter(|t| !self.topics.contains(t)).collect();
        let Some(topic) = new.get(which % new.len().max(1)).cloned() else { return };
        nodes[on.node].want(&topic);
        on.wanted.push(topic.clone());
        on.joining = Some((topic, None));
    }

    /// Does what comes next: connects, enters, reads pages, sends up to `budget` replayed messages.
    pub(crate) fn go_on(&mut self, nodes: &mut [Node], log: &Log, budget: usize) {
        let Some(on) = &mut self.on else { return self.connect(nodes) };
        let node = &mut nodes[on.node];
        match on.state {
            State::Wanting if on.wanted.iter().all(|t| node.positions.is_ready(t)) => {
                let published = |topic: &Topic| log.topics[log::number(topic)].len() as u64;
                on.since =
                    self.topics.iter().map(|topic| (topic.clone(), published(topic))).collect();
                node.point(on.shard);
                on.cursor.clone_from(&self.cursor);
                let resumes = on.cursor.is_some();
                let topics = self.topics.iter().cloned().collect();
                node.shards[on.shard].inbox.push_back(Entry::Attach(on.id, topics, resumes));
                on.state = State::Entering;
            }
            State::Wanting => {}
            State::Entering => {
                if !node.shards[on.shard].members.get(&on.id).is_some_and(|m| m.is_in) {
                    return;
                }
                let Some(cursor) = on.cursor.take() else {
                    on.state = State::In;
                    return;
                };
                let mut resume = Resume::new(cursor.clone());
                for topic in &self.topics {
                    let partition = log.partition(topic);
                    resume.add(topic.clone(), partition, cursor[usize::from(partition)]);
                }
                (on.state, on.resume) = (State::Pulling, Some(resume));
            }
            State::Pulling => self.pull(node, log, budget),
            State::In => {
                let Some((topic, published)) = &mut on.joining else { return };
                if published.is_none() && node.positions.is_ready(topic) {
                    *published = Some(log.topics[log::number(topic)].len() as u64);
                    node.point(on.shard);
                    node.shards[on.shard].inbox.push_back(Entry::Room(on.id, topic.clone()));
                }
            }
        }
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
        let (resume, pages, joining, since, here) =
            (None, Vec::new(), None, BTreeMap::new(), BTreeMap::new());
        let state = State::Wanting;
        self.on = Some(Connection {
            node: number,
            shard,
            id,
            state,
            cursor: None,
            resume,
            pages,
            joining,
            wanted,
            since,
            here,
        });
    }

    fn pull(&mut self, node: &mut Node, log: &Log, budget: usize) {
        let Some(on) = &mut self.on else { return };
        let Some(resume) = &mut on.resume else { return };
        // Pages are read now and arrive with the next step.
        let pages = std::mem::take(&mut on.pages);
        if pages.into_iter().any(|(topic, page)| resume.page(&topic, page).is_err()) {
            return self.leave_broken(node);
        }
        for (topic, after) in resume.wants() {
            let page = log.after(&topic, after, budget);
            on.pages.push((topic, page));
        }
        if !resume.is_proven() {
            return;
        }
        let Some(member) = node.shards[on.shard].members.get_mut(&on.id) else { return };
        for _ in 0..budget {
            match resume.take() {
                None => break,
                Some(Replay::Gap(topic, _)) => member.out.push_back(Out::Gap(topic)),
                Some(Replay::Deliver(delivery, marks)) => {
                    member.out.push_back(Out::Message(delivery, marks));
                }
            }
        }
        if resume.is_level() {
            let floors = resume.floors().map(|(topic, epoch, clock)| (topic.clone(), epoch, clock));
            let live = Entry::Live(on.id, floors.collect());
            node.shards[on.shard].inbox.push_back(live);
            (on.state, on.resume) = (State::In, None);
        }
    }

    /// The store changed during the replay: what is in the outbox is still received, then the connection ends.
    fn leave_broken(&mut self, node: &mut Node) {
        let Some(mut on) = self.on.take() else { return };
        let member = node.shards[on.shard].members.remove(&on.id);
        on.wanted.iter().for_each(|topic| node.give_up(topic));
        for out in member.map(|m| m.out).unwrap_or_default() {
            self.take(out, &mut on);
        }
    }

    /// Up to `count` frames reach the client.
    pub(crate) fn receive(&mut self, nodes: &mut [Node], count: usize) {
        let Some(mut on) = self.on.take() else { return };
        if let Some(member) = nodes[on.node].shards[on.shard].members.get_mut(&on.id) {
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
                self.since.append(&mut on.since);
                self.cursor = Some(marks);
            }
            Out::Joined(topic, marks) => {
                if let Some((joined, Some(published))) = on.joining.take() {
                    assert_eq!(joined, topic);
                    self.topics.insert(joined.clone());
                    self.since.entry(joined).or_insert(published);
                }
                self.cursor = Some(marks);
            }
            Out::Gap(topic) => {
                self.gaps += 1;
                self.got.entry(topic).or_default().push(None);
            }
            Out::Message(delivery, marks) => {
                let payload = delivery.message.payload.expect("every message has its number");
                let number = serde_json::from_slice(payload.bytes()).expect("a number");
                let before = on.here.insert(delivery.topic.clone(), number);
                let topic = &delivery.topic;
                assert!(
                    before < Some(number),
                    "{topic:?}: {number} after {before:?} in one connection"
                );
                self.got.entry(delivery.topic).or_default().push(Some(number));
                self.cursor = Some(marks);
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
}
