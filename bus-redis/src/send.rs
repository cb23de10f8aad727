//! One call of the publishing script: what it is told, and what it answers.

use std::slice;

use redis::Value;
use tidings_core::{IDEMPOTENCY_WINDOW, Position, Publication, Receipt};

use crate::fault::{Failure, Fault};
use crate::message::encode;
use crate::partition::{Call, Partition, Question};
use crate::publisher::{Answer, Job};
use crate::resp::Commands;
use crate::sabotage::{self, Protection};
use crate::server::Session;
use crate::spelling::spell;

/// Publishes in order what its callers have not given up: one answer for each publication of the jobs that are sent.
pub(crate) async fn send(partition: &Partition, jobs: &[Job]) -> Result<Vec<Answer>, Failure> {
    if jobs.iter().all(|job| job.passing.is_some()) {
        match transact(partition, jobs).await {
            // A Redis that is full takes no transaction. The script does with what it has.
            Err(failure)
                if failure.fault == Fault::OutOfMemory
                    && partition.without != Some(Protection::FullRedis) => {}
            // Nothing was done, because of one of them: the others are not to suffer for it.
            Err(failure) if failure.fault == Fault::NoPermission && jobs.len() > 1 => {
                let mut answers = Vec::new();
                for job in sent(jobs) {
                    let alone = transact(partition, slice::from_ref(job)).await;
                    let refused = |failure| vec![Err(failure); job.publications.len()];
                    if job.progress.is_sent() {
                        answers.extend(alone.unwrap_or_else(refused));
                    }
                }
                return Ok(answers);
            }
            outcome => return outcome,
        }
    }
    if sabotage::in_two_steps() {
        return sabotage::send(partition, jobs).await;
    }
    call(partition, jobs, |publication| partition.channel(&publication.topic)).await
}

/// Those that are marked as sent; the callers of the others have given them up.
fn sent(jobs: &[Job]) -> impl Iterator<Item = &Job> {
    jobs.iter().filter(|job| job.progress.is_sent())
}

/// What is published of these jobs.
pub(crate) fn publications(jobs: &[Job]) -> impl Iterator<Item = &Publication> {
    sent(jobs).flat_map(|job| &job.publications)
}

/// One call of the script for these jobs, with the channel of each publication.
pub(crate) async fn call(
    partition: &Partition,
    jobs: &[Job],
    channel: impl Fn(&Publication) -> String,
) -> Result<Vec<Answer>, Failure> {
    let ask = |session: &Session| Call::Publish(question(partition, session, jobs, &channel));
    publish(partition, jobs, ask, 0).await
}

/// The commands that publish what nobody keeps and what has no idempotency key; `None` when one is otherwise.
pub(crate) fn pass(partition: &Partition, publications: &[Publication]) -> Option<Commands> {
    let passing = |p: &Publication| p.retention.is_none() && p.idempotency_key.is_none();
    if !publications.iter().all(passing) {
        return None;
    }
    let bytes = publications.iter().map(|p| p.message.len() + ENVELOPE).sum();
    let mut commands = Commands::with_capacity(bytes);
    let publish = partition.publish_command().as_bytes();
    let (mut channel, mut message) = (String::new(), Vec::new());
    for publication in publications {
        channel.clear();
        message.clear();
        partition.write_channel(&publication.topic, &mut channel);
        encode(publication, &mut message);
        commands.add([publish, channel.as_bytes(), &message]);
    }
    Some(commands)
}

/// Publishes what is not kept: a transaction costs Redis half of what a script does. Its first command is the write
/// that a replica refuses, and with it the whole.
async fn transact(partition: &Partition, jobs: &[Job]) -> Result<Vec<Answer>, Failure> {
    let ask = |_: &Session| {
        let mut commands = Commands::default();
        commands.add([b"MULTI"]);
        commands.add([b"PERSIST", partition.state_key().as_bytes()]);
        sent(jobs).filter_map(|job| job.passing.as_ref()).for_each(|each| commands.append(each));
        commands.add([b"EXEC"]);
        Call::Transaction(commands)
    };
    publish(partition, jobs, ask, 1).await
}

/// Asks for those that can be marked as sent, once the connection is there. Before their answers are `others`.
async fn publish(
    partition: &Partition,
    jobs: &[Job],
    ask: impl Fn(&Session) -> Call,
    others: usize,
) -> Result<Vec<Answer>, Failure> {
    let begin = |session: &Session| {
        jobs.iter().for_each(|job| job.progress.send());
        sent(jobs).next().is_some().then(|| ask(session))
    };
    let refused = || jobs.iter().for_each(|job| job.progress.refused());
    match partition.call_while(partition.deadline, begin, refused).await? {
        Value::Array(values) if values.len() == others + publications(jobs).count() => {
            Ok(values[others..].iter().map(|value| answer(partition, value)).collect())
        }
        _ => Err(unexpected()),
    }
}

fn question(
    partition: &Partition,
    session: &Session,
    jobs: &[Job],
    channel: &impl Fn(&Publication) -> String,
) -> Question {
    let mut keys = vec![partition.state_key(), partition.samples_key()];
    let mut arguments = vec![partition.publish_command().into()];
    arguments.extend(partition.standing(session));
    arguments.push(partition.record_lifetime_ms.clone().into());
    arguments.push(IDEMPOTENCY_WINDOW.as_millis().to_string().into());
    for publication in publications(jobs) {
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
        arguments.push(channel(publication).into());
        let mut message = Vec::with_capacity(publication.message.len() + ENVELOPE);
        encode(publication, &mut message);
        arguments.push(message);
        arguments.push(retention.unwrap_or_default().into());
        arguments.push(if key.is_some() { b"1".to_vec() } else { Vec::new() });
    }
    Question { keys, arguments }
}

fn answer(partition: &Partition, value: &Value) -> Answer {
    match value {
        Value::Int(listeners) => Ok(receipt(None, *listeners)),
        Value::ServerError(error) => Err(Failure::answered(error)),
        Value::BulkString(text) => Err(Failure::told(&String::from_utf8_lossy(text))),
        Value::Array(parts) => match parts.as_slice() {
            [epoch, offset, clock, Value::Int(listeners), Value::Int(repeat)] => {
                let (epoch, offset, clock) = (number(epoch)?, number(offset)?, number(clock)?);
                if *repeat == 0 {
                    partition.saw(epoch, clock, true);
                }
                Ok(receipt(Some(Position { epoch, offset, clock }), *listeners))
            }
            _ => Err(unexpected()),
        },
        _ => Err(unexpected()),
    }
}

fn receipt(position: Option<Position>, listeners: i64) -> Receipt {
    let mut receipt = Receipt::handed_to(u32::try_from(listeners).unwrap_or(u32::MAX));
    receipt.position = position;
    receipt
}

/// A number, also one that is too large for Redis' own.
pub(crate) fn number(value: &Value) -> Result<u64, Failure> {
    let number = match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => {
            std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
        }
        _ => None,
    };
    number.ok_or_else(unexpected)
}

pub(crate) fn unexpected() -> Failure {
    Failure::new(Fault::Other, "a script answered what it never should")
}

/// A century: Lua's numbers are exact up to there and far beyond.
const LONGEST_AGE_MS: u128 = 100 * 366 * 24 * 3600 * 1000;
/// Bytes about a payload, roughly: commands, channel and header.
const ENVELOPE: usize = 160;
