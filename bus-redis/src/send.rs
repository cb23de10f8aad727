//! One call of the publishing script: what it is told, and what it answers.

use std::time::Duration;

use redis::Value;
use tidings_core::{IDEMPOTENCY_WINDOW, Position, Publication, Receipt};
use tokio::time::{sleep, timeout};

use crate::fault::{Failure, Fault};
use crate::message::encode;
use crate::partition::Partition;
use crate::publisher::Answer;
use crate::script::PUBLISH;
use crate::server::Session;
use crate::spelling::spell;

/// Publishes in order; one answer each. A slot that moves is waited for.
pub(crate) async fn send(
    partition: &Partition,
    publications: &[&Publication],
    deadline: Duration,
) -> Vec<Answer> {
    let attempts = async {
        loop {
            match attempt(partition, publications).await {
                Err(failure) if failure.fault == Fault::Moved => {
                    partition.moved();
                    sleep(MOVING).await;
                }
                outcome => return outcome,
            }
        }
    };
    let outcome = timeout(deadline, attempts).await.unwrap_or_else(|_| Err(Failure::timed_out()));
    outcome.unwrap_or_else(|failure| vec![Err(failure); publications.len()])
}

async fn attempt(
    partition: &Partition,
    publications: &[&Publication],
) -> Result<Vec<Answer>, Failure> {
    let (server, session) = partition.session().await?;
    let (keys, arguments) = question(partition, &session, publications);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    let Value::Array(values) = server.run(&session, &PUBLISH, &keys, &arguments).await? else {
        return Err(unexpected());
    };
    let answers: Vec<_> = values.into_iter().map(|value| answer(partition, value)).collect();
    if answers.len() == publications.len() { Ok(answers) } else { Err(unexpected()) }
}

fn question(
    partition: &Partition,
    session: &Session,
    publications: &[&Publication],
) -> (Vec<String>, Vec<Vec<u8>>) {
    let mut keys = vec![partition.state_key(), partition.samples_key()];
    let mut arguments = vec![partition.publish_command().into()];
    arguments.extend(partition.standing(session));
    arguments.push(partition.record_lifetime_ms.clone().into());
    arguments.push(IDEMPOTENCY_WINDOW.as_millis().to_string().into());
    for publication in publications {
        let spelled = spell(&publication.topic);
        let key = publication.idempotency_key.as_deref();
        if publication.retention.is_some() || key.is_some() {
            let record = partition.record_key(&spelled);
            keys.push(record.clone());
            keys.push(partition.stream_key(&spelled));
            keys.push(key.map_or(record, |key| partition.receipt_key(&spelled, key)));
        }
        let retention = publication.retention.map(|kept| {
            let age = kept.age.as_millis().min(LONGEST_AGE_MS);
            format!("{} {age}", kept.count)
        });
        arguments.push(partition.key("", &spelled).into());
        arguments.push(encode(publication));
        arguments.push(retention.unwrap_or_default().into());
        arguments.push(if key.is_some() { b"1".to_vec() } else { Vec::new() });
    }
    (keys, arguments)
}

fn answer(partition: &Partition, value: Value) -> Answer {
    match value {
        Value::Int(listeners) => Ok(receipt(None, listeners)),
        Value::BulkString(text) => Err(Failure::told(&String::from_utf8_lossy(&text))),
        Value::Array(parts) => match parts.as_slice() {
            [
                Value::BulkString(epoch),
                Value::Int(offset),
                Value::Int(clock),
                Value::Int(listeners),
            ] => {
                let epoch = std::str::from_utf8(epoch).ok().and_then(|text| text.parse().ok());
                let number = |n: &i64| u64::try_from(*n).ok();
                let position = epoch.zip(number(offset)).zip(number(clock));
                let ((epoch, offset), clock) = position.ok_or_else(unexpected)?;
                if *listeners >= 0 {
                    partition.saw(epoch, clock, true);
                }
                Ok(receipt(Some(Position { epoch, offset, clock }), *listeners))
            }
            _ => Err(unexpected()),
        },
        _ => Err(unexpected()),
    }
}

/// Below 0: a repeat, which nobody got.
fn receipt(position: Option<Position>, listeners: i64) -> Receipt {
    let mut receipt = Receipt::handed_to(u32::try_from(listeners.max(0)).unwrap_or(u32::MAX));
    receipt.position = position;
    receipt
}

pub(crate) fn unexpected() -> Failure {
    Failure::new(Fault::Other, "a script answered what it never should")
}

/// Between two looks at a slot that moves.
const MOVING: Duration = Duration::from_millis(50);
/// A century: Lua's numbers are exact up to there and far beyond.
const LONGEST_AGE_MS: u128 = 100 * 366 * 24 * 3600 * 1000;
