//! The bus of the model: what was published, what is kept of it, and what links are to deliver.

use tidings_core::{
    Delivery, HistoryPage, Mark, Message, Position, Publication, RoomId, TenantId, Top, Topic, Tops,
};

use crate::node::Node;

pub(crate) const TOPICS: usize = 5;

/// A message: where it stands, and a number that counts the messages of the topic for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) number: u64,
    pub(crate) kept: bool,
}

pub(crate) struct Log {
    pub(crate) partitions: u16,
    epoch: u64,
    /// Whether a join may go on before it is known what was missed.
    pub(crate) may_be_late: bool,
    clocks: Vec<u64>,
    pub(crate) topics: Vec<Vec<Entry>>,
}

pub(crate) fn topic(number: usize) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(number.to_string()).expect("a digit is a name"))
}

pub(crate) fn number(topic: &Topic) -> usize {
    topic.as_room().and_then(|room| room.as_str().parse().ok()).expect("a topic of the model")
}

impl Log {
    pub(crate) fn new(partitions: u16) -> Self {
        let clocks = vec![0; usize::from(partitions)];
        Self { partitions, epoch: 1, may_be_late: false, clocks, topics: vec![Vec::new(); TOPICS] }
    }

    pub(crate) fn partition(&self, topic: &Topic) -> u16 {
        number(topic) as u16 % self.partitions
    }

    pub(crate) fn start(&self) -> impl Iterator<Item = (u64, u64)> {
        let clocks = self.clocks.iter().enumerate();
        clocks.map(|(partition, &clock)| (self.epoch(partition), clock))
    }

    /// Each partition has epochs of its own.
    fn epoch(&self, partition: usize) -> u64 {
        self.epoch * 16 + (partition % usize::from(self.partitions)) as u64
    }

    pub(crate) fn marks(&self) -> Box<[Mark]> {
        self.start().map(|(epoch, clock)| Mark::new(epoch, clock)).collect()
    }

    pub(crate) fn publish(&mut self, at: usize, nodes: &mut [Node]) {
        let epoch = self.epoch(at);
        let clock = &mut self.clocks[at % usize::from(self.partitions)];
        *clock += 1;
        let entries = &self.topics[at];
        let before = entries.last().filter(|e| e.position.epoch == epoch);
        let offset = before.map_or(*clock, |e| e.position.offset + 1);
        let position = Position { epoch, offset, clock: *clock };
        let number = entries.len() as u64 + 1;
        self.topics[at].push(Entry { position, number, kept: true });
        for node in nodes {
            node.hear(&self.delivery(at, self.topics[at].len() - 1));
        }
    }

    /// How many messages of a topic a cursor has passed; `None` when it is of another epoch.
    pub(crate) fn published_to(&self, topic: &Topic, mark: Mark) -> Option<u64> {
        let at = number(topic);
        let epoch = self.epoch(at);
        let later = |e: &&Entry| e.position.epoch == epoch && e.position.clock > mark.clock;
        let all = self.topics[at].len() as u64;
        mark.is_of(epoch).then(|| all - self.topics[at].iter().filter(later).count() as u64)
    }

    fn delivery(&self, at: usize, index: usize) -> Delivery {
        let entry = self.topics[at][index];
        let message = Message::of("m", &entry.number).expect("a number is JSON");
        let mut delivery = Delivery::of(&Publication::new(topic(at), message));
        delivery.position = Some(entry.position);
        delivery
    }

    /// The oldest half of what a topic keeps goes.
    pub(crate) fn trim(&mut self, at: usize) {
        let kept = self.topics[at].iter().filter(|e| e.kept).count();
        self.topics[at]
            .iter_mut()
            .filter(|e| e.kept)
            .take(kept.div_ceil(2))
            .for_each(|e| e.kept = false);
    }

    /// Everything that was kept is gone.
    pub(crate) fn flush(&mut self) {
        self.epoch += 1;
        self.clocks.iter_mut().for_each(|clock| *clock = 0);
        self.topics.iter_mut().flatten().for_each(|entry| entry.kept = false);
    }

    /// A new epoch begins with all that was kept.
    pub(crate) fn renew(&mut self) {
        let old: Vec<_> = (0..TOPICS).map(|at| self.epoch(at)).collect();
        self.epoch += 1;
        for (at, old) in old.into_iter().enumerate() {
            let epoch = self.epoch(at);
            let entries = self.topics[at].iter_mut().map(|entry| &mut entry.position);
            entries.filter(|p| p.epoch == old).for_each(|p| p.epoch = epoch);
        }
    }

    pub(crate) fn tops(&self, partition: u16, topics: &[Topic]) -> Tops {
        let epoch = self.epoch(usize::from(partition));
        let top = |topic: &Topic| {
            let last = self.topics[number(topic)].last();
            let last = last.filter(|e| e.position.epoch == epoch);
            last.map_or(Top::default(), |e| Top {
                offset: e.position.offset,
                clock: e.position.clock,
            })
        };
        let clock = self.clocks[usize::from(partition)];
        Tops { epoch, clock, tops: topics.iter().map(top).collect() }
    }

    pub(crate) fn after(&self, topic: &Topic, clock: u64, limit: usize) -> HistoryPage {
        let at = number(topic);
        let epoch = self.epoch(at);
        let entries = || {
            let all = self.topics[at].iter().enumerate();
            all.filter(|(_, e)| e.position.epoch == epoch && e.position.clock > clock)
        };
        let kept: Vec<_> = entries().filter(|(_, e)| e.kept).map(|(n, _)| n).collect();
        HistoryPage {
            epoch,
            clock: self.clocks[usize::from(self.partition(topic))],
            whole: entries().all(|(_, e)| e.kept),
            more: kept.len() > limit,
            deliveries: kept.into_iter().take(limit).map(|n| self.delivery(at, n)).collect(),
        }
    }
}
