//! The one order of a topic's messages, found from what all connections saw.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use super::history::{ClientRecord, ConnectionRecord, Fate, MessageId, Published, Seen, TopicId};

/// The messages of one topic in the order that all connections agree with.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    pub(super) messages: Vec<&'a Published>,
    positions: HashMap<MessageId, usize>,
    /// Pairs of messages that some connections saw one way round and some the other.
    pub(super) disagreements: Vec<(MessageId, MessageId)>,
}

impl Log<'_> {
    pub(super) fn position(&self, id: MessageId) -> Option<usize> {
        self.positions.get(&id).copied()
    }
}

/// Orders the messages of every topic that were acknowledged. Within a topic these hold: a publisher's messages follow their numbers, and a
/// message that a connection saw directly after another follows it. Where that leaves a choice, what was first seen
/// earlier is first; what nobody saw counts from its acknowledgement. Where a store may be two for a while (`forks`),
/// nothing is known across a `gap`, nor of a message that was tried more than once and so may be in both.
pub(super) fn logs<'a>(
    published: &'a [Published],
    clients: &[ClientRecord],
    forks: bool,
) -> HashMap<TopicId, Log<'a>> {
    let mut topics: HashMap<TopicId, Vec<&Published>> = HashMap::new();
    for message in published.iter().filter(|message| message.fate.is_done()) {
        topics.entry(message.id.topic).or_default().push(message);
    }
    let mut graphs: HashMap<_, _> =
        topics.into_iter().map(|(topic, messages)| (topic, Graph::new(messages))).collect();
    for connection in clients.iter().flat_map(|client| &client.connections) {
        add_connection(&mut graphs, connection, forks);
    }
    graphs.into_iter().map(|(topic, graph)| (topic, graph.sort())).collect()
}

fn add_connection(
    graphs: &mut HashMap<TopicId, Graph<'_>>,
    connection: &ConnectionRecord,
    forks: bool,
) {
    let mut last: HashMap<TopicId, usize> = HashMap::new();
    let mut highest: HashMap<(TopicId, u16), u32> = HashMap::new();
    for seen in &connection.seen {
        if let (Seen::Gap(topic, ..), true) = (seen, forks) {
            last.remove(topic);
            highest.retain(|(of, _), _| of != topic);
        }
        let Seen::Message(id, at) = seen else { continue };
        let Some(graph) = graphs.get_mut(&id.topic) else { continue };
        let Some(&index) = graph.indexes.get(id) else { continue };
        let at = Duration::from_millis((*at).into());
        graph.known[index] = graph.known[index].min(at);
        if forks && graph.messages[index].fate == Fate::Repeated {
            continue;
        }
        let highest = highest.entry((id.topic, id.publisher)).or_default();
        if id.sequence <= *highest {
            // A double, or a swap within one publisher: no witness of an order.
            continue;
        }
        *highest = id.sequence;
        if let Some(before) = last.insert(id.topic, index) {
            graph.edges.insert((before, index));
        }
    }
}

#[derive(Debug)]
struct Graph<'a> {
    messages: Vec<&'a Published>,
    indexes: HashMap<MessageId, usize>,
    edges: HashSet<(usize, usize)>,
    /// By when each was certainly published.
    known: Vec<Duration>,
}

impl<'a> Graph<'a> {
    fn new(mut messages: Vec<&'a Published>) -> Self {
        messages.sort_by_key(|message| (message.id.publisher, message.id.sequence));
        let indexes = messages.iter().enumerate().map(|(index, m)| (m.id, index)).collect();
        let follows =
            |index: &usize| messages[index - 1].id.publisher == messages[*index].id.publisher;
        let edges = (1..messages.len()).filter(follows).map(|index| (index - 1, index)).collect();
        let known = messages.iter().map(|message| message.acknowledged).collect();
        Self { messages, indexes, edges, known }
    }

    fn sort(self) -> Log<'a> {
        let count = self.messages.len();
        let (mut after, mut waits) = (vec![Vec::new(); count], vec![0_usize; count]);
        for &(before, index) in &self.edges {
            after[before].push(index);
            waits[index] += 1;
        }
        let key = |index: usize| Reverse((self.known[index], index));
        let mut ready: BinaryHeap<_> = (0..count).filter(|&i| waits[i] == 0).map(key).collect();
        let mut done = vec![false; count];
        let mut log = Log::default();
        while log.messages.len() < count {
            let index = match ready.pop() {
                Some(Reverse((_, index))) => index,
                None => self.break_circle(&done, &mut log.disagreements),
            };
            if std::mem::replace(&mut done[index], true) {
                continue;
            }
            log.positions.insert(self.messages[index].id, log.messages.len());
            log.messages.push(self.messages[index]);
            for &next in &after[index] {
                waits[next] = waits[next].saturating_sub(1);
                if waits[next] == 0 && !done[next] {
                    ready.push(key(next));
                }
            }
        }
        log
    }

    /// The earliest message left, and who contradicts it.
    fn break_circle(&self, done: &[bool], found: &mut Vec<(MessageId, MessageId)>) -> usize {
        let left = (0..done.len()).filter(|&i| !done[i]);
        let first = left.min_by_key(|&i| (self.known[i], i)).unwrap_or_default();
        let before = self.edges.iter().filter(|(b, i)| *i == first && !done[*b]).map(|(b, _)| *b);
        if let Some(before) = before.min() {
            found.push((self.messages[before].id, self.messages[first].id));
        }
        first
    }
}
