//! A client of a node, which writes down what it hears.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tidings_core::testing::{MemoryPipe, PipeClient};
use tidings_core::{ConnectOptions, Hub, Identity, UserId};
use tidings_redis_testing::{in_time, until};
use tokio::task::JoinHandle;

use crate::scene::{ROOMS, are_in_order};

pub(crate) struct Client {
    heard: Arc<Mutex<Heard>>,
    reading: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    joined: HashSet<String>,
    news: Vec<u64>,
    gaps: usize,
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
        let all = || rooms.iter().all(|room| client.heard().joined.contains(room));
        until("a client to join its rooms", async || all()).await;
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

    /// Insists that these were heard once each, in order in each room, by a connection that never ended.
    pub(crate) fn heard_in_order(&self, numbers: &[u64]) {
        let heard = self.heard();
        assert!(!heard.ended, "a client lost its connection");
        let wanted: HashSet<_> = numbers.iter().collect();
        for room in 0..ROOMS {
            let of_room = heard.news.iter().filter(|n| *n % ROOMS == room && wanted.contains(n));
            let of_room: Vec<_> = of_room.copied().collect();
            let published = numbers.iter().filter(|n| *n % ROOMS == room).count();
            assert!(are_in_order(&of_room), "room {room}: {of_room:?}");
            assert_eq!(of_room.len(), published, "room {room}: {of_room:?}");
        }
    }

    /// How often it was told that it may have missed something.
    pub(crate) fn gaps(&self) -> usize {
        self.heard().gaps
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
            "gap" => lock(&heard).gaps += 1,
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
const AT_A_TIME: usize = 16;
