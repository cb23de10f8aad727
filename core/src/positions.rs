//! Where a node stands in each topic that is kept: what it has dispatched, what it misses, and the cursor.
//!
//! A link loses nothing or dies, says [`Bus`](crate::Bus); holes come from links that died. So on a new link the driver
//! has the tops of all topics read, and again from time to time. Nevertheless only what follows by its offset, or by
//! its clock, is dispatched as it comes: what is missing is read once per topic, after what a reading proved, and
//! dispatched before anything later of that topic. The cursor of a partition never
//! passes a hole: it is the clock of the last message dispatched, but stays below what may be missing.
//!
//! It has no clock and reads nothing: [`poll`](Positions::poll) says what to ask of the
//! [`History`](crate::History), and the driver hands the answer in.

mod track;

use std::collections::{HashMap, VecDeque};

use self::track::{Partition, Track, fall_behind, look, read};
use crate::{Delivery, GapReason, HistoryPage, Mark, Position, Top, Topic, Tops};

/// The machine. Partitions are numbered as by [`Bus::partition`](crate::Bus::partition).
///
/// Order of calls: [`want`](Self::want) a topic before its deliveries count; [`subscribed`](Self::subscribed) each
/// time a link confirmed it; each [`Ask`] ends with [`tops`](Self::tops), [`page`](Self::page) or
/// [`failed`](Self::failed).
#[derive(Debug)]
pub struct Positions {
    partitions: Vec<Partition>,
    tracks: HashMap<Topic, Track>,
    /// Topics whose missing part is to be read.
    to_read: VecDeque<Topic>,
    reading: usize,
    /// Bytes of what waits for the missing part of its topic.
    held: usize,
    serial: u64,
}

/// What the driver is to do, in order.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Hand this to the members of its topic. The marks are the cursor that goes with it.
    Deliver(Delivery, Box<[Mark]>),
    /// Tell the members of a topic that something may be missing. From here on its messages are after this mark.
    Gap(Topic, GapReason, Mark),
    /// The topic's place is known: whoever waits for it may join.
    Ready(Topic),
}

/// What the driver is to ask of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The partition that is asked.
    pub partition: u16,
    /// The question.
    pub question: Question,
    era: u64,
    link: u64,
    serials: Vec<u64>,
    /// The offset up to which something was known to be missing.
    upto: u64,
}

/// A question to the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// [`History::tops`](crate::History::tops) of these topics.
    Tops(Vec<Topic>),
    /// [`History::after`](crate::History::after) of this topic and clock.
    After(Topic, u64),
}

impl Positions {
    /// A node that has dispatched nothing; each partition with its epoch and clock.
    pub fn new(partitions: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let start = |(epoch, checked)| Partition { epoch, checked, ..Partition::default() };
        Self {
            partitions: partitions.into_iter().map(start).collect(),
            tracks: HashMap::new(),
            to_read: VecDeque::new(),
            reading: 0,
            held: 0,
            serial: 0,
        }
    }

    /// The cursor: one mark per partition.
    pub fn marks(&self) -> Box<[Mark]> {
        self.partitions.iter().map(Partition::mark).collect()
    }

    /// A topic has its first member. Once it is subscribed and looked at, [`Step::Ready`] says so.
    pub fn want(&mut self, topic: &Topic, partition: u16) {
        if self.tracks.contains_key(topic) {
            return;
        }
        self.serial += 1;
        let track = Track {
            serial: self.serial,
            partition,
            last: None,
            subscribed: false,
            following: false,
            known: u64::MAX,
            proven: 0,
            missing: None,
            held: VecDeque::new(),
            to_look: false,
            to_read: false,
            early: None,
            gap: None,
        };
        self.tracks.insert(topic.clone(), track);
    }

    /// A topic has a member that came while its link is away. Unless what is missing will be read for others as well, it is
    /// told a gap once the topic's place is known; until then the cursor stays where it is.
    pub fn enter_absent(&mut self, topic: &Topic) {
        let Some(track) = self.tracks.get_mut(topic) else { return };
        if track.last.is_none() && track.gap.is_none() {
            track.gap = Some(GapReason::Outage);
            let known = self.partitions[usize::from(track.partition)].entry();
            fall_behind(track, topic, known, &mut self.partitions);
        }
    }

    /// Whether the topic's place is known, so that a further member need not wait.
    pub fn is_ready(&self, topic: &Topic) -> bool {
        self.tracks.get(topic).is_some_and(|track| track.last.is_some())
    }

    /// A topic has lost its last member.
    pub fn forget(&mut self, topic: &Topic) {
        let Some(mut track) = self.tracks.remove(topic) else { return };
        self.held -= track.let_go();
        let partition = &mut self.partitions[usize::from(track.partition)];
        partition.told(topic);
        if track.following {
            partition.following -= 1;
        } else {
            partition.behind.remove(&(track.known, topic.clone()));
        }
    }

