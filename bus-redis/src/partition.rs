//! A unit of order: its server, its names, and what this node has seen of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;
use tidings_core::Topic;
use tokio::time::{sleep, timeout};

use crate::RedisConfig;
use crate::fault::{Failure, Fault};
use crate::resp::Commands;
use crate::sabotage::Protection;
use crate::script::{ARRIVE, Script};
use crate::server::{Server, Session};
use crate::spawn::{now, random};
use crate::spelling::{escape, spell, spell_into};
use crate::strays::Strays;
use crate::topology::Topology;

/// A unit of order. All its keys and channels begin alike and, in a cluster, live in one slot.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) index: u16,
    /// `PREFIX:{TAG}:`
    root: String,
    topology: Arc<Topology>,
    seen: Mutex<Seen>,
    strays: Mutex<Strays>,
    pub(crate) record_lifetime_ms: String,
    pub(crate) deadline: Duration,
    /// The secret of the bus, once known; of the first partition only.
    pub(crate) secret: Mutex<Option<[u8; 16]>>,
    pub(crate) without: Option<Protection>,
}

/// What is asked of a server.
#[derive(Debug)]
pub(crate) enum Call {
    Script(&'static Script, Question),
    /// Commands from `MULTI` to `EXEC`, beside the publishing script and in order with it.
    Transaction(Commands),
    /// The publishing script.
    Publish(Question),
}

/// What a script is asked.
#[derive(Debug, Default)]
pub(crate) struct Question {
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// The furthest that this node has seen of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    epoch: u64,
    clock: u64,
}

/// What each script that touches history is told first: `server`, `epoch`, `clock`, `new epoch`.
pub(crate) type Standing = [Vec<u8>; 4];

impl Partition {
    pub(crate) fn new(index: u16, config: &RedisConfig, topology: Arc<Topology>) -> Self {
        Self {
            index,
            root: format!("{}:{{{}}}:", config.prefix, topology.tag(index)),
            topology,
            seen: Mutex::default(),
            strays: Mutex::default(),
            record_lifetime_ms: config.record_lifetime.as_millis().to_string(),
            deadline: config.deadline,
            secret: Mutex::default(),
            without: config.without(),
        }
    }

    /// The server that has this partition now.
    pub(crate) async fn server(&self) -> Result<Arc<Server>, Failure> {
        self.topology.server(self.index).await
    }

    /// Its server and the connection to it; fails at once while it is away.
    pub(crate) async fn session(&self) -> Result<(Arc<Server>, Session), Failure> {
        let server = self.server().await?;
        let session = server.session().await?;
        Ok((server, session))
    }

    /// Runs a script, told what `ask` says, within the deadline. A slot that moves is waited for.
    pub(crate) async fn run(
        &self,
        script: &'static Script,
        ask: impl Fn(&Session) -> Question,
    ) -> Result<Value, Failure> {
        self.call(self.deadline, |session| Call::Script(script, ask(session))).await
    }

    /// The same within another time, after which the connection is given up.
    pub(crate) async fn call(
        &self,
        patience: Duration,
        ask: impl Fn(&Session) -> Call,
    ) -> Result<Value, Failure> {
        self.call_while(patience, |session| Some(ask(session)), || ()).await
    }

