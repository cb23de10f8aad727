//! What a link has heard and its reader has not read yet: bounded in bytes. It knows the link's topics.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tidings_core::{BusError, Topic};
use tokio::sync::watch;

use crate::stats::{Counters, bump};

/// What a link has heard.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    counters: Arc<Counters>,
    max_bytes: usize,
    probe_channel: String,
    moves_channel: String,
    /// The last probe that came back.
    probed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// By channel. What comes in another channel was given up, and is dropped.
    topics: HashMap<String, Listening>,
    waiting: VecDeque<Heard>,
    bytes: usize,
    /// The link was handed out, and counts.
    up: bool,
    end: Option<End>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Listening {
    topic: Topic,
    confirmed: bool,
    leaving: bool,
}

/// A message as it came, and its topic.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) topic: Topic,
    pub(crate) bytes: Bytes,
}

/// Why the link ended; told to the reader once.
#[derive(Debug)]
struct End(Option<BusError>);

impl Queue {
    pub(crate) fn new(
        counters: Arc<Counters>,
        max_bytes: usize,
        [probe_channel, moves_channel]: [String; 2],
    ) -> Self {
        let probed = watch::Sender::new(0);
        Self { state: Mutex::default(), counters, max_bytes, probe_channel, moves_channel, probed }
    }

    /// Takes what Redis sent unasked. Never waits: the connection would wait with it.
    pub(crate) fn push(&self, push: PushInfo) {
        let mut data = push.data.into_iter();
        let channel = match data.next() {
            Some(Value::BulkString(bytes)) => String::from_utf8(bytes).unwrap_or_default(),
            Some(Value::SimpleString(text)) => text,
            _ => String::new(),
        };
        match (push.kind, data.next()) {
            (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(bytes))) => {
                self.message(&channel, bytes);
            }
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, _) => self.unsubscribed(&channel),
            (PushKind::Disconnection, _) => {
                self.end(BusError::Unavailable("the connection to Redis broke".to_owned()));
            }
            _ => {}
        }
    }

    fn message(&self, channel: &str, bytes: Vec<u8>) {
        if channel == self.probe_channel {
            let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
            self.probed.send_replace(number.unwrap_or_default());
            return;
        }
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        let Some(topic) = state.topics.get(channel).map(|l| l.topic.clone()) else {
            drop(state);
            if channel == self.moves_channel {
                let text = "a node has published to a Redis that was replaced";
                self.end(BusError::Unavailable(text.to_owned()));
            }
            return;
        };
        let heard = Heard { topic, bytes: bytes.into() };
        let cost = heard.cost();
        if state.bytes + cost > self.max_bytes {
            drop(state);
            let text = format!("over {} bytes were waiting to be read", self.max_bytes);
            return self.end(BusError::Lagged(text));
        }
        state.bytes += cost;
        self.counters.queue_bytes.fetch_add(cost as u64, Ordering::Relaxed);
        state.waiting.push_back(heard);
        wake(state);
    }

    /// Redis confirms that a topic was given up. When it was not, the slot has moved or a right was taken.
    fn unsubscribed(&self, channel: &str) {
        let unasked = match self.lock().topics.get(channel) {
            Some(listening) => !listening.leaving,
            None => channel == self.probe_channel,
        };
        if unasked {
            let text = "Redis ended a subscription by itself".to_owned();
            self.end(BusError::Unavailable(text));
        }
    }

    /// The link is up.
    pub(crate) fn is_up(&self) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.up = true;
            bump(&self.counters.links);
        }
    }

    /// Ends the link; what waits is still delivered, then the reason.
    pub(crate) fn end(&self, reason: BusError) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(End(Some(reason)));
        if state.up {
            bump(&self.counters.links_ended);
            self.counters.links.fetch_sub(1, Ordering::Relaxed);
        }
        let topics = std::mem::take(&mut state.topics).len() as u64;
        self.counters.subscriptions.fetch_sub(topics, Ordering::Relaxed);
        wake(state);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Which of these channels must be asked for. From now on they are heard.
    pub(crate) fn joining(&self, channels: Vec<(String, Topic)>) -> Vec<String> {
        let mut state = self.lock();
        let mut asked = Vec::new();
        if state.end.is_some() {
            return asked;
        }
        for (channel, topic) in channels {
            let listening = state.topics.entry(channel.clone()).or_insert_with(|| {
                self.counters.subscriptions.fetch_add(1, Ordering::Relaxed);
                Listening { topic, confirmed: false, leaving: false }
            });
            listening.leaving = false;
            if !listening.confirmed {
                asked.push(channel);
            }
        }
        asked
    }

    /// Redis confirmed these.
    pub(crate) fn joined(&self, channels: &[String]) {
        let mut state = self.lock();
        for channel in channels {
            if let Some(listening) = state.topics.get_mut(channel) {
                listening.confirmed = true;
            }
        }
    }

    /// Which of these channels must be given up.
    pub(crate) fn leaving(&self, channels: Vec<String>) -> Vec<String> {
        let mut state = self.lock();
        let mut leave = |channel: &String| {
            let listening = state.topics.get_mut(channel);
            listening
                .map(|listening| (listening.leaving, listening.confirmed) = (true, false))
                .is_some()
        };
        channels.into_iter().filter(|channel| leave(channel)).collect()
    }

    /// These are not heard any more.
    pub(crate) fn left(&self, channels: &[String]) {
        let mut state = self.lock();
        let gone =
            channels.iter().filter(|channel| state.topics.remove(*channel).is_some()).count();
        self.counters.subscriptions.fetch_sub(gone as u64, Ordering::Relaxed);
    }

    /// The last probe that came back; changes with each.
    pub(crate) fn probed(&self) -> watch::Receiver<u64> {
        self.probed.subscribe()
    }

    /// The next of what was heard; after the end the reason, then nothing.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Heard, BusError>>> {
        let mut state = self.lock();
        if let Some(heard) = state.waiting.pop_front() {
            state.bytes -= heard.cost();
            self.counters.queue_bytes.fetch_sub(heard.cost() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(heard)));
        }
        if let Some(End(reason)) = &mut state.end {
            return Poll::Ready(reason.take().map(Err));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let bytes = self.lock().bytes as u64;
        self.counters.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Heard {
    fn cost(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}
