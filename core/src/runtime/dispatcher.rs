//! The node's one order: merges the links' deliveries into one sequence and hands each to the shards
//! that have members. It knows which shards want which topic, never which connections.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};

use super::command::Commands;
use super::link::{Link, LinkEvent};
use super::shard::{Routed, ShardHandle};
use crate::{Bus, Delivery, Topic};

/// What shards and connections ask of the dispatcher.
#[derive(Debug)]
pub(crate) enum Wish {
    /// A connection of the shard will be in these topics; answered once all are subscribed. Answers
    /// how many connections were in the first of them before.
    Want { topics: Vec<Topic>, shard: usize, answer: oneshot::Sender<Result<usize, BusAway>> },
    /// A connection of the shard is no longer in this topic.
    Drop { topic: Topic, shard: usize },
}

/// The bus is away, so a topic cannot be subscribed now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BusAway;

pub(crate) struct Dispatcher {
    bus: Arc<dyn Bus>,
    links: Vec<Link>,
    shards: Vec<ShardHandle>,
    commands: Arc<Commands>,
    topics: HashMap<Topic, Entry>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    /// Topics in which something may have been missed since a link was lost.
    suspects: HashSet<Topic>,
    up: Arc<AtomicBool>,
    inbox_bytes: usize,
}

#[derive(Default)]
struct Entry {
    /// How many connections of each shard are, or are about to be, in the topic.
    counts: Vec<usize>,
    waiting: Vec<Arc<Barrier>>,
}

/// Answers a wish when the last of its topics is subscribed, or at once when one cannot be.
struct Barrier {
    left: AtomicUsize,
    before: usize,
    answer: std::sync::Mutex<Option<oneshot::Sender<Result<usize, BusAway>>>>,
}

impl Barrier {
    fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(Ok(self.before));
        }
    }

    fn answer(&self, result: Result<usize, BusAway>) {
        let answer = self.answer.lock().map(|mut a| a.take()).unwrap_or_default();
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
    }
}

impl Dispatcher {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        links: Vec<Link>,
        shards: Vec<ShardHandle>,
        commands: Arc<Commands>,
        wishes: mpsc::UnboundedReceiver<Wish>,
        up: Arc<AtomicBool>,
        inbox_bytes: usize,
    ) -> Self {
        Self {
            bus,
            links,
            shards,
            commands,
            topics: HashMap::new(),
            wishes,
            suspects: HashSet::new(),
            up,
            inbox_bytes,
        }
    }

    /// Runs until every hub handle and shard is gone.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next().await {
                Some(Step::Wish(wish)) => self.wish(wish),
                Some(Step::Link(event)) => self.link_event(event).await,
                None => return,
            }
        }
    }

    async fn next(&mut self) -> Option<Step> {
        poll_fn(|cx| {
            if let Poll::Ready(wish) = self.wishes.poll_recv(cx) {
                return Poll::Ready(wish.map(Step::Wish));
            }
            for link in &mut self.links {
                if let Poll::Ready(event) = link.poll_event(cx) {
                    return Poll::Ready(Some(Step::Link(event)));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Want { topics, shard, answer } => self.want(&topics, shard, answer),
            Wish::Drop { topic, shard } => self.give_up(&topic, shard),
        }
    }

    fn want(
        &mut self,
        topics: &[Topic],
        shard: usize,
        answer: oneshot::Sender<Result<usize, BusAway>>,
    ) {
        let mut away = false;
        let barrier = Arc::new(Barrier {
            // One more than the topics, passed below, so that it cannot be answered halfway through.
            left: AtomicUsize::new(topics.len() + 1),
            before: topics
                .first()
                .map_or(0, |t| self.topics.get(t).map_or(0, |e| e.counts.iter().sum())),
            answer: std::sync::Mutex::new(Some(answer)),
        });
        for topic in topics {
            let link = &mut self.links[usize::from(self.bus.partition(topic))];
            let entry = self.topics.entry(topic.clone()).or_default();
            entry.counts.resize(self.shards.len(), 0);
            entry.counts[shard] += 1;
            link.set(topic, true);
            away |= !link.is_up();
            if link.is_subscribed(topic) {
                barrier.pass();
            } else {
                entry.waiting.push(barrier.clone());
            }
        }
        if away {
            barrier.answer(Err(BusAway));
        }
        barrier.pass();
    }

    fn give_up(&mut self, topic: &Topic, shard: usize) {
        let Some(entry) = self.topics.get_mut(topic) else { return };
        entry.counts[shard] = entry.counts[shard].saturating_sub(1);
        if entry.counts.iter().all(|&n| n == 0) {
            self.topics.remove(topic);
            self.suspects.remove(topic);
            self.links[usize::from(self.bus.partition(topic))].set(topic, false);
        }
    }

    async fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Delivery(delivery) => self.deliver(*delivery).await,
            LinkEvent::Subscribed(topics) => {
                for topic in topics {
                    self.subscribed(&topic);
                }
            }
            LinkEvent::Refused(topics) => self.refuse(&topics),
            LinkEvent::Up => self.up.store(self.links.iter().all(Link::is_up), Ordering::Release),
            LinkEvent::Lost => {
                self.up.store(false, Ordering::Release);
                let lost: Vec<Topic> =
                    self.topics.keys().filter(|t| !self.is_subscribed(t)).cloned().collect();
                self.refuse(&lost);
                self.suspects.extend(lost);
            }
        }
    }

    fn is_subscribed(&self, topic: &Topic) -> bool {
        self.links[usize::from(self.bus.partition(topic))].is_subscribed(topic)
    }

    fn subscribed(&mut self, topic: &Topic) {
        let Some(entry) = self.topics.get_mut(topic) else { return };
        for barrier in std::mem::take(&mut entry.waiting) {
            barrier.pass();
        }
        if self.suspects.remove(topic) {
            for (shard, _) in self.shards.iter().zip(&entry.counts).filter(|(_, n)| **n > 0) {
                shard.gap(topic.clone());
            }
        }
    }

    fn refuse(&mut self, topics: &[Topic]) {
        for topic in topics {
            let entry = self.topics.get_mut(topic);
            for barrier in entry.map(|e| std::mem::take(&mut e.waiting)).unwrap_or_default() {
                barrier.answer(Err(BusAway));
            }
        }
    }

    async fn deliver(&mut self, delivery: Delivery) {
        if self.commands.take(&delivery) {
            return;
        }
        let Some(entry) = self.topics.get(&delivery.topic) else { return };
        let routed = Arc::new(Routed::new(delivery));
        for (shard, _) in self.shards.iter().zip(&entry.counts).filter(|(_, n)| **n > 0) {
            shard.deliver(routed.clone());
            // A shard never waits for a client, so this ends; meanwhile the link holds what comes.
            shard.below(self.inbox_bytes).await;
        }
    }
}

enum Step {
    Wish(Wish),
    Link(LinkEvent),
}
