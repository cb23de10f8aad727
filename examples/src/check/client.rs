//! A client that goes, comes back with its cursor and keeps a record.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::ahead::Reader;
use super::connection::{Ended, Event, Incoming, Request, Transport};
use super::crowd::Progress;
use super::history::{Address, ClientRecord, ConnectionRecord, MessageId, Seen, TopicId, Topics};
use super::node::Addresses;
use super::random::Random;

/// What all clients of a run are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Go and come back as [`Cuts`] says.
    Stormy,
    /// Stay connected, and come back at once.
    Calm,
    /// End and give the record.
    Over,
}

/// When a client cuts its own connection, and for how long.
#[derive(Debug, Clone)]
pub struct Cuts {
    /// How long a connection lives.
    pub every: Range<Duration>,
    /// How long the client then stays away.
    pub away: Range<Duration>,
    /// One connection in so many is cut instead between two messages of its welcome, any two; 0: none.
    pub in_welcome: usize,
    /// After one `gap` in so many the client cuts itself off; 0: after none.
    pub after_gap: usize,
}

/// When a client leaves for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// So long after the run became stormy.
    At(Duration),
    /// When a server ends its connection, a server that is killed for one; so long after the run
    /// became stormy at the latest.
    WithServer(Duration),
}

/// A client to be. [`run`](Self::run) is its whole life; it costs one task and one socket.
#[derive(Debug, Clone)]
pub struct Client {
    /// A name for people.
    pub name: String,
    /// Its user.
    pub user: String,
    /// Its token.
    pub token: String,
    /// How it connects.
    pub transport: Transport,
    /// The rooms that it names in the URL.
    pub rooms: Vec<String>,
    /// A room that it joins by a message once it is connected, with the newest cursor it had there. Over WebSocket alone.
    pub late_room: Option<String>,
    /// The topics of the run.
    pub topics: Arc<Topics>,
    /// Where it connects, at random.
    pub addresses: Addresses,
    /// When it cuts itself off; `None`: never.
    pub cuts: Option<Cuts>,
    /// When it leaves before the end; `None`: it stays.
    pub leaves: Option<Leaves>,
    /// A planted fault: the client takes for the cursor of each message of a welcome that of the last one.
    pub cursor_ahead: bool,
    /// From when times count.
    pub start: Instant,
    /// Its random numbers.
    pub random: Random,
    /// How far it is.
    pub progress: Progress,
}

/// Where a client is to go on.
#[derive(Debug, Default)]
struct Standing {
    /// When it first heard that the run is stormy.
    storm: Option<Instant>,
    /// In the rooms of the URL and in its own topics.
    newest: Option<String>,
    /// In the room that it joins later, whose messages a cursor from before the join does not know.
    late: Option<String>,
}

impl Standing {
    fn take(&mut self, cursor: Option<String>, joined_late: bool) {
        if cursor.is_some() {
            if joined_late {
                self.late.clone_from(&cursor);
            }
            self.newest = cursor;
        }
    }
}

/// Where the life of one connection ended.
enum Left {
    /// The client is to end.
    Over,
    /// It cut itself off.
    Cut,
    /// It cut itself off and comes back soon.
    CutEarly,
    /// The server, or the network, ended it.
    Ended(Ended),
}

