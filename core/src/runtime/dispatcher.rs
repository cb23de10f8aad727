//! The node's one order: merges the links' deliveries into one sequence and hands each to the shards
//! that have members. It knows which shards want which topic, never which connections.
//!
//! What is kept goes through [`Positions`], which says what to dispatch, what is missing and has to be read, and
//! the cursor behind each message.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::barrier::Barrier;
use super::command::Commands;
use super::inbox::ShardHandle;
use super::link::{Link, LinkEvent};
use super::listing::Counts;
use super::reads::{Answer, Reads};
use super::routed::Routed;
use super::sabotage;
use super::up::LinksUp;
use super::wish::{BusAway, Wish};
use crate::limits::LONGEST;
use crate::machines::{Ask, Positions, Question, Step};
use crate::{
    Bus, BusError, CursorKey, Delivery, GapReason, Limits, Mark, Scope, Topic, TopicRules,
};

pub(crate) struct Dispatcher {
    bus: Arc<dyn Bus>,
    links: Vec<Link>,
    shards: Vec<ShardHandle>,
    commands: Arc<Commands>,
    topics: HashMap<Topic, Entry>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    /// Topics that are not kept in which something may have been missed since a link was lost.
    suspects: HashSet<Topic>,
    /// Topics that the bus refuses although they have members, who were told.
    refused: HashSet<Topic>,
    kept: Option<Kept>,
    rules: Arc<TopicRules>,
    up: Arc<LinksUp>,
    inbox_bytes: usize,
    counts: Arc<Counts>,
    turn: Turn,
}

/// Whose turn it is, so that nobody who is busy keeps the others waiting.
#[derive(Default)]
struct Turn {
    /// Wishes since the last look at the links.
    wishes: usize,
    /// The link that is looked at first.
    link: usize,
}

impl Turn {
    fn may_wish(&self) -> bool {
        self.wishes < MOST_WISHES
    }

    fn wished(&mut self) {
        self.wishes += 1;
    }

    /// All links, in the order of this turn.
    fn partitions(&self, links: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.link;
        (0..links).map(move |n| (first + n) % links)
    }

    /// Something came from this link: the next one is next.
    fn was_of(&mut self, link: usize) {
        (self.wishes, self.link) = (0, link + 1);
    }

    fn no_link(&mut self) {
        self.wishes = 0;
    }
}

/// What there is besides when the bus keeps a history.
pub(crate) struct Kept {
    pub(crate) positions: Positions,
    pub(crate) rules: Arc<TopicRules>,
    pub(crate) key: CursorKey,
    reads: Reads,
    looks: Interval,
}

impl Kept {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        positions: Positions,
        rules: Arc<TopicRules>,
        key: CursorKey,
        limits: &Limits,
    ) -> Self {
        let every = Some(limits.history_check).filter(|every| !every.is_zero()).unwrap_or(LONGEST);
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { positions, rules, key, reads: Reads::new(bus, limits.bus_deadline), looks }
    }

    fn keeps(&self, topic: &Topic) -> bool {
        self.rules.retention(topic).is_some()
    }
}

#[derive(Default)]
struct Entry {
    /// How many connections of each shard are, or are about to be, in the topic.
    counts: Vec<usize>,
    waiting: Vec<Arc<Barrier>>,
}

