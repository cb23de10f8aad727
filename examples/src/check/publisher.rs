//! A back end that publishes over HTTP: one that gives up nothing, or asks once and keeps what it was told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Failure;
use super::history::{Address, Fate, MessageId, Published, TopicId, Topics};
use super::http::Http;
use super::node::{Addresses, PUBLISH_KEY};
use super::random::Random;

/// One publication to be.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where to.
    pub topic: TopicId,
    /// The user who must not get it.
    pub except: Option<Arc<str>>,
}

/// Numbers its publications per topic, and repeats each under its idempotency key until it is acknowledged.
#[derive(Debug)]
pub struct Publisher {
    number: u16,
    topics: Arc<Topics>,
    addresses: Addresses,
    start: Instant,
    random: Random,
    /// Tells the keys of this run from those of another on the same bus.
    run: u64,
    sequences: HashMap<TopicId, u32>,
    http: Http,
    /// The node it asks until that one fails.
    node: usize,
    /// Requests that had to be repeated.
    pub repeated: usize,
}

/// A publication under way.
struct Pending {
    body: Value,
    published: Published,
}

impl Publisher {
    /// Publisher `number` of a run that began at `start`; `seed` decides which nodes it asks.
    pub fn new(
        number: u16,
        topics: Arc<Topics>,
        addresses: Addresses,
        start: Instant,
        seed: u64,
    ) -> Self {
        let mut random = Random::of(seed, u64::from(number) + 1_000_000);
        let node = random.below(addresses.count());
        let run = seed ^ u64::from(std::process::id()) << 32;
        let (sequences, http) = (HashMap::new(), Http::default());
        Self { number, topics, addresses, start, random, run, sequences, http, node, repeated: 0 }
    }

    /// Publishes a batch and waits until all of it is acknowledged. No topic may be in it twice: what is repeated
    /// would overtake.
    ///
    /// # Errors
    /// When the server refuses for good, or `patience` has run out.
    pub async fn publish(
        &mut self,
        batch: &[Outbound],
        patience: Duration,
    ) -> Result<Vec<Published>, Failure> {
        let begun = Instant::now();
        let mut pending: Vec<_> = batch.iter().map(|outbound| self.pending(outbound)).collect();
        let mut done = Vec::with_capacity(pending.len());
        let mut failure = Failure::from("never asked");
        while !pending.is_empty() {
            if begun.elapsed() > patience {
                return Err(format!("publisher {} gave up: {failure}", self.number).into());
            }
            match self.ask(&pending, ANSWER_PATIENCE).await {
                Ok(answers) => {
                    let acknowledged = self.start.elapsed();
                    let mut left = Vec::new();
                    for (mut one, answer) in pending.into_iter().zip(answers) {
                        match answer.error {
                            None => {
                                one.published.acknowledged = acknowledged;
                                done.push(one.published);
                            }
                            Some(error) if error.code == "unavailable" => {
                                if error.leaves_open() {
                                    one.published.fate = Fate::Repeated;
                                }
                                failure = error.message.into();
                                left.push(one);
                            }
                            Some(error) => return Err(error.message.into()),
                        }
                    }
                    pending = left;
                }
                Err(error) => {
                    failure = error;
                    pending.iter_mut().for_each(|one| one.published.fate = Fate::Repeated);
                }
            }
            if !pending.is_empty() {
                self.repeated += 1;
                self.node = self.random.below(self.addresses.count());
                sleep(self.random.between(&(BACKOFF..3 * BACKOFF))).await;
            }
        }
        // Another node now and then, so that a topic is published to from several.
        if self.random.once_in(20) {
            self.node = self.random.below(self.addresses.count());
        }
        Ok(done)
    }

    /// Publishes a batch once, at a node of its choice, under no key, and keeps what it was told of each.
    pub async fn publish_once(&mut self, batch: &[Outbound]) -> Vec<Published> {
        let mut pending: Vec<_> = batch.iter().map(|outbound| self.pending(outbound)).collect();
        for one in &mut pending {
            one.body.as_object_mut().map(|body| body.remove("idempotencyKey"));
        }
        self.node = self.random.below(self.addresses.count());
        let answers = self.ask(&pending, ONCE_PATIENCE).await.unwrap_or_default();
        let told = self.start.elapsed();
        let fates = answers.iter().map(Answer::fate).chain(std::iter::repeat(Fate::Unknown));
        pending
            .into_iter()
            .zip(fates)
            .map(|(one, fate)| Published { acknowledged: told, fate, ..one.published })
            .collect()
    }

    fn pending(&mut self, outbound: &Outbound) -> Pending {
        let sequence = self.sequences.entry(outbound.topic).or_default();
        *sequence += 1;
        let id = MessageId { topic: outbound.topic, publisher: self.number, sequence: *sequence };
        let to = match self.topics.address(outbound.topic) {
            Address::Room(room) => json!({ "room": room }),
            Address::User(user) => json!({ "user": user }),
            Address::Everyone => json!({ "everyone": true }),
        };
        let mut body = json!({
            "to": to,
            "type": "checked",
            "payload": {"topic": id.topic.0, "publisher": id.publisher, "sequence": id.sequence},
            "idempotencyKey": format!("{:x}-{id}", self.run),
        });
        if let Some(user) = &outbound.except {
            body["except"] = json!({ "user": **user });
        }
        let begun = self.start.elapsed();
        let except = outbound.except.clone();
        let fate = Fate::Done;
        Pending { body, published: Published { id, except, begun, acknowledged: begun, fate } }
    }

    async fn ask(
        &mut self,
        pending: &[Pending],
        patience: Duration,
    ) -> Result<Vec<Answer>, Failure> {
        let body = Value::Array(pending.iter().map(|one| one.body.clone()).collect()).to_string();
        let headers = format!("Authorization: Bearer {PUBLISH_KEY}\r\n");
        let address = self.addresses.get(self.node);
        let asked = self.http.request(address, "POST /publish", &headers, &body, patience);
        let (status, answer) = asked.await.inspect_err(|_| self.http = Http::default())?;
        let answers: Vec<Answer> = match status {
            200 => serde_json::from_str(&answer)?,
            // Then nothing was published.
            503 => pending.iter().map(|_| Answer::away(&answer)).collect(),
            _ => return Err(format!("status {status}: {answer}").into()),
        };
        if answers.len() != pending.len() {
            return Err(format!("{} answers to {}", answers.len(), pending.len()).into());
        }
        Ok(answers)
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

impl Answer {
    fn away(text: &str) -> Self {
        let message = format!("{NOT_DONE}: {text}");
        Self { error: Some(Refusal { code: "unavailable".to_owned(), message }) }
    }

    fn fate(&self) -> Fate {
        match &self.error {
            None => Fate::Done,
            Some(refusal) if refusal.leaves_open() => Fate::Unknown,
            Some(_) => Fate::NotDone,
        }
    }
}

impl Refusal {
    /// Whether it may have been done in spite of the refusal.
    fn leaves_open(&self) -> bool {
        self.code == "unavailable" && !self.message.starts_with(NOT_DONE)
    }
}

/// How the text of a refusal begins that says that it was not done and never will be.
const NOT_DONE: &str = "the bus did not take the message";

/// How long a publisher waits for an answer before it asks again, perhaps another node.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long one waits who asks once: longer than a node waits for Redis, so as to hear what it says then.
const ONCE_PATIENCE: Duration = Duration::from_secs(15);
const BACKOFF: Duration = Duration::from_millis(50);
