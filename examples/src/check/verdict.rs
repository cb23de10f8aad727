//! The checker: what was published and acknowledged against what each client saw. No clock, no network.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::history::{ClientRecord, ConnectionRecord, Fate, MessageId, Published, Seen, TopicId};
use super::order::{Log, logs};

/// What a run must keep besides losing nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// No client may be told of a `gap`, since nothing that was kept was lost.
    pub no_gap: bool,
    /// The store may be two for a while, since a primary that was replaced does not know it yet. What went into the one
    /// is unknown in the other, and a `gap` may say so only so much later.
    pub forks: Option<Duration>,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Messages of a topic never came, and no `gap` said so before the next one did.
    Lost {
        /// The client.
        client: String,
        /// Its connection on which they were due, from 0.
        connection: usize,
        /// The first of them.
        first: MessageId,
        /// How many.
        count: usize,
        /// What came instead; `None` when nothing did.
        next: Option<MessageId>,
    },
    /// A message came after one that follows it.
    Swapped {
        /// The client.
        client: String,
        /// Its connection, from 0.
        connection: usize,
        /// What came late.
        late: MessageId,
        /// What had come before it.
        after: MessageId,
    },
    /// A message came twice on one connection.
    Doubled {
        /// The client.
        client: String,
        /// Its connection, from 0.
        connection: usize,
        /// The message.
        message: MessageId,
    },
    /// A message came to the user who was excepted.
    Excepted {
        /// The client.
        client: String,
        /// The message.
        message: MessageId,
    },
    /// A message came that nobody published.
    Unknown {
        /// The client.
        client: String,
        /// The message.
        message: MessageId,
    },
    /// A message came although its publisher was told that it was not done and never will be.
    NotDone {
        /// The client.
        client: String,
        /// The message.
        message: MessageId,
    },
    /// A node does not show a user who is in a room.
    Missing {
        /// The node.
        node: usize,
        /// The room.
        topic: TopicId,
        /// The user.
        user: String,
    },
    /// A node shows a user who is no longer in a room.
    Ghost {
        /// The node.
        node: usize,
        /// The room.
        topic: TopicId,
        /// The user.
        user: String,
    },
    /// Two messages came to some connections one way round and to some the other.
    Disagreement(MessageId, MessageId),
    /// A message was begun after another was acknowledged, and yet delivered before it.
    Overtaken {
        /// What was acknowledged first.
        earlier: MessageId,
        /// What was begun later.
        later: MessageId,
    },
    /// A client was told of a `gap` in a run in which nothing was lost.
    Gap {
        /// The client.
        client: String,
        /// Its connection, from 0.
        connection: usize,
        /// The topic.
        topic: TopicId,
        /// The reason it was given.
        reason: Box<str>,
    },
}

impl Violation {
    /// Its kind in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Swapped { .. } => "swapped",
            Self::Doubled { .. } => "doubled",
            Self::Excepted { .. } => "excepted",
            Self::Unknown { .. } => "unknown",
            Self::NotDone { .. } => "not-done",
            Self::Missing { .. } => "missing",
            Self::Ghost { .. } => "ghost",
            Self::Disagreement(..) => "disagreement",
            Self::Overtaken { .. } => "overtaken",
            Self::Gap { .. } => "gap",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { client, connection, first, count, next } => {
                write!(f, "{client} connection {connection}: lost {count} from {first} on")?;
                next.map_or(Ok(()), |next| write!(f, ", {next} came instead"))
            }
            Self::Swapped { client, connection, late, after } => {
                write!(f, "{client} connection {connection}: {late} came after {after}")
            }
            Self::Doubled { client, connection, message } => {
                write!(f, "{client} connection {connection}: {message} came twice")
            }
            Self::Excepted { client, message } => {
                write!(f, "{client}: {message} came in spite of `except`")
            }
            Self::Unknown { client, message } => write!(f, "{client}: nobody published {message}"),
            Self::NotDone { client, message } => {
                write!(
                    f,
                    "{client}: {message} came, and its publisher had been told it was not done"
                )
            }
            Self::Missing { node, topic, user } => {
                write!(f, "node {node} does not show {user} in topic {}", topic.0)
            }
            Self::Ghost { node, topic, user } => {
                write!(f, "node {node} shows {user}, who is gone, in topic {}", topic.0)
            }
            Self::Disagreement(one, other) => write!(f, "{one} and {other} came in both orders"),
            Self::Overtaken { earlier, later } => {
                write!(f, "{later} was begun after {earlier} was acknowledged, and came before it")
            }
            Self::Gap { client, connection, topic, reason } => {
                write!(f, "{client} connection {connection}: gap `{reason}` in topic {}", topic.0)
            }
        }
    }
}