    /// The link has confirmed a topic: what is published from now on comes.
    pub fn subscribed(&mut self, topic: &Topic) {
        if let Some(track) = self.tracks.get_mut(topic) {
            track.subscribed = true;
            look(track, topic, &mut self.partitions);
        }
    }

    /// The link of a partition is gone, with all that it was to deliver.
    pub fn lost(&mut self, partition: u16) {
        let number = usize::from(partition);
        self.partitions[number].link += 1;
        for (topic, track) in self.tracks.iter_mut().filter(|(_, t)| t.partition == partition) {
            // What is looked at before it is subscribed again proves nothing of the new link.
            (track.subscribed, track.to_look) = (false, false);
            if track.following {
                let known = track.known.max(self.partitions[number].delivered);
                fall_behind(track, topic, known, &mut self.partitions);
            }
        }
        let partition = &mut self.partitions[number];
        partition.checked = partition.checked.max(partition.delivered);
        (partition.delivered, partition.round) = (0, true);
    }

    /// Time for a look at the tops of all topics.
    pub fn look_at_all(&mut self) {
        for (topic, track) in &mut self.tracks {
            look(track, topic, &mut self.partitions);
        }
        for partition in &mut self.partitions {
            partition.round = true;
        }
    }

    /// The link of a partition delivered something.
    pub fn delivered(&mut self, partition: u16, delivery: Delivery, steps: &mut Vec<Step>) {
        let Some(position) = delivery.position else {
            return steps.push(Step::Deliver(delivery, Box::default()));
        };
        let known = &self.partitions[usize::from(partition)];
        if known.past.contains(&position.epoch) {
            return;
        }
        if known.epoch != position.epoch {
            self.epoch_changed(partition, position.epoch);
        }
        self.partitions[usize::from(partition)].brought(position.clock);
        self.arrived(delivery, steps);
    }

    /// A delivery's turn has come.
    fn arrived(&mut self, delivery: Delivery, steps: &mut Vec<Step>) {
        let (Some(track), Some(Position { offset, clock, .. })) =
            (self.tracks.get_mut(&delivery.topic), delivery.position)
        else {
            return;
        };
        let run = self.partitions[usize::from(track.partition)].run;
        match (track.last, track.missing) {
            (None, _) => {
                track.early.get_or_insert((Top { offset, clock }, offset)).1 = offset;
            }
            (Some(last), _) if offset <= last.offset => {}
            (Some(_), Some(_)) if self.held + delivery.message.len() > MAX_HELD => {
                self.held -= track.let_go();
                track.missing = Some(offset);
            }
            (Some(_), Some(_)) => self.hold(delivery),
            // Of a topic that the store did not know, the first message may have any offset. When the link brought all
            // of the partition since the topic was read, nothing of it can have been between.
            (Some(last), None)
                if offset == last.offset + 1
                    || (last.offset == 0 && track.following && run <= track.proven + 1) =>
            {
                self.dispatch(delivery, steps);
            }
            (Some(_), None) => {
                self.miss(&delivery.topic, offset - 1);
                self.hold(delivery);
            }
        }
    }

    /// What to ask next; `None` when nothing is to be asked or enough is under way.
    pub fn poll(&mut self) -> Option<Ask> {
        let number = self.partitions.iter().position(|p| !p.looking && !p.to_look.is_empty());
        if let Some(number) = number {
            let partition = &mut self.partitions[number];
            let (mut topics, mut serials) = (Vec::new(), Vec::new());
            while let Some(topic) = partition.to_look.pop_front() {
                let Some(track) = self.tracks.get(&topic).filter(|t| t.to_look) else { continue };
                serials.push(track.serial);
                topics.push(topic);
                if topics.len() == MAX_TOPS {
                    break;
                }
            }
            if !topics.is_empty() {
                partition.looking = true;
                let (era, link, partition) = (partition.era, partition.link, number as u16);
                let question = Question::Tops(topics);
                return Some(Ask { partition, question, era, link, serials, upto: 0 });
            }
            self.end_round(number);
            return self.poll();
        }
        while self.reading < MAX_READS {
            let topic = self.to_read.pop_front()?;
            let Some(track) = self.tracks.get(&topic).filter(|t| t.to_read) else { continue };
            let (Some(last), Some(upto)) = (track.last, track.missing) else { continue };
            let serials = vec![track.serial];
            let partition = &self.partitions[usize::from(track.partition)];
            // Read before it is subscribed it is whole only up to then.
            let link = if track.subscribed { partition.link } else { u64::MAX };
            let (era, partition) = (partition.era, track.partition);
            self.reading += 1;
            // Of what was looked at and found whole the store may know nothing any more.
            let question = Question::After(topic, last.clock.max(track.proven));
            return Some(Ask { partition, question, era, link, serials, upto });
        }
        None
    }

