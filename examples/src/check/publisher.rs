//! A back end that publishes over HTTP and gives up nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Failure;
use super::history::{Address, MessageId, Published, TopicId, Topics};
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
            match self.ask(&pending).await {
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
                    self.http = Http::default();
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
        Pending { body, published: Published { id, except, begun, acknowledged: begun } }
    }

    async fn ask(&mut self, pending: &[Pending]) -> Result<Vec<Answer>, Failure> {
        let body = Value::Array(pending.iter().map(|one| one.body.clone()).collect()).to_string();
        let headers = format!("Authorization: Bearer {PUBLISH_KEY}\r\n");
        let address = self.addresses.get(self.node);
        let asked = self.http.request(address, "POST /publish", &headers, &body, ANSWER_PATIENCE);
        let (status, answer) = asked.await?;
        if status != 200 {
            return Err(format!("status {status}: {answer}").into());
        }
        let answers: Vec<Answer> = serde_json::from_str(&answer)?;
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

/// How long a publisher waits for an answer before it asks again, perhaps another node.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const BACKOFF: Duration = Duration::from_millis(50);
