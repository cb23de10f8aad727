//! Who is where. Each partition knows its own topics; a node has a lease in every one of them.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};
use tidings_core::{Bus, BusError, Claim, NodeId, Presence, Tally, Topic, UserId};

use crate::RedisBus;
use crate::fault::Failure;
use crate::partition::{Partition, Question};
use crate::script::{CLAIM, LAPSED, REAP, RENEW};
use crate::send::{number, unexpected};
use crate::spawn::random;
use crate::spelling::{escape, read, spell};

#[async_trait]
impl Presence for RedisBus {
    async fn claim(
        &self,
        node: &NodeId,
        lease: Duration,
        claims: &[Claim],
    ) -> Vec<Result<Tally, BusError>> {
        let partitions = self.all_partitions();
        let mut parts = vec![Vec::new(); partitions.len()];
        for (n, claim) in claims.iter().enumerate() {
            parts[usize::from(self.partition(&claim.topic))].push((n, claim));
        }
        let node = escaped(node);
        let answers = parts.iter().zip(partitions).map(async |(part, partition)| {
            // A partition without a claim takes the lease alone.
            let count = part.len().div_ceil(CALL_COUNT).max(1);
            let mut tallies = Vec::new();
            for n in 0..count {
                let chunk = part.iter().skip(n * CALL_COUNT).take(CALL_COUNT).copied();
                let chunk: Vec<_> = chunk.collect();
                let answers = claim_in(partition, &node, lease, &chunk).await;
                tallies.extend(chunk.iter().map(|(n, _)| *n).zip(answers));
            }
            tallies
        });
        let mut tallies: Vec<_> = join_all(answers).await.into_iter().flatten().collect();
        tallies.sort_by_key(|(n, _)| *n);
        tallies.into_iter().map(|(_, tally)| tally.map_err(BusError::from)).collect()
    }

    async fn renew(&self, node: &NodeId, lease: Duration) -> Result<bool, BusError> {
        let node = escaped(node);
        let answers = self.all_partitions().iter().map(async |partition| {
            let asked = partition.run(&RENEW, |_| lease_of(partition, &node, lease));
            asked.await.and_then(|answer| number(&answer))
        });
        let answers = join_all(answers).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(answers.iter().all(|known| *known == 1))
    }

