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

/// Publishes in order; one answer each.
pub(crate) async fn send(partition: &Partition, jobs: &[Job]) -> Vec<Answer> {
    let passing: Option<Vec<_>> = jobs.iter().map(|job| job.passing.as_ref()).collect();
    if let Some(passing) = passing {
        match transact(partition, jobs, &passing).await {
            // A Redis that is full takes no transaction. The script does with what it has.
            Err(failure)
                if failure.fault == Fault::OutOfMemory
                    && partition.without != Some(Protection::FullRedis) => {}
            // Nothing was done, because of one of them: the others are not to suffer for it.
            Err(failure) if failure.fault == Fault::NoPermission && jobs.len() > 1 => {
                let mut answers = Vec::new();
                for (job, passing) in jobs.iter().zip(passing) {
                    let alone = transact(partition, slice::from_ref(job), &[passing]).await;
                    answers.extend(each(alone, job.publications.len()));
                }
                return answers;
            }
            answers => return each(answers, jobs.iter().map(|job| job.publications.len()).sum()),
        }
    }
    let publications: Vec<_> = jobs.iter().flat_map(|job| &job.publications).collect();
    if sabotage::in_two_steps() {
        return sabotage::send(partition, jobs, &publications).await;
    }
    let channel = |publication: &Publication| partition.channel(&publication.topic);
    call(partition, jobs, &publications, channel).await
}

/// One call of the script for these jobs, with the channel of each publication.
pub(crate) async fn call(
    partition: &Partition,
    jobs: &[Job],
    publications: &[&Publication],
    channel: impl Fn(&Publication) -> String,
) -> Vec<Answer> {
    let ask = |session: &Session| question(partition, session, publications, &channel);
    let asked = publish(partition, jobs, |session| Call::Publish(ask(session)));
    let answers = asked.await.and_then(|value| match value {
        Value::Array(values) => Ok(values.iter().map(|value| answer(partition, value)).collect()),
        _ => Err(unexpected()),
    });
    each(answers, publications.len())
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
async fn transact(
    partition: &Partition,
    jobs: &[Job],
    passing: &[&Commands],
) -> Result<Vec<Answer>, Failure> {
    let asked = publish(partition, jobs, |_| {
        let mut commands = Commands::default();
        commands.add([b"MULTI"]);
        commands.add([b"PERSIST", partition.state_key().as_bytes()]);
        passing.iter().for_each(|passing| commands.append(passing));
        commands.add([b"EXEC"]);
        Call::Transaction(commands)
    });
    match asked.await? {
        Value::Array(values) => {
            Ok(values.iter().skip(1).map(|value| answer(partition, value)).collect())
        }
        _ => Err(unexpected()),
    }
}

/// Keeps the jobs told of how far they are.
async fn publish(
    partition: &Partition,
    jobs: &[Job],
    ask: impl Fn(&Session) -> Call,
) -> Result<Value, Failure> {
    let told = |step| jobs.iter().for_each(|job| job.progress.reached(step));
    partition.call_told(partition.deadline, ask, told).await
}

/// An answer for each, whatever came.
fn each(answers: Result<Vec<Answer>, Failure>, count: usize) -> Vec<Answer> {
    let answers =
        answers.and_then(|all| if all.len() == count { Ok(all) } else { Err(unexpected()) });
    answers.unwrap_or_else(|failure| vec![Err(failure); count])
}

fn question(
    partition: &Partition,
    session: &Session,
    publications: &[&Publication],
    channel: &impl Fn(&Publication) -> String,
) -> Question {
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
