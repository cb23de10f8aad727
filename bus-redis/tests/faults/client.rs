//! A client of a node, which writes down what it hears.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tidings_core::testing::{MemoryPipe, PipeClient};
use tidings_core::{ConnectOptions, Hub, Identity, UserId};
use tidings_redis_testing::{in_time, until};
use tokio::task::JoinHandle;

use crate::scene::room_name;

pub(crate) struct Client {
    heard: Arc<Mutex<Heard>>,
    reading: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    joined: HashSet<String>,
    news: Vec<u64>,
    /// By room; `None` is all of them.
    gaps: HashSet<Option<String>>,
    ended: bool,
}

impl Client {
    /// Connects and joins, and again while the node says that the bus is away.
    pub(crate) async fn in_rooms(hub: &Hub, rooms: impl Iterator<Item = String>) -> Self {
        let attach = async {
            loop {
                let identity = Identity::user(UserId::new("user").expect("it is a name"));
                let attached = hub.attach(identity, ConnectOptions::default(), MemoryPipe::info());
                match attached.await {
                    Ok(attachment) => return attachment,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let attachment = in_time("a client to be taken in", attach).await;
        let (server, pipe) = MemoryPipe::new(64 * 1024);
        tokio::spawn(attachment.serve(server));
        let heard = Arc::new(Mutex::new(Heard::default()));
        let rooms: Vec<_> = rooms.collect();
        let reading = tokio::spawn(read(pipe, rooms.clone(), heard.clone()));
        let client = Self { heard, reading };
        // The more there are, the longer it may take.
        for some in rooms.chunks(1000) {
            let all = || some.iter().all(|room| client.heard().joined.contains(room));
            until("a client to join its rooms", async || all()).await;
        }
        client
    }

    /// Waits until it has heard all of these.
    pub(crate) async fn hears(&self, numbers: &[u64]) {
        let mut missing: HashSet<_> = numbers.iter().copied().collect();
        let mut seen = 0;
        until("a client to hear what was published", async || {
            let heard = self.heard();
            for number in &heard.news[seen..] {
                missing.remove(number);
            }
            seen = heard.news.len();
            missing.is_empty()
        })
        .await;
    }

    /// Waits until it has heard all of these, or was told that it may have missed some in their rooms.
    pub(crate) async fn hears_or_is_told(&self, numbers: &[u64], rooms: u64) {
        until("a client to hear what was acknowledged, or of a gap", async || {
            let heard = self.heard();
            let news: HashSet<_> = heard.news.iter().collect();
            let told = |room| heard.gaps.contains(&None) || heard.gaps.contains(&Some(room));
            numbers.iter().all(|n| news.contains(n) || told(room_name(n % rooms)))
        })
        .await;
    }

    /// Insists that these were heard once each, in order in each room, by a connection that never ended.
    pub(crate) fn heard_in_order(&self, numbers: &[u64], rooms: u64) {
        let count = self.heard_at_most_once(numbers, rooms);
        assert_eq!(count, numbers.len(), "some were not heard");
    }

    /// The same for those of them that were heard: so many.
    pub(crate) fn heard_at_most_once(&self, numbers: &[u64], rooms: u64) -> usize {
        let heard = self.heard();
        assert!(!heard.ended, "a client lost its connection");
        let (wanted, mut last, mut count) = (HashSet::<_>::from_iter(numbers), HashMap::new(), 0);
        for number in heard.news.iter().filter(|number| wanted.contains(number)) {
            let before = last.insert(number % rooms, number);
            assert!(before < Some(number), "{number} came after {before:?} in its room");
            count += 1;
        }
        count
    }

    /// How many rooms it was told that it may have missed something in.
    pub(crate) fn gaps(&self) -> usize {
        self.heard().gaps.len()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Joins the rooms, some at a time, asks again while the bus is away, and writes down what comes.
async fn read(mut pipe: PipeClient, rooms: Vec<String>, heard: Arc<Mutex<Heard>>) {
    let mut rooms = rooms.into_iter();
    for room in rooms.by_ref().take(AT_A_TIME) {
        join(&pipe, &room).await;
    }
    while let Some(text) = pipe.next().await {
        let message: Value = serde_json::from_str(&text).expect("it is JSON");
        let payload = &message["payload"];
        let mut next = None;
        match message["type"].as_str().expect("a message has a type") {
            "gap" => {
                let room = payload["roomId"].as_str().map(str::to_owned);
                lock(&heard).gaps.insert(room);
            }
            "news" => lock(&heard).news.push(payload.as_u64().expect("a number")),
            "room:joined" => {
                let room = payload["roomId"].as_str().expect("a room").to_owned();
                lock(&heard).joined.insert(room);
                next = rooms.next();
            }
            "error" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                next = message["id"].as_str().map(str::to_owned);
            }
            _ => {}
        }
        if let Some(room) = next {
            join(&pipe, &room).await;
        }
    }
    lock(&heard).ended = true;
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room is the id too, so that an error says which one it is of.
async fn join(pipe: &PipeClient, room: &str) {
    let json = serde_json::json!({"type": "join:room", "payload": {"roomId": room}, "id": room});
    pipe.send(json.to_string()).await;
}

/// Joins under way.
const AT_A_TIME: usize = 128;
