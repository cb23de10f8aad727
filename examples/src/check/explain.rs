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
    let (client, message) = match violation {
        Violation::Lost { client, first, .. } => (client, *first),
        Violation::Swapped { client, late, .. } => (client, *late),
        Violation::Doubled { client, message, .. }
        | Violation::Excepted { client, message }
        | Violation::Unknown { client, message } => (client, *message),
        Violation::Gap { client, topic, .. } => {
            (client, MessageId { topic: *topic, publisher: 0, sequence: 0 })
        }
        Violation::Disagreement(..) | Violation::Overtaken { .. } => return text,
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
    let begun = published.iter().find(|p| p.id == message).map(|p| p.begun);
    for record in records.iter().filter(|record| record.name == *client) {
        for (number, connection) in record.connections.iter().enumerate() {
            let next = record.connections.get(number + 1).map(|next| next.opened);
            let around = begun.is_none_or(|begun| {
                next.is_none_or(|next| next + AROUND > begun) && connection.opened < begun + AROUND
            });
            if around {
                let _ = writeln!(
                    text,
                    "  connection {number} to node {} at {:.3}, cursor {}, recovered {:?}, ended: {}",
                    connection.node,
                    connection.opened.as_secs_f64(),
                    connection.resumed,
                    connection.recovered,
                    connection.end
                );
                let _ = writeln!(text, "    {}", of_topic(&connection.seen, message));
            }
        }
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
        Seen::Gap(other, reason) if *other == topic => Some((format!("gap:{reason}"), true)),
        Seen::Message(id, at) if id.topic == topic => {
            let near =
                id.publisher == around.publisher && id.sequence.abs_diff(around.sequence) <= 1;
            let at = f64::from(*at) / 1000.0;
            Some((format!("{}#{}@{at:.3}", id.publisher, id.sequence), near))
        }
        _ => None,
    }
}

const AROUND: std::time::Duration = std::time::Duration::from_secs(2);
const SHOWN: usize = 3;