impl Dispatcher {
    #[expect(clippy::too_many_arguments, reason = "called once, by the hub")]
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        links: Vec<Link>,
        shards: Vec<ShardHandle>,
        commands: Arc<Commands>,
        wishes: mpsc::UnboundedReceiver<Wish>,
        kept: Option<Kept>,
        rules: Arc<TopicRules>,
        up: Arc<LinksUp>,
        inbox_bytes: usize,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            bus,
            links,
            shards,
            commands,
            topics: HashMap::new(),
            wishes,
            suspects: HashSet::new(),
            refused: HashSet::new(),
            kept,
            rules,
            up,
            inbox_bytes,
            counts,
            turn: Turn::default(),
        }
    }

    /// Runs until the node is dropped and its shards have ended.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next().await {
                Some(Happened::Wish(wish)) => self.wish(wish),
                Some(Happened::Link(partition, event)) => self.link_event(partition, event).await,
                Some(Happened::Read(ask, answer)) => self.read(&ask, answer).await,
                Some(Happened::Look) => self.look(),
                None => return,
            }
            // A link that is never empty must not keep the thread.
            tokio::task::coop::consume_budget().await;
        }
    }

    async fn next(&mut self) -> Option<Happened> {
        poll_fn(|cx| {
            // Wishes first, since somebody waits for them, but not for ever.
            if self.turn.may_wish()
                && let Poll::Ready(wish) = self.wishes.poll_recv(cx)
            {
                self.turn.wished();
                return Poll::Ready(wish.map(Happened::Wish));
            }
            // Answers are few; behind a busy link they would wait for ever.
            if let Some(kept) = &mut self.kept {
                if let Poll::Ready((ask, answer)) = kept.reads.poll(cx, &mut kept.positions) {
                    return Poll::Ready(Some(Happened::Read(ask, answer)));
                }
                if kept.looks.poll_tick(cx).is_ready() {
                    return Poll::Ready(Some(Happened::Look));
                }
            }
            for partition in self.turn.partitions(self.links.len()) {
                if let Poll::Ready(event) = self.links[partition].poll_event(cx) {
                    self.turn.was_of(partition);
                    return Poll::Ready(Some(Happened::Link(partition as u16, event)));
                }
            }
            self.turn.no_link();
            self.wishes.poll_recv(cx).map(|wish| wish.map(Happened::Wish))
        })
        .await
    }

    /// Has all topics looked at. Shards whose topics are silent learn by it how far the last look has brought the node.
    fn look(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        kept.positions.look_at_all();
        let marks = kept.positions.marks();
        self.shards.iter().for_each(|shard| shard.point(marks.clone()));
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
        // Without any link nobody waits: whoever asked is told at once, and gives up what was counted for it.
        let is_away = !self.up.any();
        let first = topics.first().and_then(|topic| self.topics.get(topic));
        let before = first.map_or(0, |entry| entry.counts.iter().sum());
        let barrier = Arc::new(Barrier::new(topics.len(), before, shard, answer));
        for topic in topics {
            let partition = self.bus.partition(topic);
            let link = &mut self.links[usize::from(partition)];
            link.set(topic, true);
            let is_subscribed = link.is_subscribed(topic);
            let is_new = !self.topics.contains_key(topic);
            if is_new {
                self.counts.opened(topic);
            }
            if let Some(kept) = self.kept.as_mut().filter(|kept| kept.keeps(topic)) {
                kept.positions.want(topic, partition);
                if is_new && is_subscribed {
                    kept.positions.subscribed(topic);
                }
            }
            let entry = self.topics.entry(topic.clone()).or_default();
            entry.counts.resize(self.shards.len(), 0);
            entry.counts[shard] += 1;
            if is_subscribed && self.is_ready(topic) {
                self.pass(&barrier);
            } else if !is_away && !self.up.has(partition) {
                self.enter_absent(topic, &barrier);
            } else if let Some(entry) = self.topics.get_mut(topic).filter(|_| !is_away) {
                entry.waiting.push(barrier.clone());
            }
        }
        if is_away {
            barrier.answer(Err(BusAway));
        }
        self.pass(&barrier);
    }

    /// The link of a topic is away, and others are up: the topic is entered as one whose link was lost is stayed in, and
    /// its members are told of a gap when the link is back.
    fn enter_absent(&mut self, topic: &Topic, barrier: &Barrier) {
        match self.kept.as_mut().filter(|kept| kept.keeps(topic)) {
            Some(kept) => kept.positions.enter_absent(topic),
            None => drop(self.suspects.insert(topic.clone())),
        }
        self.pass(barrier);
    }

    /// One condition of a wish holds. Before the answer its shard learns where the node stands, so that what
    /// the shard says next tells a cursor that is true and not older than the wish.
    fn pass(&self, barrier: &Barrier) {
        if barrier.pass() {
            self.shards[barrier.shard].point(self.marks());
            barrier.answer(Ok(barrier.before));
        }
    }

    fn marks(&self) -> Box<[Mark]> {
        self.kept.as_ref().map(|kept| kept.positions.marks()).unwrap_or_default()
    }

    /// Whether nothing but the subscription is needed to be in a topic.
    fn is_ready(&self, topic: &Topic) -> bool {
        let kept = self.kept.as_ref().filter(|kept| kept.keeps(topic));
        kept.is_none_or(|kept| kept.positions.is_ready(topic))
    }

    fn keeps(&self, topic: &Topic) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.keeps(topic))
    }

    fn give_up(&mut self, topic: &Topic, shard: usize) {
        let Some(entry) = self.topics.get_mut(topic) else { return };
        entry.counts[shard] = entry.counts[shard].saturating_sub(1);
        if entry.counts.iter().all(|&n| n == 0) {
            self.topics.remove(topic);
            self.counts.closed(topic);
            self.suspects.remove(topic);
            self.accepted(topic);
            self.kept.iter_mut().for_each(|kept| kept.positions.forget(topic));
            self.links[usize::from(self.bus.partition(topic))].set(topic, false);
        }
    }

    async fn link_event(&mut self, partition: u16, event: LinkEvent) {
        match event {
            LinkEvent::Delivery(delivery) => self.delivered(partition, *delivery).await,
            LinkEvent::Subscribed(topics) => {
                for topic in topics {
                    self.subscribed(&topic);
                }
            }
            LinkEvent::Refused(topics) => {
                if let [topic] = &topics[..] {
                    self.refused(topic);
                }
            }
            LinkEvent::Up => self.up.set(partition, true),
            LinkEvent::Lost => self.lost(partition),
        }
    }

    fn lost(&mut self, partition: u16) {
        self.up.set(partition, false);
        let topics = self.topics.keys();
        let lost: Vec<_> = topics.filter(|t| self.bus.partition(t) == partition).cloned().collect();
        self.kept.iter_mut().for_each(|kept| kept.positions.lost(partition));
        if self.up.any() {
            for topic in &lost {
                for barrier in self.waiting(topic) {
                    self.enter_absent(topic, &barrier);
                }
            }
        } else {
            self.refuse(&lost);
        }
        // A gap without a room is the user's, and covers what went to everyone and to the client.
        let is_suspect = |topic: &Topic| match topic.scope {
            Scope::Room(_) | Scope::User(_) => !self.keeps(topic),
            Scope::Client(_) | Scope::Everyone => false,
        };
        let suspects: Vec<_> = lost.into_iter().filter(is_suspect).collect();
        self.suspects.extend(suspects);
    }

    fn subscribed(&mut self, topic: &Topic) {
        self.accepted(topic);
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.keeps(topic)) {
            kept.positions.subscribed(topic);
        }
        if self.is_ready(topic) {
            self.ready(topic);
        }
        if self.suspects.remove(topic) {
            self.gap(topic, GapReason::Outage, None);
        }
    }

    fn ready(&mut self, topic: &Topic) {
        for barrier in self.waiting(topic) {
            self.pass(&barrier);
        }
    }

    /// The wishes that wait for a topic, which wait no longer.
    fn waiting(&mut self, topic: &Topic) -> Vec<Arc<Barrier>> {
        self.topics.get_mut(topic).map(|e| std::mem::take(&mut e.waiting)).unwrap_or_default()
    }

    fn refuse(&mut self, topics: &[Topic]) {
        for topic in topics {
            for barrier in self.waiting(topic) {
                barrier.answer(Err(BusAway));
            }
        }
    }

    /// The bus refuses one topic. Who wishes to be in it is told so; who is in it is told of a gap, once.
    fn refused(&mut self, topic: &Topic) {
        let members = |entry: &Entry| entry.counts.iter().sum::<usize>() > entry.waiting.len();
        let has_members = self.topics.get(topic).is_some_and(members);
        self.refuse(std::slice::from_ref(topic));
        if has_members && self.refused.insert(topic.clone()) {
            self.up.set_refused(self.refused.len());
            self.gap(topic, GapReason::Outage, None);
        }
    }

    fn accepted(&mut self, topic: &Topic) {
        if self.refused.remove(topic) {
            self.up.set_refused(self.refused.len());
        }
    }

    fn gap(&self, topic: &Topic, reason: GapReason, mark: Option<Mark>) {
        let counts = self.topics.get(topic).map_or(&[][..], |entry| &entry.counts);
        for (shard, _) in self.shards.iter().zip(counts).filter(|(_, n)| **n > 0) {
            shard.gap(topic.clone(), reason, mark);
        }
    }

    async fn delivered(&mut self, partition: u16, delivery: Delivery) {
        if self.commands.take(&delivery) || !self.topics.contains_key(&delivery.topic) {
            return;
        }
        match self.kept.as_mut().filter(|kept| kept.keeps(&delivery.topic)) {
            None => self.dispatch(delivery, None).await,
            Some(kept) => {
                let mut steps = Vec::new();
                kept.positions.delivered(partition, delivery, &mut steps);
                self.carry_out(steps).await;
            }
        }
    }

    /// The history answered, or did not.
    async fn read(&mut self, ask: &Ask, answer: Result<Answer, BusError>) {
        let Some(kept) = &mut self.kept else { return };
        let mut steps = Vec::new();
        match answer {
            Ok(Answer::Tops(mut tops)) => {
                if let Question::Tops(topics) = &ask.question {
                    sabotage::tops(topics, &mut tops, &kept.positions);
                }
                kept.positions.tops(ask, &tops, &mut steps);
            }
            Ok(Answer::Page(mut page)) => {
                sabotage::page(&mut page);
                kept.positions.page(ask, page, &mut steps);
            }
            Err(_) => {
                kept.positions.failed(ask);
                kept.reads.pause();
            }
        }
        self.carry_out(steps).await;
    }

    async fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Deliver(delivery, marks) => self.dispatch(delivery, Some(marks)).await,
                Step::Gap(_, reason, _) if sabotage::hides(reason) => {}
                Step::Gap(topic, reason, mark) => self.gap(&topic, reason, Some(mark)),
                Step::Ready(topic) => self.ready(&topic),
            }
        }
    }

    async fn dispatch(&mut self, delivery: Delivery, marks: Option<Box<[Mark]>>) {
        let Some(entry) = self.topics.get(&delivery.topic) else { return };
        let key = self.kept.as_ref().map(|kept| &kept.key);
        let slow = self.rules.slow(&delivery.topic);
        let routed = Arc::new(Routed::new(delivery, marks, key, slow));
        for (shard, _) in self.shards.iter().zip(&entry.counts).filter(|(_, n)| **n > 0) {
            shard.deliver(routed.clone());
            // A shard never waits for a client, so this ends; meanwhile the link holds what comes.
            shard.below(self.inbox_bytes).await;
        }
    }
}

enum Happened {
    Wish(Wish),
    Link(u16, LinkEvent),
    Read(Ask, Result<Answer, BusError>),
    Look,
}

/// Wishes that are taken in before the links have a turn.
const MOST_WISHES: usize = 64;
