//! `/metrics`: what the hub's observer has counted, and what the hub holds now, as Prometheus text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidings_bus_redis::RedisStats;
use tidings_core::{AuthError, Event, Observer, PublishError, Stats};

use crate::{log, redis};

/// Counts events. Nothing is counted by user, room or tenant, so it does not grow.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    received: AtomicU64,
    received_bytes: AtomicU64,
    delivered: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    rate_limited: AtomicU64,
    panics: AtomicU64,
    links_up: AtomicU64,
    links_lost: AtomicU64,
    subscribed: AtomicU64,
    not_subscribed: AtomicU64,
    /// By family and the value of its one label.
    labelled: Mutex<BTreeMap<(&'static str, Cow<'static, str>), u64>>,
    latency: Latency,
}

/// How many publications took at most so long.
#[derive(Debug, Default)]
struct Latency {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// What is no counter.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) stats: Stats,
    pub(crate) partitions_away: usize,
    pub(crate) draining: bool,
    pub(crate) uptime: Duration,
    pub(crate) redis: Option<RedisStats>,
    /// How long ago the keys were read, when they rotate.
    pub(crate) keys: Option<Duration>,
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Relaxed);
        match *event {
            Event::Received { bytes } => {
                add(&self.received, 1);
                add(&self.received_bytes, bytes);
            }
            Event::Delivered { receivers, .. } => drop(add(&self.delivered, receivers)),
            Event::Written { frames, bytes } => {
                self.frames.fetch_add(frames, Relaxed);
                self.bytes.fetch_add(bytes, Relaxed);
            }
            Event::RateLimited => drop(add(&self.rate_limited, 1)),
            Event::Panicked => drop(add(&self.panics, 1)),
            Event::LinkUp { .. } => drop(add(&self.links_up, 1)),
            Event::LinkLost { .. } => drop(add(&self.links_lost, 1)),
            Event::Subscribed { topics, done: true } => drop(add(&self.subscribed, topics)),
            Event::Subscribed { topics, done: false } => drop(add(&self.not_subscribed, topics)),
            Event::Opened { transport } => self.count(OPENED, transport.into(), 1),
            Event::Closed { reason, by_client, .. } => {
                self.count(CLOSED, closed(reason.map(|reason| reason.code), by_client), 1);
            }
            Event::Authenticated { outcome } => self.count(AUTH, judged(outcome).into(), 1),
            Event::Refused { error } => self.count(REFUSED, snake(&format!("{error:?}")), 1),
            Event::TooSlow { bound } => self.count(SLOW, snake(&format!("{bound:?}")), 1),
            Event::Gap { reason, connections } => {
                self.count(GAPS, snake(&format!("{reason:?}")), connections as u64);
            }
            Event::Published { outcome, took } => {
                self.count(PUBLISHED, published(outcome).into(), 1);
                self.latency.add(took);
            }
            // Events that are newer than this server.
            _ => {}
        }
    }
}

impl Metrics {
    /// A connection was not taken, since files were out or for an error.
    pub(crate) fn not_accepted(&self, reason: &'static str) {
        self.count(NOT_ACCEPTED, reason.into(), 1);
    }

    fn count(&self, family: &'static str, label: Cow<'static, str>, n: u64) {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        *labelled.entry((family, label)).or_default() += n;
    }

    /// All of it in the text format of Prometheus, version 0.0.4.
    pub(crate) fn text(&self, now: &Gauges) -> String {
        let mut text = Text(String::new());
        for (name, help, counter) in [
            ("messages_received", "Messages that clients sent.", &self.received),
            ("received_bytes", "Bytes of the messages that clients sent.", &self.received_bytes),
            (
                "messages_delivered",
                "Messages times the connections they were handed to.",
                &self.delivered,
            ),
            ("frames_written", "Frames that have left for clients.", &self.frames),
            ("written_bytes", "Bytes that have left for clients.", &self.bytes),
            ("rate_limited", "Messages that were answered rate_limited.", &self.rate_limited),
            ("handler_panics", "Panics in the application's code.", &self.panics),
            ("bus_links_up", "Links to the bus that came up.", &self.links_up),
            ("bus_links_lost", "Links to the bus that broke.", &self.links_lost),
            ("bus_topics_subscribed", "Topics that were subscribed.", &self.subscribed),
            ("bus_topics_refused", "Topics that could not be subscribed.", &self.not_subscribed),
        ] {
            text.family(&format!("{name}_total"), help, "counter");
            text.sample(&format!("{name}_total"), None, counter.load(Relaxed) as f64);
        }
        let labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, label, help) in FAMILIES {
            text.family(name, help, "counter");
            for ((_, value), count) in labelled.iter().filter(|((family, _), _)| *family == name) {
                text.sample(name, Some((label, value)), *count as f64);
            }
        }
        text.family(
            "log_lines_dropped_total",
            "Lines that the log's reader did not take.",
            "counter",
        );
        text.sample("log_lines_dropped_total", None, log::dropped() as f64);
        self.latency.write(&mut text);
        now.write(&mut text);
        text.0
    }
}