/// What the checker found.
#[derive(Debug, Default)]
pub struct Report {
    /// The broken promises; empty when all were kept.
    pub violations: Vec<Violation>,
    /// Publications that were acknowledged.
    pub published: usize,
    /// Publications of which the publisher was told that they were not done, and those of which it was told nothing.
    pub refused: (usize, usize),
    /// Messages that clients got.
    pub delivered: usize,
    /// Those of them that a client had got on an earlier connection.
    pub repeated: usize,
    /// Connections that a client made with a cursor, and how many of these were `recovered`.
    pub resumed: (usize, usize),
    /// `gap`s by reason.
    pub gaps: BTreeMap<String, usize>,
    /// Messages that did not come and that a `gap` covers.
    pub covered: usize,
    /// Holes that a `gap` told only after something else had come.
    pub told_late: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "published {} not done {} unknown {} delivered {} repeated {} resumed {} recovered {} gaps {:?} covered {} told late {} violations {}",
            self.published,
            self.refused.0,
            self.refused.1,
            self.delivered,
            self.repeated,
            self.resumed.0,
            self.resumed.1,
            self.gaps,
            self.covered,
            self.told_late,
            self.violations.len()
        )?;
        self.violations.iter().take(SHOWN).try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// Compares everything that was published with what every client saw.
///
/// A client must get what was begun after it joined a topic. What is missing between two messages is excused by a
/// `gap` of that topic between them, and by nothing else. Across connections a message may come again. What was not
/// done must not come; what nobody was told of may.
pub fn verdict(published: &[Published], clients: &[ClientRecord], rules: Rules) -> Report {
    let logs = logs(published, clients, rules.forks.is_some());
    let count = |fate| published.iter().filter(|message| message.fate == fate).count();
    let refused = (count(Fate::NotDone), count(Fate::Unknown));
    let done = published.len() - refused.0 - refused.1;
    let mut report = Report { published: done, refused, ..Report::default() };
    let refused = published.iter().filter(|message| !message.fate.is_done());
    let refused: HashMap<_, _> = refused.map(|message| (message.id, message.fate)).collect();
    let mut topics: Vec<_> = logs.iter().collect();
    topics.sort_by_key(|(topic, _)| **topic);
    for (_, log) in topics {
        let pairs = log.disagreements.iter();
        report.violations.extend(pairs.map(|&(a, b)| Violation::Disagreement(a, b)));
        report.violations.extend(overtaken(log));
    }
    for client in clients {
        Reading {
            client,
            logs: &logs,
            refused: &refused,
            rules,
            topics: BTreeMap::new(),
            got: HashSet::new(),
            holes: Vec::new(),
            report: &mut report,
        }
        .read();
    }
    report
}

/// What was delivered before something that was acknowledged before it was begun.
fn overtaken(log: &Log<'_>) -> Option<Violation> {
    let mut latest: Option<&Published> = None;
    for message in &log.messages {
        match latest {
            Some(before) if message.acknowledged < before.begun => {
                return Some(Violation::Overtaken { earlier: message.id, later: before.id });
            }
            Some(before) if message.begun <= before.begun => {}
            _ => latest = Some(message),
        }
    }
    None
}

