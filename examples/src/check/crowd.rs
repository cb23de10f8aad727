//! Many clients at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Failure;
use super::client::{Client, Phase};
use super::history::{ClientRecord, MessageId, Published, TopicId};
use super::presence::Users;

/// How far a client is, while it runs. Clones look at the same client.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Reached>>);

#[derive(Debug, Default)]
struct Reached {
    joined: HashSet<TopicId>,
    /// Those that it is in on the connection of now.
    present: HashSet<TopicId>,
    /// The highest number that it got of each publisher in each topic.
    highest: HashMap<(TopicId, u16), u32>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Reached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn joined(&self, topic: TopicId) {
        let mut reached = self.lock();
        reached.joined.insert(topic);
        reached.present.insert(topic);
    }

    /// The connection has ended.
    pub(super) fn cut(&self) {
        self.lock().present.clear();
    }

    /// The topics that it is in now.
    pub fn present(&self) -> Vec<TopicId> {
        self.lock().present.iter().copied().collect()
    }

    pub(super) fn got(&self, id: MessageId) {
        let mut reached = self.lock();
        let highest = reached.highest.entry((id.topic, id.publisher)).or_default();
        *highest = id.sequence.max(*highest);
    }

    /// Whether it has ever been in all these topics.
    pub fn has_joined(&self, topics: &[TopicId]) -> bool {
        let reached = self.lock();
        topics.iter().all(|topic| reached.joined.contains(topic))
    }

    /// Whether it got this message, or a later one of the same publisher and topic.
    pub fn has(&self, id: MessageId) -> bool {
        let reached = self.lock();
        reached.highest.get(&(id.topic, id.publisher)).is_some_and(|n| *n >= id.sequence)
    }
}

/// Clients that run. Dropped, they go on until their runtime ends.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<Client>,
    phase: watch::Sender<Phase>,
    running: Vec<JoinHandle<ClientRecord>>,
}

impl Crowd {
    /// Starts these, all at once.
    pub fn start(clients: Vec<Client>, phase: Phase) -> Self {
        let phase = watch::Sender::new(phase);
        let run = |client: &Client| tokio::spawn(client.clone().run(phase.subscribe()));
        let running = clients.iter().map(run).collect();
        Self { clients, phase, running }
    }

    /// Tells all what to do from now on.
    pub fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until every client has been in all its topics.
    ///
    /// # Errors
    /// When some have not within `patience`.
    pub async fn joined(&self, patience: Duration) -> Result<(), Failure> {
        let wanted = |client: &Client| (client.progress.clone(), client.joins());
        let mut waiting: Vec<_> = self.clients.iter().map(wanted).collect();
        let deadline = Instant::now() + patience;
        loop {
            waiting.retain(|(progress, topics)| !progress.has_joined(topics));
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{} clients could not join", waiting.len()).into());
            }
            sleep(PAUSE).await;
        }
    }

    /// The users in each topic, as their clients know it.
    pub fn users(&self) -> BTreeMap<TopicId, Users> {
        let mut users: BTreeMap<TopicId, Users> = BTreeMap::new();
        for client in &self.clients {
            for topic in client.progress.present() {
                users.entry(topic).or_default().insert(client.user.clone());
            }
        }
        users
    }

    /// Waits until every client that stays has the last of all that was published for it, at most `patience`. Answers
    /// how many clients still lack something.
    pub async fn settle(&self, published: &[Published], patience: Duration) -> usize {
        let wanted = |client: &Client| (client.progress.clone(), ends(client, published));
        let stays = |client: &&Client| client.leaves.is_none();
        let mut waiting: Vec<_> = self.clients.iter().filter(stays).map(wanted).collect();
        let deadline = Instant::now() + patience;
        loop {
            for (progress, ends) in &mut waiting {
                ends.retain(|id| !progress.has(*id));
            }
            waiting.retain(|(_, ends)| !ends.is_empty());
            if waiting.is_empty() || Instant::now() > deadline {
                return waiting.len();
            }
            sleep(PAUSE).await;
        }
    }

    /// Ends all clients and gives their records.
    ///
    /// # Errors
    /// When a client panicked.
    pub async fn end(self) -> Result<Vec<ClientRecord>, Failure> {
        self.phase.send_replace(Phase::Over);
        let mut records = Vec::with_capacity(self.running.len());
        for client in self.running {
            records.push(client.await?);
        }
        Ok(records)
    }
}

/// The last message for a client of each publisher in each of its topics.
fn ends(client: &Client, published: &[Published]) -> Vec<MessageId> {
    let mut ends: HashMap<(TopicId, u16), MessageId> = HashMap::new();
    let topics = client.joins();
    let theirs = published.iter().filter(|message| {
        message.fate.is_done()
            && topics.contains(&message.id.topic)
            && message.except.as_deref() != Some(&*client.user)
    });
    for message in theirs {
        let end = ends.entry((message.id.topic, message.id.publisher)).or_insert(message.id);
        *end = message.id.max(*end);
    }
    ends.into_values().collect()
}

const PAUSE: Duration = Duration::from_millis(100);
