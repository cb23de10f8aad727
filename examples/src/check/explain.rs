//! What stands around a broken promise, for people.

use std::fmt::Write as _;

use super::history::{ClientRecord, MessageId, Published, Seen, TopicId, Topics};
use super::verdict::Violation;

/// What the client saw of the topic around a violation, and when the message was published.
pub fn explain(
    violation: &Violation,
    topics: &Topics,
    published: &[Published],
    records: &[ClientRecord],
) -> String {
    let mut text = format!("{violation}\n");
    let (client, connection, message) = match violation {
        Violation::Lost { client, connection, first, .. } => (client, *connection, *first),
        Violation::Swapped { client, connection, late, .. } => (client, *connection, *late),
        Violation::Doubled { client, connection, message } => (client, *connection, *message),
        Violation::Gap { client, connection, topic, .. } => {
            (client, *connection, MessageId { topic: *topic, publisher: 0, sequence: 0 })
        }
        _ => return text,
    };
    if let Some(found) = published.iter().find(|published| published.id == message) {
        let _ = writeln!(
            text,
            "  {message} to {}: begun {:.3}, acknowledged {:.3}",
            topics.address(message.topic),
            found.begun.as_secs_f64(),
            found.acknowledged.as_secs_f64()
        );
    }
    let record = records.iter().find(|record| record.name == *client);
    let connections = record.map(|record| record.connections.iter().enumerate());
    for (number, seen) in connections.into_iter().flatten() {
        if number + 2 < connection || number > connection + 1 {
            continue;
        }
        let _ = writeln!(
            text,
            "  connection {number} to node {} at {:.3}, cursor {}, recovered {:?}, ended: {}\n    {}",
            seen.node,
            seen.opened.as_secs_f64(),
            seen.resumed,
            seen.recovered,
            seen.end,
            of_topic(&seen.seen, message)
        );
    }
    text
}

/// The events of a topic, the many messages between the first and the last ones left out.
fn of_topic(seen: &[Seen], around: MessageId) -> String {
    let topic = around.topic;
    let told: Vec<(String, bool)> =
        seen.iter().filter_map(|seen| told(seen, topic, around)).collect();
    let near = |at: usize| {
        at < SHOWN
            || at + SHOWN >= told.len()
            || told[at.saturating_sub(SHOWN)..(at + SHOWN).min(told.len())].iter().any(|t| t.1)
    };
    let mut text = String::new();
    let mut left_out = 0;
    for (at, (one, _)) in told.iter().enumerate() {
        if near(at) {
            if left_out > 0 {
                let _ = write!(text, "… {left_out} … ");
                left_out = 0;
            }
            let _ = write!(text, "{one} ");
        } else {
            left_out += 1;
        }
    }
    text
}

/// One event of the topic, and whether it is one to look at closely.
fn told(seen: &Seen, topic: TopicId, around: MessageId) -> Option<(String, bool)> {
    match seen {
        Seen::Joined { topic: other, at } if *other == topic => {
            Some((format!("joined@{:.3}", at.as_secs_f64()), true))
        }
        Seen::Gap(other, reason, at) if *other == topic => {
            let at = f64::from(*at) / 1000.0;
            Some((format!("gap:{reason}@{at:.3}"), true))
        }
        Seen::Message(id, at) if id.topic == topic => {
            let near =
                id.publisher == around.publisher && id.sequence.abs_diff(around.sequence) <= 1;
            let at = f64::from(*at) / 1000.0;
            Some((format!("{}#{}@{at:.3}", id.publisher, id.sequence), near))
        }
        _ => None,
    }
}

const SHOWN: usize = 3;