    /// The answer to [`Question::Tops`].
    pub fn tops(&mut self, ask: &Ask, answer: &Tops, steps: &mut Vec<Step>) {
        let Question::Tops(topics) = &ask.question else { return };
        let number = usize::from(ask.partition);
        self.partitions[number].looking = false;
        if self.is_of_now(ask, answer.epoch) {
            for ((topic, serial), top) in topics.iter().zip(&ask.serials).zip(&answer.tops) {
                self.top(topic, *serial, *top, ask, answer.clock, steps);
            }
        }
        if self.partitions[number].to_look.is_empty() {
            self.end_round(number);
        }
    }

    /// The answer to [`Question::After`].
    pub fn page(&mut self, ask: &Ask, page: HistoryPage, steps: &mut Vec<Step>) {
        let Question::After(topic, _) = &ask.question else { return };
        self.reading -= 1;
        let is_of_now = self.is_of_now(ask, page.epoch);
        let Some(track) = self.tracks.get_mut(topic).filter(|t| ask.serials == [t.serial]) else {
            return;
        };
        if !is_of_now {
            return;
        }
        track.to_read = false;
        let after = |last: Option<Top>| Mark::new(page.epoch, last.map_or(0, |last| last.clock));
        if !page.whole {
            steps.push(Step::Gap(topic.clone(), GapReason::Trimmed, after(track.last)));
        }
        let more = page.more && !page.deliveries.is_empty();
        for delivery in page.deliveries {
            let offset = delivery.position.map_or(0, |p| p.offset);
            if self.tracks[topic].last.is_some_and(|last| offset > last.offset) {
                self.dispatch(delivery, steps);
            }
        }
        let Some(track) = self.tracks.get_mut(topic) else { return };
        if more {
            return read(track, topic, &mut self.to_read);
        }
        if let Some(last) = track.last.filter(|last| last.offset < ask.upto) {
            // The bus has not kept what it delivered. Whole or not, this is a hole.
            track.last = Some(Top { offset: ask.upto, clock: page.clock.max(last.clock) });
            if page.whole {
                steps.push(Step::Gap(topic.clone(), GapReason::Outage, after(track.last)));
            }
        }
        if track.missing > track.last.map(|last| last.offset) {
            return read(track, topic, &mut self.to_read);
        }
        track.missing = None;
        // While it is behind: the cursor of the first of these must not count the last.
        for delivery in std::mem::take(&mut track.held) {
            self.held -= delivery.message.len();
            self.arrived(delivery, steps);
        }
        if self.tracks.get(topic).is_some_and(|track| track.missing.is_none()) {
            self.whole(topic, ask, page.clock);
        }
    }

    /// A question could not be answered; [`poll`](Self::poll) asks it again.
    pub fn failed(&mut self, ask: &Ask) {
        match &ask.question {
            Question::Tops(topics) => {
                let partition = &mut self.partitions[usize::from(ask.partition)];
                partition.looking = false;
                partition.to_look.extend(topics.iter().cloned());
            }
            Question::After(topic, _) => {
                self.reading -= 1;
                self.to_read.push_back(topic.clone());
            }
        }
    }

    /// Whether an answer is of the partition's present epoch; takes a new epoch in.
    fn is_of_now(&mut self, ask: &Ask, epoch: u64) -> bool {
        let partition = &self.partitions[usize::from(ask.partition)];
        // When the epoch changed after the question, all topics are looked at again anyway.
        let same_era = partition.era == ask.era;
        if same_era && partition.epoch != epoch {
            self.epoch_changed(ask.partition, epoch);
            return false;
        }
        same_era
    }

    /// One topic's top, read when the partition's clock was `clock`.
    fn top(
        &mut self,
        topic: &Topic,
        serial: u64,
        top: Top,
        ask: &Ask,
        clock: u64,
        steps: &mut Vec<Step>,
    ) {
        let Some(track) = self.tracks.get_mut(topic).filter(|t| t.serial == serial) else { return };
        track.to_look = false;
        let Partition { link, epoch, .. } = self.partitions[usize::from(track.partition)];
        match track.last {
            _ if !track.subscribed => {}
            None if ask.link != link => look(track, topic, &mut self.partitions),
            None => {
                let early = track.early.take();
                let before = |(first, _): (Top, u64)| Top {
                    offset: first.offset.saturating_sub(1),
                    clock: first.clock.saturating_sub(1),
                };
                let last = early.map_or(top, before);
                track.last = Some(last);
                if let Some(reason) = track.gap.take() {
                    self.partitions[usize::from(track.partition)].told(topic);
                    let mark = Mark::new(epoch, last.clock);
                    steps.push(Step::Gap(topic.clone(), reason, mark));
                }
                steps.push(Step::Ready(topic.clone()));
                match early {
                    Some((_, offset)) => self.miss(topic, offset.max(top.offset)),
                    None => self.whole(topic, ask, clock),
                }
            }
            Some(_) if track.missing.is_some() => {}
            Some(last) if top.offset > last.offset => self.miss(topic, top.offset),
            Some(_) => self.whole(topic, ask, clock),
        }
    }

