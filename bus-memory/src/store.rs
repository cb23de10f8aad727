//! What the bus keeps of all topics, and the rules by which it forgets.
//!
//! Each topic has a [`Log`]. A log without messages still knows the topic's last position for
//! [`REMEMBERED`], so that its offsets go on and a client that was away learns that it missed nothing.
//! Then the log is forgotten and the store's `floor` rises to its last clock: of a topic without a log the store
//! knows that nothing was published after `floor`, and nothing about before. A new log takes its first offset from
//! the clock, which is above every offset there ever was, and counts as trimmed up to `floor`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{
    Delivery, HistoryPage, Payload, Position, Publication, Retention, Scope, Top, Topic, Tops,
};

use crate::log::{Log, message_cost};

/// All logs of one epoch. A pure machine; time is an argument.
#[derive(Debug)]
pub(crate) struct Store {
    epoch: u64,
    clock: u64,
    floor: u64,
    logs: HashMap<Topic, Entry>,
    /// One place per log. Those whose time has come, or that must make room, stand first.
    queue: BTreeMap<Place, Topic>,
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    log: Log,
    place: Place,
}

/// When to look after a log: at the latest when its oldest message expires, or it is forgotten. The clock tells logs
/// of the same time apart.
type Place = (Phase, Duration, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It keeps nothing and waits to be forgotten: the first to make room.
    Idle,
    Keeping,
}

impl Store {
    /// An empty store that takes `max_bytes`.
    pub(crate) fn new(epoch: u64, max_bytes: usize) -> Self {
        let (logs, queue) = (HashMap::new(), BTreeMap::new());
        Self { epoch, clock: 0, floor: 0, logs, queue, bytes: 0, max_bytes }
    }

    /// Keeps a publication, and answers what to deliver of it.
    pub(crate) fn append(
        &mut self,
        now: Duration,
        publication: &Publication,
        retention: Retention,
    ) -> Delivery {
        self.tidy(now);
        self.clock += 1;
        let mut delivery = Delivery::of(publication);
        let topic = &delivery.topic;
        let (floor, clock) = (self.floor, self.clock);
        let mut log = self.take(topic).unwrap_or_else(|| {
            self.bytes += topic_cost(topic);
            Log::new(floor, retention)
        });
        let offset = if log.top().offset == 0 { clock } else { log.top().offset + 1 };
        delivery.position = Some(Position { epoch: self.epoch, offset, clock });
        self.bytes += message_cost(&delivery);
        self.bytes -= log.push(now, Top { offset, clock }, compact(delivery.clone()), retention);
        self.put(delivery.topic.clone(), log);
        self.make_room();
        delivery
    }

    /// Where these topics stand.
    pub(crate) fn tops(&mut self, now: Duration, topics: &[Topic]) -> Tops {
        self.tidy(now);
        let top = |topic| self.logs.get(topic).map_or(Top::default(), |entry| entry.log.top());
        Tops { epoch: self.epoch, clock: self.clock, tops: topics.iter().map(top).collect() }
    }

    /// What a topic keeps after a clock.
    pub(crate) fn after(
        &mut self,
        now: Duration,
        topic: &Topic,
        clock: u64,
        limit: u32,
    ) -> HistoryPage {
        self.tidy(now);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (epoch, top) = (self.epoch, self.clock);
        let Some(entry) = self.logs.get_mut(topic) else {
            let whole = clock >= self.floor;
            return HistoryPage { epoch, clock: top, deliveries: Vec::new(), whole, more: false };
        };
        self.bytes -= entry.log.trim(now);
        let kept = entry.log.after(clock);
        let more = kept.len() > limit;
        let deliveries = kept.take(limit).cloned().collect();
        let whole = entry.log.whole_after(clock);
        HistoryPage { epoch, clock: top, deliveries, whole, more }
    }

    /// Looks after some of the logs whose time has come: more of them than one call adds, so that none is late for long.
    fn tidy(&mut self, now: Duration) {
        for _ in 0..TIDIED_AT_ONCE {
            let idle = self.queue.keys().next();
            let keeping = self.queue.range((Phase::Keeping, Duration::ZERO, 0)..).next();
            let due = idle.into_iter().chain(keeping.map(|(place, _)| place));
            let Some(place) = due.copied().find(|place| place.1 <= now) else { return };
            self.look_after(now, place);
        }
    }

    /// Trims a log, or forgets it.
    fn look_after(&mut self, now: Duration, place: Place) {
        let Some(topic) = self.queue.remove(&place) else { return };
        let Some(Entry { mut log, .. }) = self.logs.remove(&topic) else { return };
        if place.0 == Phase::Idle {
            self.forget(&topic, &log);
        } else {
            self.bytes -= log.trim(now);
            self.put(topic, log);
        }
    }

    /// Lets go of the oldest until the bound is kept.
    fn make_room(&mut self) {
        while self.bytes > self.max_bytes {
            let Some((place, topic)) = self.queue.pop_first() else { return };
            let Some(Entry { mut log, .. }) = self.logs.remove(&topic) else { return };
            if place.0 == Phase::Idle {
                self.forget(&topic, &log);
                continue;
            }
            // The place may be older than the log's oldest message; then it only moves back.
            if log.expiry().is_none_or(|expiry| expiry <= place.1) {
                self.bytes -= log.drop_oldest();
            }
            self.put(topic, log);
        }
    }

    fn forget(&mut self, topic: &Topic, log: &Log) {
        self.floor = self.floor.max(log.top().clock);
        self.bytes -= topic_cost(topic);
    }

    fn take(&mut self, topic: &Topic) -> Option<Log> {
        let Entry { log, place } = self.logs.remove(topic)?;
        self.queue.remove(&place);
        Some(log)
    }

    fn put(&mut self, topic: Topic, log: Log) {
        let clock = log.top().clock;
        let place = match log.expiry() {
            Some(expiry) => (Phase::Keeping, expiry, clock),
            None => (Phase::Idle, log.ends().saturating_add(REMEMBERED), clock),
        };
        self.queue.insert(place, topic.clone());
        self.logs.insert(topic, Entry { log, place });
    }
}

/// What is kept must not hold the buffer that its payload was cut from.
fn compact(mut delivery: Delivery) -> Delivery {
    if let Some(Payload::Json(bytes) | Payload::Binary(bytes)) = &mut delivery.message.payload {
        *bytes = Bytes::copy_from_slice(bytes);
    }
    delivery
}

/// Bytes that a topic takes besides its messages, as measured.
fn topic_cost(topic: &Topic) -> usize {
    let name = match &topic.scope {
        Scope::Room(room) => room.as_str().len(),
        Scope::User(user) => user.as_str().len(),
        _ => 0,
    };
    2 * (size_of::<Topic>() + size_of::<Place>()) + size_of::<Entry>() + name + TOPIC_OVERHEAD
}

/// How long the position of a topic outlives its last message.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Bytes of allocators and of places kept free for the next topics.
const TOPIC_OVERHEAD: usize = 140;
/// Logs that one call looks after at most: no call pays for all that others left.
const TIDIED_AT_ONCE: usize = 8;
