//! What Redis keeps of topics, read.

use std::sync::PoisonError;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;
use tidings_core::{BusError, History, HistoryPage, Position, Top, Topic, Tops};

use crate::RedisBus;
use crate::fault::Failure;
use crate::message::decode_at;
use crate::partition::{Partition, Question};
use crate::script::{AFTER, SECRET, TOPS};
use crate::send::{number, unexpected};
use crate::server::Session;
use crate::spawn::random;
use crate::spelling::spell;
use crate::stats::{Counters, bump};

#[async_trait]
impl History for RedisBus {
    async fn cursor_key(&self) -> Result<[u8; 16], BusError> {
        let partition = &self.all_partitions()[0];
        let known = || *partition.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = known() {
            return Ok(secret);
        }
        let fresh = format!("{:016x}{:016x}", random(), random());
        let asked = partition.run(&SECRET, |_| Question {
            keys: vec![partition.secret_key()],
            arguments: vec![fresh.clone().into()],
        });
        let Value::BulkString(text) = asked.await? else { return Err(unexpected().into()) };
        let text = String::from_utf8_lossy(&text);
        let secret = u128::from_str_radix(&text, 16).map_err(|_| unexpected())?.to_be_bytes();
        *partition.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret);
        Ok(secret)
    }

    async fn tops(&self, partition: u16, topics: &[Topic]) -> Result<Tops, BusError> {
        let partition = self.numbered(partition)?;
        let records: Vec<_> = topics.iter().map(|t| partition.record_key(&spell(t))).collect();
        let asked = partition.run(&TOPS, |session| {
            let mut question = about(partition, session);
            question.keys.extend(records.iter().cloned());
            question
        });
        let Value::Array(values) = asked.await? else { return Err(unexpected().into()) };
        let numbers = values.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        let [epoch, clock, tops @ ..] = numbers.as_slice() else { return Err(unexpected().into()) };
        partition.saw(*epoch, *clock, true);
        let tops = tops.chunks_exact(2).map(|top| Top { offset: top[0], clock: top[1] });
        Ok(Tops { epoch: *epoch, clock: *clock, tops: tops.collect() })
    }

    async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> Result<HistoryPage, BusError> {
        let partition = self.partition_of(topic);
        let mut page = part(partition, self.counters(), topic, clock, limit).await?;
        // What is too long for one answer is read in several; the page is that of the last reading.
        while let (Part { page: before, cut: true }, Some(last)) = (&page, page.last_clock()) {
            let left =
                limit.saturating_sub(u32::try_from(before.deliveries.len()).unwrap_or(u32::MAX));
            let next = part(partition, self.counters(), topic, last, left).await?;
            page = page.followed_by(next)?;
        }
        Ok(page.page)
    }
}

/// A page, or the part of one that fitted into an answer.
struct Part {
    page: HistoryPage,
    cut: bool,
}

impl Part {
    fn last_clock(&self) -> Option<u64> {
        self.page.deliveries.last()?.position.map(|position| position.clock)
    }

    fn followed_by(mut self, next: Self) -> Result<Self, Failure> {
        if next.page.epoch != self.page.epoch {
            return Err(Failure::away("the store was lost while it was read"));
        }
        if !next.page.whole {
            // What is missing is after these, and a page is without a hole from its first message on.
            self.page.deliveries.clear();
        }
        self.page.deliveries.extend(next.page.deliveries);
        (self.page.clock, self.page.more) = (next.page.clock, next.page.more);
        self.page.whole &= next.page.whole;
        self.cut = next.cut;
        Ok(self)
    }
}

async fn part(
    partition: &Partition,
    counters: &Counters,
    topic: &Topic,
    clock: u64,
    limit: u32,
) -> Result<Part, Failure> {
    let spelled = spell(topic);
    let asked = partition.run(&AFTER, |session| {
        let mut question = about(partition, session);
        question.keys.extend([partition.record_key(&spelled), partition.stream_key(&spelled)]);
        let lifetime = partition.record_lifetime_ms.clone();
        let numbers = [lifetime, clock.to_string(), limit.to_string(), PART_BYTES.to_string()];
        question.arguments.extend(numbers.map(String::into_bytes));
        question
    });
    let Value::Array(values) = asked.await? else { return Err(unexpected()) };
    let mut values = values.into_iter();
    let mut next = || number(&values.next().unwrap_or_default());
    let (epoch, clock, whole, ended) = (next()?, next()?, next()?, next()?);
    partition.saw(epoch, clock, true);
    let mut deliveries = Vec::new();
    while let (Some(place), Some(Value::BulkString(bytes))) = (values.next(), values.next()) {
        let position = position(epoch, &place)?;
        match decode_at(topic.clone(), Some(position), &Bytes::from(bytes)) {
            Some(delivery) => deliveries.push(delivery),
            None => bump(&counters.malformed),
        }
    }
    let page = HistoryPage { epoch, clock, deliveries, whole: whole == 1, more: ended != 0 };
    Ok(Part { page, cut: ended == 2 })
}

/// What every question about history begins with.
fn about(partition: &Partition, session: &Session) -> Question {
    Question {
        keys: vec![partition.state_key(), partition.samples_key()],
        arguments: partition.standing(session).into(),
    }
}

/// The place of a message in its stream: `CLOCK-OFFSET`.
fn position(epoch: u64, place: &Value) -> Result<Position, Failure> {
    let Value::BulkString(text) = place else { return Err(unexpected()) };
    let text = std::str::from_utf8(text).map_err(|_| unexpected())?;
    let (clock, offset) = text.split_once('-').ok_or_else(unexpected)?;
    let read = |text: &str| text.parse().map_err(|_| unexpected());
    Ok(Position { epoch, offset: read(offset)?, clock: read(clock)? })
}

/// Bytes after which an answer ends: reading more at once would make others wait for Redis.
const PART_BYTES: usize = 1 << 20;