    async fn expire(&self) -> Result<Vec<(Topic, UserId)>, BusError> {
        let gone = join_all(self.all_partitions().iter().map(|p| expire_in(p))).await;
        let found = gone.iter().flatten().any(|gone| !gone.is_empty());
        let mut all = Vec::new();
        for gone in gone {
            match gone {
                Ok(gone) => all.extend(gone),
                // Who was found gone is answered: nobody is told of them again.
                Err(_) if found => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(all)
    }

    async fn members(&self, topic: &Topic) -> Result<Vec<UserId>, BusError> {
        let Value::Array(names) = ask(self.partition_of(topic), "HKEYS", topic).await? else {
            return Err(unexpected().into());
        };
        let user = |name: Value| match name {
            Value::BulkString(name) => UserId::new(String::from_utf8(name).ok()?).ok(),
            _ => None,
        };
        let mut users: Vec<_> = names.into_iter().filter_map(user).collect();
        users.sort_unstable();
        Ok(users)
    }

    async fn count(&self, topic: &Topic) -> Result<u64, BusError> {
        Ok(number(&ask(self.partition_of(topic), "HLEN", topic).await?)?)
    }
}

/// One answer per claim.
async fn claim_in(
    partition: &Partition,
    node: &str,
    lease: Duration,
    claims: &[(usize, &Claim)],
) -> Vec<Result<Tally, Failure>> {
    let asked = partition.run(&CLAIM, |_| {
        let mut question = lease_of(partition, node, lease);
        for (_, Claim { topic, user, connections }) in claims {
            let topic = spell(topic);
            question.keys.push(users_key(partition, &topic));
            let claim = [topic.into(), user.as_str().into(), connections.to_string().into()];
            question.arguments.extend(claim);
        }
        question
    });
    let tallies = asked.await.and_then(|answer| match answer {
        Value::Array(numbers) if numbers.len() == 2 * claims.len() => numbers
            .chunks_exact(2)
            .map(|pair| Ok(Tally { before: number(&pair[0])?, after: number(&pair[1])? }))
            .collect::<Result<Vec<_>, _>>(),
        _ => Err(unexpected()),
    });
    match tallies {
        Ok(tallies) => tallies.into_iter().map(Ok).collect(),
        Err(failure) => vec![Err(failure); claims.len()],
    }
}

/// What a script is told that takes a node's lease.
fn lease_of(partition: &Partition, node: &str, lease: Duration) -> Question {
    let before = format!("{node}:{:016x}", random());
    Question {
        keys: vec![
            leases_key(partition),
            claims_key(partition, node),
            claims_key(partition, &before),
            unrenewed_key(partition),
        ],
        arguments: vec![node.into(), before.into(), milliseconds(lease)],
    }
}

/// Ends a bounded number of claims whose lease has run out.
async fn expire_in(partition: &Partition) -> Result<Vec<(Topic, UserId)>, Failure> {
    let mut gone = Vec::new();
    for _ in 0..ROUNDS {
        let round = async {
            let Some(node) = lapsed(partition).await? else { return Ok(None) };
            let claims = some_claims(partition, &node).await?;
            reap(partition, &node, &claims).await.map(Some)
        };
        match round.await {
            Ok(Some(more)) => gone.extend(more),
            Ok(None) => break,
            // Who was found gone is answered: nobody is told of them again.
            Err(_) if !gone.is_empty() => break,
            Err(failure) => return Err(failure),
        }
    }
    let name = |(topic, user): (String, String)| Some((read(&topic)?, UserId::new(user).ok()?));
    Ok(gone.into_iter().filter_map(name).collect())
}

/// A node whose lease has run out.
async fn lapsed(partition: &Partition) -> Result<Option<String>, Failure> {
    let asked = partition
        .run(&LAPSED, |_| Question { keys: vec![leases_key(partition)], arguments: Vec::new() });
    Ok(texts(asked.await?)?.pop())
}

/// Some topics and users that a node claims.
async fn some_claims(partition: &Partition, node: &str) -> Result<Vec<(String, String)>, Failure> {
    let (server, session) = partition.session().await?;
    let mut command = Cmd::new();
    command.arg("HRANDFIELD").arg(claims_key(partition, node)).arg(CALL_COUNT);
    let fields = texts(server.call(&session, &command).await?)?;
    let split = |field: String| {
        let (topic, user) = field.split_once(' ')?;
        Some((topic.to_owned(), user.to_owned()))
    };
    Ok(fields.into_iter().filter_map(split).collect())
}

/// Ends claims of a node whose lease has run out; answers who is gone by it.
async fn reap(
    partition: &Partition,
    node: &str,
    claims: &[(String, String)],
) -> Result<Vec<(String, String)>, Failure> {
    let asked = partition.run(&REAP, |_| {
        let mut question = Question {
            keys: vec![
                leases_key(partition),
                claims_key(partition, node),
                unrenewed_key(partition),
            ],
            arguments: vec![node.into()],
        };
        for (topic, user) in claims {
            question.keys.push(users_key(partition, topic));
            question.arguments.extend([topic.clone().into(), user.clone().into()]);
        }
        question
    });
    let Value::Array(answers) = asked.await? else { return Err(unexpected()) };
    let gone = claims.iter().zip(answers).filter(|(_, gone)| *gone == Value::Int(1));
    Ok(gone.map(|(claim, _)| claim.clone()).collect())
}

/// A command about the users of a topic.
async fn ask(partition: &Partition, command: &str, topic: &Topic) -> Result<Value, Failure> {
    let (server, session) = partition.session().await?;
    let mut asked = Cmd::new();
    asked.arg(command).arg(users_key(partition, &spell(topic)));
    server.call(&session, &asked).await
}

fn texts(value: Value) -> Result<Vec<String>, Failure> {
    let Value::Array(values) = value else { return Err(unexpected()) };
    let text = |value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    values.into_iter().map(text).collect()
}

fn escaped(node: &NodeId) -> String {
    let mut text = String::new();
    escape(node.as_str(), &mut text);
    text
}

fn milliseconds(lease: Duration) -> Vec<u8> {
    lease.as_millis().to_string().into()
}

fn leases_key(partition: &Partition) -> String {
    partition.key("leases", "")
}

fn unrenewed_key(partition: &Partition) -> String {
    partition.key("unrenewed", "")
}

fn claims_key(partition: &Partition, node: &str) -> String {
    partition.key("claims:", node)
}

fn users_key(partition: &Partition, topic: &str) -> String {
    partition.key("users:", topic)
}

/// Most claims of one call: some milliseconds of Redis' time.
const CALL_COUNT: usize = 500;
/// Calls with which one `expire` ends claims in a partition.
const ROUNDS: usize = 20;