/// Where a client stands in a topic.
#[derive(Debug, Default)]
struct Place {
    joined: Option<Duration>,
    /// The first position that it has not got yet.
    next: Option<usize>,
    /// A `gap` came after the last message.
    gap: bool,
    /// When the last `gap` came, where the store may have lost something: who then asks anew knows all from before.
    told: Option<Duration>,
    /// What it got last on this connection.
    last: Option<usize>,
}

/// What did not come where it was due, at a time.
#[derive(Debug)]
struct Hole {
    connection: usize,
    first: MessageId,
    count: usize,
    next: Option<MessageId>,
    at: Duration,
}

struct Reading<'a> {
    client: &'a ClientRecord,
    logs: &'a HashMap<TopicId, Log<'a>>,
    refused: &'a HashMap<MessageId, Fate>,
    rules: Rules,
    topics: BTreeMap<TopicId, Place>,
    /// All that it got, where the order across a `gap` is not known.
    got: HashSet<MessageId>,
    /// Holes that a `gap` may still tell.
    holes: Vec<Hole>,
    report: &'a mut Report,
}

impl Reading<'_> {
    fn read(mut self) {
        if self.rules.forks.is_some() {
            let seen = self.client.connections.iter().flat_map(|connection| &connection.seen);
            let message = |seen: &Seen| match seen {
                Seen::Message(id, _) => Some(*id),
                _ => None,
            };
            self.got = seen.filter_map(message).collect();
        }
        for (number, connection) in self.client.connections.iter().enumerate() {
            self.topics.values_mut().for_each(|place| place.last = None);
            if connection.resumed && connection.recovered.is_some() {
                self.report.resumed.0 += 1;
                self.report.resumed.1 += usize::from(connection.recovered == Some(true));
            }
            self.connection(number, connection);
        }
        let number = self.client.connections.len().saturating_sub(1);
        let due = if self.client.left { Vec::new() } else { self.topics.keys().copied().collect() };
        for topic in due {
            let end = self.logs.get(&topic).map_or(0, |log| log.messages.len());
            self.missing(number, topic, end, Duration::MAX);
        }
        if let (true, Some(late)) = (self.client.left, self.rules.forks) {
            // It was gone before it had to be told.
            let ended = self.client.connections.last().map_or(Duration::ZERO, |last| last.ended);
            self.holes.retain(|hole| hole.at + late <= ended);
        }
        for Hole { connection, first, count, next, .. } in std::mem::take(&mut self.holes) {
            let client = self.client.name.clone();
            self.report.violations.push(Violation::Lost { client, connection, first, count, next });
        }
    }

    fn is_repeated(&self, id: MessageId) -> bool {
        let log = self.logs.get(&id.topic);
        let found = log.and_then(|log| Some(log.messages[log.position(id)?]));
        found.is_some_and(|message| message.fate == Fate::Repeated)
    }

    fn connection(&mut self, number: usize, connection: &ConnectionRecord) {
        for seen in &connection.seen {
            match seen {
                Seen::Joined { topic, at } => {
                    self.topics.entry(*topic).or_default().joined.get_or_insert(*at);
                }
                Seen::Gap(topic, reason, at) => self.gap(number, *topic, reason, millis(*at)),
                Seen::Message(id, at) => self.message(number, connection, *id, millis(*at)),
            }
        }
    }

    fn gap(&mut self, connection: usize, topic: TopicId, reason: &str, at: Duration) {
        *self.report.gaps.entry(reason.to_owned()).or_default() += 1;
        let place = self.topics.entry(topic).or_default();
        place.gap = true;
        if let Some(late) = self.rules.forks {
            place.told = Some(at);
            // The first word of a connection in a topic tells of all before it.
            let is_first = place.last.take().is_none();
            let before = self.holes.len();
            self.holes.retain(|hole| {
                hole.first.topic != topic || !is_first && at.saturating_sub(hole.at) > late
            });
            self.report.told_late += before - self.holes.len();
        }
        if self.rules.no_gap {
            let (client, reason) = (self.client.name.clone(), reason.into());
            self.report.violations.push(Violation::Gap { client, connection, topic, reason });
        }
    }

    fn message(
        &mut self,
        number: usize,
        connection: &ConnectionRecord,
        id: MessageId,
        at: Duration,
    ) {
        let client = || self.client.name.clone();
        let logs = self.logs;
        let found = logs.get(&id.topic).and_then(|log| Some((log, log.position(id)?)));
        let Some((log, position)) = found else {
            let violation = match self.refused.get(&id) {
                Some(Fate::NotDone) => Violation::NotDone { client: client(), message: id },
                Some(_) => return,
                None => Violation::Unknown { client: client(), message: id },
            };
            return self.report.violations.push(violation);
        };
        self.report.delivered += 1;
        if self.is_excepted(log.messages[position]) {
            let violation = Violation::Excepted { client: client(), message: id };
            return self.report.violations.push(violation);
        }
        if self.rules.forks.is_some() && self.is_repeated(id) {
            return;
        }
        let last = self.topics.entry(id.topic).or_default().last;
        if let Some(last) = last.filter(|&last| position <= last) {
            self.report.violations.push(if times(connection, id) > 1 {
                Violation::Doubled { client: client(), connection: number, message: id }
            } else {
                let after = log.messages[last].id;
                Violation::Swapped { client: client(), connection: number, late: id, after }
            });
            return;
        }
        self.missing(number, id.topic, position, at);
        let place = self.topics.entry(id.topic).or_default();
        let is_new = place.next.is_none_or(|next| position >= next);
        self.report.repeated += usize::from(!is_new);
        place.last = Some(position);
        place.next = place.next.max(Some(position + 1));
        // What comes again after a `gap` is what was kept before the hole.
        place.gap &= !is_new;
    }

    /// Judges what should have come before the message at `position`, which came at a time.
    fn missing(&mut self, connection: usize, topic: TopicId, position: usize, at: Duration) {
        let Some(log) = self.logs.get(&topic) else { return };
        let place = self.topics.entry(topic).or_default();
        let from = match (place.last, place.next, place.joined) {
            (Some(last), ..) => last + 1,
            (None, Some(next), _) => next,
            (None, None, Some(joined)) => {
                let due = log.messages.iter().position(|message| message.begun > joined);
                due.unwrap_or(log.messages.len())
            }
            (None, None, None) => return,
        };
        let (gap, told) = (place.gap, place.told);
        let missing = log.messages.get(from..position).unwrap_or_default();
        let is_due = |m: &&&Published| !self.is_excepted(m) && !self.got.contains(&m.id);
        let is_told = |m: &&&Published| told.is_some_and(|told| m.acknowledged <= told);
        let (covered, missing): (Vec<&&Published>, Vec<_>) =
            missing.iter().filter(is_due).partition(is_told);
        self.report.covered += covered.len();
        let (count, Some(first)) = (missing.len(), missing.first().map(|m| m.id)) else { return };
        if gap {
            self.report.covered += count;
            return;
        }
        let next = log.messages.get(position).map(|m| m.id);
        if self.rules.forks.is_some() {
            return self.holes.push(Hole { connection, first, count, next, at });
        }
        let client = self.client.name.clone();
        self.report.violations.push(Violation::Lost { client, connection, first, count, next });
    }

    fn is_excepted(&self, message: &Published) -> bool {
        message.except.as_deref() == Some(self.client.user.as_str())
    }
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

fn times(connection: &ConnectionRecord, id: MessageId) -> usize {
    connection
        .seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Message(other, _) if *other == id))
        .count()
}

/// Violations that a report prints.
const SHOWN: usize = 30;

#[cfg(test)]
mod tests;
