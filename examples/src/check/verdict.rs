//! The checker: what was published and acknowledged against what each client saw. No clock, no network.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::history::{ClientRecord, ConnectionRecord, MessageId, Published, Seen, TopicId};
use super::order::{Log, logs};

/// What a run must keep besides losing nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// No client may be told of a `gap`, since nothing that was kept was lost.
    pub no_gap: bool,
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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "published {} delivered {} repeated {} resumed {} recovered {} gaps {:?} covered {} violations {}",
            self.published,
            self.delivered,
            self.repeated,
            self.resumed.0,
            self.resumed.1,
            self.gaps,
            self.covered,
            self.violations.len()
        )?;
        self.violations.iter().take(SHOWN).try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// Compares everything that was acknowledged with what every client saw.
///
/// A client must get what was begun after it joined a topic. What is missing between two messages is excused by a
/// `gap` of that topic between them, and by nothing else. Across connections a message may come again.
pub fn verdict(published: &[Published], clients: &[ClientRecord], rules: Rules) -> Report {
    let logs = logs(published, clients);
    let mut report = Report { published: published.len(), ..Report::default() };
    let mut topics: Vec<_> = logs.iter().collect();
    topics.sort_by_key(|(topic, _)| **topic);
    for (_, log) in topics {
        let pairs = log.disagreements.iter();
        report.violations.extend(pairs.map(|&(a, b)| Violation::Disagreement(a, b)));
        report.violations.extend(overtaken(log));
    }
    for client in clients {
        Reading { client, logs: &logs, rules, topics: BTreeMap::new(), report: &mut report }.read();
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
    /// What it got last on this connection.
    last: Option<usize>,
}

struct Reading<'a> {
    client: &'a ClientRecord,
    logs: &'a HashMap<TopicId, Log<'a>>,
    rules: Rules,
    topics: BTreeMap<TopicId, Place>,
    report: &'a mut Report,
}

impl Reading<'_> {
    fn read(mut self) {
        for (number, connection) in self.client.connections.iter().enumerate() {
            self.topics.values_mut().for_each(|place| place.last = None);
            if connection.resumed && connection.recovered.is_some() {
                self.report.resumed.0 += 1;
                self.report.resumed.1 += usize::from(connection.recovered == Some(true));
            }
            self.connection(number, connection);
        }
        let number = self.client.connections.len().saturating_sub(1);
        for topic in self.topics.keys().copied().collect::<Vec<_>>() {
            let end = self.logs.get(&topic).map_or(0, |log| log.messages.len());
            self.missing(number, topic, end);
        }
    }

    fn connection(&mut self, number: usize, connection: &ConnectionRecord) {
        for seen in &connection.seen {
            match seen {
                Seen::Joined { topic, at } => {
                    self.topics.entry(*topic).or_default().joined.get_or_insert(*at);
                }
                Seen::Gap(topic, reason) => self.gap(number, *topic, reason),
                Seen::Message(id, _) => self.message(number, connection, *id),
            }
        }
    }

    fn gap(&mut self, connection: usize, topic: TopicId, reason: &str) {
        *self.report.gaps.entry(reason.to_owned()).or_default() += 1;
        self.topics.entry(topic).or_default().gap = true;
        if self.rules.no_gap {
            let (client, reason) = (self.client.name.clone(), reason.into());
            self.report.violations.push(Violation::Gap { client, connection, topic, reason });
        }
    }

    fn message(&mut self, number: usize, connection: &ConnectionRecord, id: MessageId) {
        let client = || self.client.name.clone();
        let logs = self.logs;
        let found = logs.get(&id.topic).and_then(|log| Some((log, log.position(id)?)));
        let Some((log, position)) = found else {
            return self
                .report
                .violations
                .push(Violation::Unknown { client: client(), message: id });
        };
        self.report.delivered += 1;
        if self.is_excepted(log.messages[position]) {
            let violation = Violation::Excepted { client: client(), message: id };
            return self.report.violations.push(violation);
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
        self.missing(number, id.topic, position);
        let place = self.topics.entry(id.topic).or_default();
        self.report.repeated += usize::from(place.next.is_some_and(|next| position < next));
        place.last = Some(position);
        place.next = place.next.max(Some(position + 1));
        place.gap = false;
    }

    /// Judges what should have come before the message at `position`.
    fn missing(&mut self, connection: usize, topic: TopicId, position: usize) {
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
        let gap = place.gap;
        let missing = log.messages.get(from..position).unwrap_or_default();
        let missing: Vec<_> = missing.iter().filter(|m| !self.is_excepted(m)).collect();
        let (count, Some(first)) = (missing.len(), missing.first().map(|m| m.id)) else { return };
        if gap {
            self.report.covered += count;
            return;
        }
        let next = log.messages.get(position).map(|m| m.id);
        let client = self.client.name.clone();
        self.report.violations.push(Violation::Lost { client, connection, first, count, next });
    }

    fn is_excepted(&self, message: &Published) -> bool {
        message.except.as_deref() == Some(self.client.user.as_str())
    }
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