impl Client {
    /// Connects and comes back until the phase is [`Phase::Over`]. The newest cursor is given on each return; advice
    /// of the server when to come back is followed.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) -> ClientRecord {
        let (name, user) = (self.name.clone(), self.user.clone());
        let mut record = ClientRecord { name, user, ..ClientRecord::default() };
        let mut standing = Standing::default();
        while *phase.borrow() != Phase::Over && !record.left {
            let opened = self.start.elapsed();
            let node = self.random.below(self.addresses.count());
            let resumed = standing.newest.is_some();
            let mut connection = ConnectionRecord { node, opened, resumed, ..Default::default() };
            let left = self.connection(&mut phase, &mut standing, &mut connection).await;
            connection.ended = self.start.elapsed();
            self.progress.cut();
            record.left = self.has_left(&left, &phase, &standing);
            let away = match left {
                Left::Over => Duration::ZERO,
                Left::CutEarly => {
                    "cut early by the client".clone_into(&mut connection.end);
                    self.random.between(&(Duration::ZERO..4 * BACKOFF))
                }
                Left::Cut => {
                    "cut by the client".clone_into(&mut connection.end);
                    let away = self.cuts.as_ref().map(|cuts| self.random.between(&cuts.away));
                    away.unwrap_or_default()
                }
                Left::Ended(ended) => {
                    connection.end = format!("{} {}", ended.code.unwrap_or(0), ended.reason);
                    let backoff = self.random.between(&(BACKOFF..4 * BACKOFF));
                    ended.reconnect_after.unwrap_or(backoff)
                }
            };
            record.connections.push(connection);
            if !record.left {
                let away = away.min(self.until_it_leaves(&standing));
                self.stay_away(&mut phase, away).await;
                record.left = self.leaves_at(&standing).is_some_and(|at| Instant::now() >= at);
            }
        }
        record
    }

    /// The topics that it is in while it is connected.
    pub fn joins(&self) -> Vec<TopicId> {
        let rooms = self
            .rooms
            .iter()
            .chain(&self.late_room)
            .filter_map(|room| self.room(Some(room.clone())));
        rooms.chain(self.own_topics()).collect()
    }

    /// When it leaves for good at the latest.
    fn leaves_at(&self, standing: &Standing) -> Option<Instant> {
        let (Leaves::At(after) | Leaves::WithServer(after)) = self.leaves?;
        Some(standing.storm? + after)
    }

    fn until_it_leaves(&self, standing: &Standing) -> Duration {
        self.leaves_at(standing).map_or(Duration::MAX, |at| at - Instant::now())
    }

    /// Whether it comes back no more.
    fn has_left(&self, left: &Left, phase: &watch::Receiver<Phase>, standing: &Standing) -> bool {
        let with_server = matches!(self.leaves, Some(Leaves::WithServer(_)))
            && *phase.borrow() == Phase::Stormy
            && matches!(left, Left::Ended(_));
        with_server || self.leaves_at(standing).is_some_and(|at| Instant::now() >= at)
    }

    /// Waits, but no longer than a change of phase allows.
    async fn stay_away(&mut self, phase: &mut watch::Receiver<Phase>, away: Duration) {
        let stormy = *phase.borrow_and_update() == Phase::Stormy;
        if stormy {
            let _ = timeout(away, phase.changed()).await;
            let calm = self.random.between(&(Duration::ZERO..4 * BACKOFF));
            if *phase.borrow() == Phase::Calm {
                sleep(calm).await;
            }
        } else {
            let _ = timeout(away, phase.wait_for(|phase| *phase == Phase::Over)).await;
        }
    }

    /// Opens a connection to a node, with the newest cursor.
    async fn open(&self, node: usize, standing: &Standing) -> Result<Reader, Ended> {
        let request = Request {
            address: self.addresses.get(node),
            transport: self.transport,
            token: &self.token,
            rooms: &self.rooms,
            presence: false,
            cursor: standing.newest.as_deref(),
        };
        match timeout(OPEN_PATIENCE, Reader::open(&request, self.cursor_ahead)).await {
            Ok(opened) => opened.map_err(|error| Ended::cut(error.to_string())),
            Err(_) => Err(Ended::cut("the server did not answer")),
        }
    }

    async fn connection(
        &mut self,
        phase: &mut watch::Receiver<Phase>,
        standing: &mut Standing,
        record: &mut ConnectionRecord,
    ) -> Left {
        let mut connection = match self.open(record.node, standing).await {
            Ok(connection) => connection,
            Err(ended) => return Left::Ended(ended),
        };
        let mut cut = self.cut_at(phase, standing);
        let mut spared = self.spared(phase);
        let (mut patience, mut advice) = (OPEN_PATIENCE, None);
        let mut joined_late = self.late_room.is_none();
        loop {
            if spared == Some(0) {
                return Left::CutEarly;
            }
            let quiet = Instant::now() + patience;
            let own = cut.into_iter().chain(self.leaves_at(standing)).min();
            let incoming = tokio::select! {
                incoming = timeout_at(quiet, connection.next()) => incoming,
                () = sleep_until(own.unwrap_or(quiet)), if own.is_some() => return Left::Cut,
                changed = phase.changed() => {
                    if changed.is_err() || *phase.borrow() == Phase::Over {
                        return Left::Over;
                    }
                    cut = self.cut_at(phase, standing);
                    spared = None;
                    continue;
                }
            };
            let event = match incoming {
                Ok(Ok(Incoming::Event(event))) => event,
                Ok(Ok(Incoming::Alive)) => continue,
                Ok(Err(mut ended)) => {
                    ended.reconnect_after = advice.or(ended.reconnect_after);
                    return Left::Ended(ended);
                }
                Err(_) => return Left::Ended(Ended::cut("the server was silent for too long")),
            };
            spared = self.spared_after(&event, spared, phase);
            self.take(&event, record, &mut patience, &mut advice);
            if event.kind == "connected"
                && let Err(ended) = self.join_late(&mut connection, standing).await
            {
                return Left::Ended(ended);
            }
            if event.kind == "error" && !joined_late {
                // It could not join now, and comes again.
                return Left::Ended(Ended::cut(event.payload));
            }
            joined_late |= event.kind == "room:joined"
                && event.read::<Room>().is_ok_and(|room| Some(room.id) == self.late_room);
            standing.take(event.cursor, joined_late);
        }
    }

    /// How many messages are to come before the client cuts this connection in its welcome.
    fn spared(&mut self, phase: &watch::Receiver<Phase>) -> Option<usize> {
        let stormy = *phase.borrow() == Phase::Stormy;
        let every = self.cuts.as_ref().filter(|_| stormy)?.in_welcome;
        let longest = 4 + 2 * (self.rooms.len() + usize::from(self.late_room.is_some()));
        (every > 0 && self.random.once_in(every)).then(|| self.random.below(longest))
    }

    /// The same after another message.
    fn spared_after(
        &mut self,
        event: &Event,
        spared: Option<usize>,
        phase: &watch::Receiver<Phase>,
    ) -> Option<usize> {
        let stormy = *phase.borrow() == Phase::Stormy;
        let every = self.cuts.as_ref().filter(|_| stormy).map_or(0, |cuts| cuts.after_gap);
        if event.kind == "gap" && every > 0 && self.random.once_in(every) {
            return Some(0);
        }
        spared.map(|spared| spared.saturating_sub(1))
    }

    /// Asks to join the room that the URL does not name, if there is one.
    async fn join_late(&self, connection: &mut Reader, standing: &Standing) -> Result<(), Ended> {
        let Some(room) = &self.late_room else { return Ok(()) };
        let mut payload = json!({ "roomId": room });
        if let Some(cursor) = &standing.late {
            payload["cursor"] = cursor.as_str().into();
        }
        connection.send(json!({ "type": "join:room", "payload": payload }).to_string()).await
    }

    fn cut_at(
        &mut self,
        phase: &mut watch::Receiver<Phase>,
        standing: &mut Standing,
    ) -> Option<Instant> {
        let stormy = *phase.borrow_and_update() == Phase::Stormy;
        if stormy {
            standing.storm.get_or_insert_with(Instant::now);
        }
        let cuts = self.cuts.as_ref().filter(|_| stormy)?;
        Some(Instant::now() + self.random.between(&cuts.every))
    }

    fn take(
        &self,
        event: &Event,
        record: &mut ConnectionRecord,
        patience: &mut Duration,
        advice: &mut Option<Duration>,
    ) {
        let at = self.start.elapsed();
        if event.kind == "checked" {
            // A payload that is none of ours is what nobody published.
            let id = event.read::<Checked>().map_or(
                MessageId { topic: TopicId(u32::MAX), publisher: 0, sequence: 0 },
                |read| MessageId {
                    topic: TopicId(read.topic),
                    publisher: read.publisher,
                    sequence: read.sequence,
                },
            );
            self.progress.got(id);
            return record.seen.push(Seen::Message(id, millis(at)));
        }
        let told: Told = event.read().unwrap_or_default();
        match event.kind.as_str() {
            "connected" => {
                record.recovered = Some(told.recovered);
                *patience =
                    Duration::from_millis(3 * told.heartbeat_ms).max(Duration::from_secs(2));
                self.own_topics().for_each(|topic| self.joined(topic, at, record));
            }
            "room:joined" => {
                self.room(told.room_id)
                    .into_iter()
                    .for_each(|topic| self.joined(topic, at, record));
            }
            "gap" => {
                let reason = told.reason.unwrap_or_default();
                let gap = |topic| Seen::Gap(topic, reason.clone(), millis(at));
                match told.room_id {
                    Some(room) => record.seen.extend(self.room(Some(room)).map(gap)),
                    None => record.seen.extend(self.own_topics().map(gap)),
                }
            }
            "server:draining" => {
                *advice = Some(Duration::from_millis(told.reconnect_after_ms));
            }
            _ => {}
        }
    }

    fn joined(&self, topic: TopicId, at: Duration, record: &mut ConnectionRecord) {
        self.progress.joined(topic);
        record.seen.push(Seen::Joined { topic, at });
    }

    /// The topics that a connection is in without joining. A `gap` without a room speaks of them.
    fn own_topics(&self) -> impl Iterator<Item = TopicId> {
        let user = self.topics.id(&Address::User(self.user.clone()));
        user.into_iter().chain(self.topics.id(&Address::Everyone))
    }

    fn room(&self, room: Option<String>) -> Option<TopicId> {
        self.topics.id(&Address::Room(room?))
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Told {
    room_id: Option<String>,
    reason: Option<Box<str>>,
    recovered: bool,
    heartbeat_ms: u64,
    reconnect_after_ms: u64,
}

#[derive(Deserialize)]
struct Checked {
    topic: u32,
    publisher: u16,
    sequence: u32,
}

#[derive(Deserialize)]
struct Room {
    #[serde(rename = "roomId")]
    id: String,
}

/// How long a server may take to let a client in, and the first silence after it.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(100);