    /// Everything of the topic up to `clock` has been dispatched. It follows when that was read on the present link.
    fn whole(&mut self, topic: &Topic, ask: &Ask, clock: u64) {
        let Some(track) = self.tracks.get_mut(topic) else { return };
        let partition = &mut self.partitions[usize::from(track.partition)];
        if !track.subscribed {
            return;
        }
        if ask.link != partition.link {
            return look(track, topic, &mut self.partitions);
        }
        if !track.following {
            partition.behind.remove(&(track.known, topic.clone()));
            let whole_to = clock.max(partition.delivered);
            let alone = partition.following == 0;
            partition.checked = if alone { whole_to } else { partition.checked.min(whole_to) };
            partition.following += 1;
            track.following = true;
        }
        (track.known, track.proven) = (clock, clock);
    }

    /// Something up to `offset` is missing.
    fn miss(&mut self, topic: &Topic, offset: u64) {
        let Some(track) = self.tracks.get_mut(topic) else { return };
        let last = track.last.map_or(0, |last| last.clock);
        // A topic that was never looked at knows nothing; any other never falls behind what a reading proved.
        let known = if track.known == u64::MAX { last } else { track.known.max(last) };
        fall_behind(track, topic, known, &mut self.partitions);
        track.missing = Some(offset);
        read(track, topic, &mut self.to_read);
    }

    fn hold(&mut self, delivery: Delivery) {
        if let Some(track) = self.tracks.get_mut(&delivery.topic) {
            self.held += delivery.message.len();
            track.held.push_back(delivery);
        }
    }

    fn dispatch(&mut self, delivery: Delivery, steps: &mut Vec<Step>) {
        let (Some(track), Some(position)) =
            (self.tracks.get_mut(&delivery.topic), delivery.position)
        else {
            return;
        };
        track.last = Some(Top { offset: position.offset, clock: position.clock });
        if !track.following {
            let known = track.known.max(position.clock);
            fall_behind(track, &delivery.topic, known, &mut self.partitions);
        }
        let marks = self.marks();
        steps.push(Step::Deliver(delivery, marks));
    }

    fn end_round(&mut self, number: usize) {
        let partition = &mut self.partitions[number];
        if std::mem::take(&mut partition.round) && partition.following > 0 {
            let following = self.tracks.values().filter(|t| usize::from(t.partition) == number);
            let known = following.filter(|t| t.following).map(|t| t.known).min();
            partition.checked = known.unwrap_or(0);
        }
    }

    /// The store may have lost something: every topic starts anew, with a gap.
    fn epoch_changed(&mut self, number: u16, epoch: u64) {
        let partition = &mut self.partitions[usize::from(number)];
        partition.before = Some(partition.mark());
        // One that was taken for ended, because something older came late, may turn out to be the present one.
        partition.past.retain(|past| *past != epoch);
        partition.past.push_back(partition.epoch);
        if partition.past.len() > MAX_PAST {
            partition.past.pop_front();
        }
        partition.epoch = epoch;
        partition.era += 1;
        (partition.delivered, partition.checked, partition.following) = (0, 0, 0);
        partition.behind.clear();
        partition.to_look.clear();
        for (topic, track) in self.tracks.iter_mut().filter(|(_, t)| t.partition == number) {
            // A gap that is owed already is owed still, and no clock of the epoch that ended is a place in the next.
            if track.last.take().is_some() || track.gap.is_some() {
                track.gap.get_or_insert(GapReason::Epoch);
                self.partitions[usize::from(number)].untold.insert(topic.clone());
                (track.following, track.known, track.proven) = (false, 0, 0);
                self.partitions[usize::from(number)].behind.insert((0, topic.clone()));
            }
            (track.missing, track.early) = (None, None);
            self.held -= track.let_go();
            (track.to_look, track.to_read) = (false, false);
            look(track, topic, &mut self.partitions);
        }
    }
}

/// Most topics of one look.
const MAX_TOPS: usize = 512;
/// Most repairs under way at once, so that many topics after an outage do not swamp the store.
const MAX_READS: usize = 8;
/// Bytes of the deliveries that wait for the missing parts of their topics; those beyond are read from the history.
const MAX_HELD: usize = 8 * 1024 * 1024;
/// Ended epochs that are remembered.
const MAX_PAST: usize = 8;
