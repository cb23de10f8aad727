//! History at random against a model of lists.

use std::collections::HashMap;
use std::sync::Arc;

use super::bus_laws::BusFixture;
use super::bus_node::{Node, publish, say};
use super::history_node::{Keeper, check, kept, position};
use super::script::{Dice, HOSTILE, hostile_topics, user};
use crate::{Bus, Delivery, Except, Publication, Receipt, Top, Topic};

/// Nodes that publish with and without retention, repeat, and read at random see what lists say they see.
pub async fn a_random_history_agrees_with_the_model<F: BusFixture>() {
    for seed in 1..=SCRIPTS {
        let Some(keeper) = Keeper::<F>::start().await else { return };
        println!("script {seed}");
        Script::new(&keeper, Dice(seed)).run(&keeper).await;
    }
}

struct Script {
    dice: Dice,
    topics: Vec<Shelf>,
    receipts: HashMap<(Topic, String), Receipt>,
    clocks: HashMap<u16, u64>,
    step: usize,
}

/// A topic as the model knows it.
struct Shelf {
    topic: Topic,
    partition: u16,
    count: u32,
    all: Vec<Delivery>,
}

impl Shelf {
    fn top(&self) -> Top {
        let last = self.all.last().map(position);
        last.map_or(Top::default(), |last| Top { offset: last.offset, clock: last.clock })
    }

    fn first_kept(&self) -> usize {
        self.all.len().saturating_sub(self.count as usize)
    }
}

impl Script {
    fn new<F: BusFixture>(keeper: &Keeper<F>, mut dice: Dice) -> Self {
        let all = hostile_topics();
        let mut topics = Vec::new();
        for n in 0..TOPICS {
            let topic = all[n * 11 + dice.below(11)].clone();
            let partition = keeper.bus.partition(&topic);
            let count = [1, 2, 5, 50][dice.below(4)];
            topics.push(Shelf { topic, partition, count, all: Vec::new() });
        }
        Self { dice, topics, receipts: HashMap::new(), clocks: HashMap::new(), step: 0 }
    }

    async fn run<F: BusFixture>(mut self, keeper: &Keeper<F>) {
        let mut node = Node::join(keeper.fixture.bus()).await;
        let topics: Vec<_> = self.topics.iter().map(|shelf| shelf.topic.clone()).collect();
        node.subscribe(&topics).await;
        for step in 0..STEPS {
            self.step = step;
            match self.dice.below(5) {
                0 => self.reads_a_page(keeper).await,
                1 => self.reads_tops(keeper).await,
                _ => self.publishes(&keeper.fixture.bus(), &mut node).await,
            }
        }
        node.hears_nothing_more().await;
        for shelf in &self.topics {
            keeper.keeps(&shelf.topic, &shelf.all, shelf.first_kept()).await;
        }
    }

    async fn publishes(&mut self, bus: &Arc<dyn Bus>, node: &mut Node) {
        let mut batch = Vec::new();
        for n in 0..self.dice.below(5) {
            let which = self.dice.below(TOPICS);
            batch.push((which, self.publication(which, n)));
        }
        let publications = batch.iter().map(|(_, publication)| publication.clone()).collect();
        let receipts = publish(bus, publications).await;
        let mut delivered = Vec::new();
        for ((which, publication), receipt) in batch.into_iter().zip(receipts) {
            if let Some(key) = &publication.idempotency_key {
                let place = (publication.topic.clone(), key.clone());
                if let Some(first) = self.receipts.insert(place.clone(), receipt) {
                    assert_eq!(receipt, first, "a repeat gets the first receipt");
                    continue;
                }
            }
            delivered.push(self.takes(which, &publication, receipt));
        }
        for delivery in in_turn_by_partition(delivered, bus) {
            assert_eq!(node.next(&delivery.topic).await, delivery);
        }
    }

    fn publication(&mut self, which: usize, n: usize) -> Publication {
        let (topic, count) = (&self.topics[which].topic, self.topics[which].count);
        let text = format!("step {}, {n}", self.step);
        let retained = self.dice.below(4) > 0;
        let mut publication = if retained { kept(topic, &text, count) } else { say(topic, &text) };
        if self.dice.below(3) == 0 {
            publication = publication.except(Except::User(user(HOSTILE[self.dice.below(14)])));
        }
        if self.dice.below(3) == 0 {
            publication = publication.idempotency_key(HOSTILE[self.dice.below(14)]);
        }
        publication
    }

    /// Takes an accepted publication into the model and answers what is to be delivered of it.
    fn takes(&mut self, which: usize, publication: &Publication, receipt: Receipt) -> Delivery {
        let delivery = Delivery { position: receipt.position, ..Delivery::of(publication) };
        assert_eq!(receipt.position.is_some(), publication.retention.is_some());
        if let Some(place) = receipt.position {
            let shelf = &mut self.topics[which];
            let clock = self.clocks.entry(shelf.partition).or_default();
            assert!(place.clock > *clock, "clocks rise");
            *clock = place.clock;
            let top = shelf.top().offset;
            assert!(place.offset > 0 && (top == 0 || place.offset == top + 1), "{place:?}");
            shelf.all.push(delivery.clone());
        }
        delivery
    }

    async fn reads_a_page<F: BusFixture>(&mut self, keeper: &Keeper<F>) {
        let shelf = &self.topics[self.dice.below(TOPICS)];
        let top = self.clocks.get(&shelf.partition).copied().unwrap_or(0);
        let clock = match self.dice.below(4) {
            0 => 0,
            1 => top,
            _ => self.dice.below(top as usize + 1) as u64,
        };
        let limit = [1, 2, 5, 1000][self.dice.below(4)];
        let page = keeper.after(&shelf.topic, clock, limit).await;
        check(&page, &shelf.all, shelf.first_kept(), clock, limit);
        assert_eq!(page.clock, top);
    }

    async fn reads_tops<F: BusFixture>(&mut self, keeper: &Keeper<F>) {
        let first = self.topics[self.dice.below(TOPICS)].partition;
        let beside: Vec<_> = self.topics.iter().filter(|s| s.partition == first).collect();
        let asked: Vec<_> =
            (0..=self.dice.below(TOPICS)).map(|_| beside[self.dice.below(beside.len())]).collect();
        let topics: Vec<_> = asked.iter().map(|shelf| shelf.topic.clone()).collect();
        let reading = keeper.tops(&topics).await;
        let tops: Vec<_> = asked.iter().map(|shelf| shelf.top()).collect();
        assert_eq!(reading.tops, tops);
        assert_eq!(reading.clock, self.clocks.get(&first).copied().unwrap_or(0));
    }
}

/// Order holds within a partition only.
fn in_turn_by_partition(mut deliveries: Vec<Delivery>, bus: &Arc<dyn Bus>) -> Vec<Delivery> {
    deliveries.sort_by_key(|delivery| bus.partition(&delivery.topic));
    deliveries
}

const TOPICS: usize = 6;
const SCRIPTS: u64 = 12;
const STEPS: usize = 80;