impl Latency {
    fn add(&self, took: Duration) {
        let bucket = BUCKETS.iter().position(|most| took.as_secs_f64() <= *most);
        if let Some(bucket) = bucket {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    fn write(&self, text: &mut Text) {
        let name = "publish_seconds";
        text.family(name, "How long it took to publish a message.", "histogram");
        let mut below = 0;
        for (bucket, most) in self.buckets.iter().zip(BUCKETS) {
            below += bucket.load(Relaxed);
            text.sample("publish_seconds_bucket", Some(("le", &most.to_string())), below as f64);
        }
        let count = self.count.load(Relaxed).max(below) as f64;
        text.sample("publish_seconds_bucket", Some(("le", "+Inf")), count);
        text.sample("publish_seconds_sum", None, self.micros.load(Relaxed) as f64 / 1e6);
        text.sample("publish_seconds_count", None, count);
    }
}

impl Gauges {
    fn write(&self, text: &mut Text) {
        let bus_up = f64::from(u8::from(self.partitions_away == 0));
        text.family("connections", "Connections now, by transport.", "gauge");
        for transport in ["websocket", "sse"] {
            let count = self.stats.connections.get(transport).copied().unwrap_or(0);
            text.sample("connections", Some(("transport", transport)), count as f64);
        }
        for (name, help, value) in [
            ("users", "Users with a connection.", self.stats.users as f64),
            ("rooms", "Rooms with a member.", self.stats.rooms as f64),
            ("queued_bytes", "Bytes that wait for clients.", self.stats.queued_bytes as f64),
            ("bus_up", "Whether every link to the bus is up.", bus_up),
            ("bus_partitions_away", "Links to the bus that are away.", self.partitions_away as f64),
            ("draining", "Whether this node is going away.", f64::from(u8::from(self.draining))),
            ("uptime_seconds", "Since this node started.", self.uptime.as_secs() as f64),
        ] {
            text.family(name, help, "gauge");
            text.sample(name, None, value);
        }
        if let Some(age) = self.keys {
            text.family("keys_age_seconds", "Since the keys of tokens were read.", "gauge");
            text.sample("keys_age_seconds", None, age.as_secs_f64());
        }
        if let Some(stats) = &self.redis {
            redis::write(stats, text);
        }
    }
}

/// The text format, a line at a time.
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP tidings_{name} {help}\n# TYPE tidings_{name} {kind}");
    }

    /// The values of labels here have no character that would have to be escaped.
    pub(crate) fn sample(&mut self, name: &str, label: Option<(&str, &str)>, value: f64) {
        let _ = match label {
            Some((label, of)) => writeln!(self.0, "tidings_{name}{{{label}=\"{of}\"}} {value}"),
            None => writeln!(self.0, "tidings_{name} {value}"),
        };
    }
}

/// Clients choose their codes: only those that browsers send by themselves are told apart.
fn closed(code: Option<u16>, by_client: bool) -> Cow<'static, str> {
    match code {
        None => "none".into(),
        Some(code @ (1000 | 1001 | 1005)) if by_client => format!("client_{code}").into(),
        Some(_) if by_client => "client_other".into(),
        Some(code) => code.to_string().into(),
    }
}

fn judged(outcome: Result<(), &AuthError>) -> &'static str {
    match outcome {
        Ok(()) => "accepted",
        Err(AuthError::Missing) => "missing",
        Err(AuthError::Unavailable(_)) => "unavailable",
        Err(_) => "refused",
    }
}

fn published(outcome: Result<(), &PublishError>) -> &'static str {
    match outcome {
        Ok(()) => "accepted",
        Err(PublishError::Reserved) => "reserved_type",
        Err(PublishError::TooLarge { .. }) => "too_large",
        Err(PublishError::Forbidden) => "forbidden",
        Err(_) => "unavailable",
    }
}

/// `TooMany` as `too_many`.
fn snake(name: &str) -> Cow<'static, str> {
    let mut snake = String::new();
    for c in name.chars().filter(char::is_ascii_alphabetic) {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake.into()
}

const OPENED: &str = "connections_opened_total";
const CLOSED: &str = "connections_closed_total";
const AUTH: &str = "authentications_total";
const REFUSED: &str = "refused_total";
const NOT_ACCEPTED: &str = "not_accepted_total";
const SLOW: &str = "too_slow_total";
const GAPS: &str = "gaps_total";
const PUBLISHED: &str = "publications_total";

/// Counters by a label: the family, the label, what it counts.
const FAMILIES: [(&str, &str, &str); 8] = [
    (NOT_ACCEPTED, "reason", "Connections that were dropped before a request: no files, an error."),
    (OPENED, "transport", "Connections that were taken in."),
    (
        CLOSED,
        "code",
        "Connections that ended, by close code; client_… when the client ended it, none for one that was lost.",
    ),
    (AUTH, "outcome", "Requests whose credentials were judged."),
    (
        REFUSED,
        "reason",
        "Clients that were sent away: the user has too many, the node is full or drains, the bus is away.",
    ),
    (SLOW, "bound", "Clients that read too slowly, by the bound they reached."),
    (GAPS, "reason", "Connections that were told of a gap."),
    (PUBLISHED, "outcome", "Messages published through this node."),
];

/// Upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];
