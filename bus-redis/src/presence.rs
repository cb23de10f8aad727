//! Who is where. Each partition knows its own topics and leases.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};
use tidings_core::{BusError, Claim, LeaseId, Presence, Tally, Topic, UserId};

use crate::RedisBus;
use crate::fault::Failure;
use crate::partition::{Partition, Question};
use crate::script::{CLAIM, LAPSED, REAP, RENEW};
use crate::send::{number, unexpected};
use crate::server::Session;
use crate::spelling::{escape, read, spell};

#[async_trait]
impl Presence for RedisBus {
    async fn begin(&self, partition: u16, lease: &LeaseId, time: Duration) -> Result<(), BusError> {
        renew(self.numbered(partition)?, lease, time, "1").await?;
        Ok(())
    }

    async fn renew(
        &self,
        partition: u16,
        lease: &LeaseId,
        time: Duration,
    ) -> Result<bool, BusError> {
        Ok(renew(self.numbered(partition)?, lease, time, "0").await?)
    }

    async fn claim(
        &self,
        partition: u16,
        lease: &LeaseId,
        claims: &[Claim],
    ) -> Result<Option<Vec<Tally>>, BusError> {
        let partition = self.numbered(partition)?;
        let mut tallies = Vec::new();
        for claims in claims.chunks(CALL_COUNT) {
            match claim(partition, lease, claims).await? {
                Some(more) => tallies.extend(more),
                None => return Ok(None),
            }
        }
        Ok(Some(tallies))
    }

    async fn expire(&self, partition: u16) -> Result<Vec<(Topic, UserId)>, BusError> {
        Ok(expire(self.numbered(partition)?).await?)
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

/// Prolongs a lease that lives, or begins one; returns whether it lives.
async fn renew(
    partition: &Partition,
    lease: &LeaseId,
    time: Duration,
    begins: &str,
) -> Result<bool, Failure> {
    let asked = partition.run(&RENEW, |session| Question {
        keys: vec![leases_key(partition)],
        arguments: vec![
            name(lease, session).into(),
            time.as_millis().to_string().into(),
            begins.into(),
        ],
    });
    Ok(number(&asked.await?)? == 1u64)
}

async fn claim(
    partition: &Partition,
    lease: &LeaseId,
    claims: &[Claim],
) -> Result<Option<Vec<Tally>>, Failure> {
    let asked = partition.run(&CLAIM, |session| {
        let lease = name(lease, session);
        let keys = vec![leases_key(partition), claims_key(partition, &lease)];
        let mut question = Question { keys, arguments: vec![lease.into()] };
        for Claim { topic, user, connections } in claims {
            let topic = spell(topic);
            question.keys.push(users_key(partition, &topic));
            let claim = [topic.into(), user.as_str().into(), connections.to_string().into()];
            question.arguments.extend(claim);
        }
        question
    });
    match asked.await? {
        Value::Nil => Ok(None),
        Value::Array(numbers) if numbers.len() == 2 * claims.len() => {
            let tally =
                |pair: &[Value]| Ok(Tally { before: number(&pair[0])?, after: number(&pair[1])? });
            numbers.chunks_exact(2).map(tally).collect::<Result<_, _>>().map(Some)
        }
        _ => Err(unexpected()),
    }
}

/// What a lease is called in the store: it is of one run of a server too, since another may lack some of what was claimed,
/// although it has the lease.
fn name(lease: &LeaseId, session: &Session) -> String {
    let mut name = String::new();
    escape(lease.as_str(), &mut name);
    name.push(':');
    name.push_str(&session.run.text());
    name
}

/// Ends a bounded number of claims whose lease has run out.
async fn expire(partition: &Partition) -> Result<Vec<(Topic, UserId)>, Failure> {
    let mut gone = Vec::new();
    for _ in 0..ROUNDS {
        let round = async {
            let Some(lease) = lapsed(partition).await? else { return Ok(None) };
            let claims = some_claims(partition, &lease).await?;
            reap(partition, &lease, &claims).await.map(Some)
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

/// A lease that has run out.
async fn lapsed(partition: &Partition) -> Result<Option<String>, Failure> {
    let asked = partition
        .run(&LAPSED, |_| Question { keys: vec![leases_key(partition)], arguments: Vec::new() });
    Ok(texts(asked.await?)?.pop())
}

/// Some topics and users that are claimed under a lease.
async fn some_claims(partition: &Partition, lease: &str) -> Result<Vec<(String, String)>, Failure> {
    let (server, session) = partition.session().await?;
    let mut command = Cmd::new();
    command.arg("HRANDFIELD").arg(claims_key(partition, lease)).arg(CALL_COUNT);
    let fields = texts(server.call(&session, &command).await?)?;
    let split = |field: String| {
        let (topic, user) = field.split_once(' ')?;
        Some((topic.to_owned(), user.to_owned()))
    };
    Ok(fields.into_iter().filter_map(split).collect())
}

/// Ends claims of a lease that has run out; returns who is gone by it.
async fn reap(
    partition: &Partition,
    lease: &str,
    claims: &[(String, String)],
) -> Result<Vec<(String, String)>, Failure> {
    let asked = partition.run(&REAP, |_| {
        let keys = vec![leases_key(partition), claims_key(partition, lease)];
        let mut question = Question { keys, arguments: vec![lease.into()] };
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

fn leases_key(partition: &Partition) -> String {
    partition.key("leases", "")
}

fn claims_key(partition: &Partition, lease: &str) -> String {
    partition.key("claims:", lease)
}

fn users_key(partition: &Partition, topic: &str) -> String {
    partition.key("users:", topic)
}

/// Most claims of one call: some milliseconds of Redis' time.
const CALL_COUNT: usize = 500;
/// Calls with which one `expire` ends claims in a partition.
const ROUNDS: usize = 20;