    /// The same for what may be given up until it is sent: then `ask` has nothing to say. `refused` hears that what was
    /// sent was not done, since the slot is moving; it is asked for again.
    pub(crate) async fn call_while(
        &self,
        patience: Duration,
        ask: impl Fn(&Session) -> Option<Call>,
        refused: impl Fn(),
    ) -> Result<Value, Failure> {
        // What has been sent and not answered.
        let mut open = None;
        let mut late = Failure::away("its server is not known, or being connected");
        let attempts = async {
            loop {
                let (server, session) = self.session().await?;
                let outcome = match self.arrive(&server, &session).await {
                    Err(failure) => Err(failure.unsent()),
                    Ok(()) => {
                        let Some(call) = ask(&session) else {
                            return Err(Failure::away("nobody waits for it any more"));
                        };
                        open = Some((server.clone(), session.clone()));
                        self.carry_out(&server, &session, call).await
                    }
                };
                match outcome {
                    Err(failure)
                        if failure.fault == Fault::Moved
                            && self.without != Some(Protection::MovedRetry) =>
                    {
                        refused();
                        (open, late) = (None, failure);
                        self.moved();
                        sleep(MOVING).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        if let Ok(outcome) = timeout(patience, attempts).await {
            return outcome;
        }
        let Some((server, session)) = open else { return Err(late) };
        server.suspect(&session, Failure::timed_out());
        Err(Failure::timed_out())
    }

    async fn carry_out(
        &self,
        server: &Server,
        session: &Session,
        call: Call,
    ) -> Result<Value, Failure> {
        let outcome = match call {
            Call::Script(script, question) => return server.run(session, script, &question).await,
            Call::Transaction(commands) => server.transact(session, commands).await,
            Call::Publish(question) => server.publish(session, &question).await,
        };
        if outcome.is_ok() {
            self.strays().answered(&session.run, now());
        }
        outcome
    }

    /// Tells the store, before all else, when another server has last answered a publication of this node. When nodes
    /// were here already by then, all tell their clients a gap.
    async fn arrive(&self, server: &Server, session: &Session) -> Result<(), Failure> {
        let Some(last) = self.strays().last(&session.run) else { return Ok(()) };
        let mut arguments = self.standing(session).to_vec();
        arguments.push(self.publish_command().into());
        arguments.push(self.moves_channel().into());
        arguments.push(last.elapsed().as_millis().to_string().into());
        let keys = vec![self.state_key(), self.samples_key()];
        server.run(session, &ARRIVE, &Question { keys, arguments }).await?;
        self.strays().told(&session.run, last);
        Ok(())
    }

    fn strays(&self) -> MutexGuard<'_, Strays> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot may have moved: look again before the next call.
    pub(crate) fn moved(&self) {
        self.topology.moved();
    }

    /// `PUBLISH`, or `SPUBLISH` in a cluster.
    pub(crate) fn publish_command(&self) -> &'static str {
        if self.topology.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// `SUBSCRIBE` and `UNSUBSCRIBE`, or those of a cluster.
    pub(crate) fn subscribe_commands(&self) -> (&'static str, &'static str) {
        if self.topology.is_cluster() {
            ("SSUBSCRIBE", "SUNSUBSCRIBE")
        } else {
            ("SUBSCRIBE", "UNSUBSCRIBE")
        }
    }

    pub(crate) fn channel(&self, topic: &Topic) -> String {
        self.key("", &spell(topic))
    }

    pub(crate) fn write_channel(&self, topic: &Topic, text: &mut String) {
        text.push_str(&self.root);
        spell_into(topic, text);
    }

    /// By which all links of it are ended.
    pub(crate) fn moves_channel(&self) -> String {
        self.key("moves", "")
    }

    /// A name of this partition's.
    pub(crate) fn key(&self, kind: &str, rest: &str) -> String {
        [&self.root, kind, rest].concat()
    }

    /// The key of the partition's own hash.
    pub(crate) fn state_key(&self) -> String {
        self.key("clock", "")
    }

    pub(crate) fn samples_key(&self) -> String {
        self.key("samples", "")
    }

    pub(crate) fn secret_key(&self) -> String {
        self.key("secret", "")
    }

    /// The secret of the bus in hexadecimal; empty where it is not known, or not kept here.
    pub(crate) fn secret(&self) -> Vec<u8> {
        let secret = *self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        secret.map_or(Vec::new(), |secret| format!("{:032x}", u128::from_be_bytes(secret)).into())
    }

    pub(crate) fn record_key(&self, spelled: &str) -> String {
        self.key("record:", spelled)
    }

    pub(crate) fn stream_key(&self, spelled: &str) -> String {
        self.key("messages:", spelled)
    }

    pub(crate) fn receipt_key(&self, spelled: &str, idempotency_key: &str) -> String {
        let mut rest = format!("{spelled}:");
        escape(idempotency_key, &mut rest);
        self.key("receipt:", &rest)
    }

    /// What each script that touches history is told of this node's knowledge.
    pub(crate) fn standing(&self, session: &Session) -> Standing {
        let Seen { epoch, clock } = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = if epoch == 0 { String::new() } else { epoch.to_string() };
        [
            session.run.text().into_bytes(),
            epoch.into_bytes(),
            clock.to_string().into_bytes(),
            random().to_string().into_bytes(),
        ]
    }

    /// Remembers how far the partition is. Of another epoch only an answer of the store itself is believed.
    pub(crate) fn saw(&self, epoch: u64, clock: u64, store_says: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.epoch == epoch {
            seen.clock = seen.clock.max(clock);
        } else if store_says || seen.epoch == 0 {
            *seen = Seen { epoch, clock };
        }
    }
}

/// Between two looks at a slot that moves.
const MOVING: Duration = Duration::from_millis(50);
