//! A node's inbound link of one partition: a connection that only listens, watched by probes. When anything is
//! wrong with it, it ends; it is never repaired.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use futures_core::Stream;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tidings_core::{BusError, BusInterest, BusLink, Delivery, Topic};

use crate::connection::{Opened, Opener};
use crate::fault::{Failure, Fault};
use crate::message::decode;
use crate::partition::Partition;
use crate::probe::Probe;
use crate::queue::{Heard, Queue};
use crate::sabotage::{Protection, hides};
use crate::spawn::{Task, random};
use crate::stats::{Counters, bump};

/// Opens a link; it is up when a first probe has come back.
pub(crate) async fn connect(
    partition: Arc<Partition>,
    opener: &Opener,
    counters: &Arc<Counters>,
) -> Result<BusLink, Failure> {
    let server = partition.server().await?;
    let session = server.reach().await?;
    let channel = partition.key("probe:", &format!("{:016x}", random()));
    let own = [channel.clone(), partition.moves_channel()];
    let queue = Queue::new(counters.clone(), opener.config.queue_bytes, own.clone());
    let queue = Arc::new(queue);
    let guard = LinkGuard(queue.clone());

    let heard = queue.clone();
    let without = opener.config.without();
    let on_push = Arc::new(move |push| {
        if !hides(without, &push) {
            heard.push(push);
        }
    });
    let Opened { redis, driver } = opener.open_primary(&session.address, Some(on_push)).await?;
    let line = Line { redis, queue: queue.clone(), partition: partition.clone() };
    line.command(partition.subscribe_commands().0, &own).await?;
    let probe = Probe::new(partition.clone(), queue.clone(), counters.clone(), channel);
    probe.once(opener.config.deadline).await?;
    queue.is_up();
    let interval = opener.config.probe_interval;
    let left = queue.clone();
    let watch = async move {
        tokio::select! {
            () = probe.keep(interval) => {}
            () = server.left(&session.address), if without != Some(Protection::Left) => {
                left.end(BusError::Unavailable("another Redis has become the primary".to_owned()));
            }
        }
    };

    let deliveries = Deliveries {
        queue,
        partition,
        counters: counters.clone(),
        _guard: guard,
        _watch: Task::spawn(watch),
        driver,
    };
    Ok(BusLink { interest: Box::new(line), deliveries: Box::pin(deliveries) })
}

/// Ends the link when its stream is dropped.
#[derive(Debug)]
struct LinkGuard(Arc<Queue>);

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.0.end(BusError::Unavailable("the link was dropped".to_owned()));
    }
}

/// The listening connection as its interest is stated on it.
struct Line {
    redis: MultiplexedConnection,
    queue: Arc<Queue>,
    partition: Arc<Partition>,
}

impl Line {
    /// One command for each channel, each confirmed by Redis.
    async fn command(&self, name: &str, channels: &[String]) -> Result<(), Failure> {
        if self.queue.has_ended() {
            return Err(Failure::away("the link has ended"));
        }
        if channels.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(channels.len());
        for channel in channels {
            pipeline.cmd(name).arg(channel);
        }
        let answers = self.redis.clone().send_packed_commands(&pipeline, 0, channels.len()).await;
        let failure = match answers {
            Ok(answers) => answers.into_iter().find_map(|answer| answer.extract_error().err()),
            Err(error) => Some(error),
        };
        match failure.map(Failure::from) {
            None => Ok(()),
            Some(failure) => {
                if failure.fault == Fault::Moved {
                    self.partition.moved();
                }
                if failure.is_fatal() || failure.fault == Fault::Moved {
                    self.queue.end(BusError::Unavailable(failure.text().to_owned()));
                }
                Err(failure)
            }
        }
    }

    fn channel(&self, topic: &Topic) -> String {
        self.partition.channel(topic)
    }
}

#[async_trait]
impl BusInterest for Line {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        let name = self.partition.subscribe_commands().0;
        for topics in topics.chunks(BATCH) {
            let channels =
                topics.iter().map(|topic| (self.channel(topic), topic.clone())).collect();
            let asked = self.queue.joining(channels);
            match self.command(name, &asked).await {
                Ok(()) => self.queue.joined(&asked),
                Err(failure) => {
                    // Those that Redis took are given up by the next unsubscribe, or end with the link.
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        let name = self.partition.subscribe_commands().1;
        for topics in topics.chunks(BATCH) {
            let channels = topics.iter().map(|topic| self.channel(topic)).collect();
            let given_up = self.queue.leaving(channels);
            self.command(name, &given_up).await?;
            self.queue.left(&given_up);
        }
        Ok(())
    }
}

/// What the link delivers.
struct Deliveries {
    queue: Arc<Queue>,
    partition: Arc<Partition>,
    counters: Arc<Counters>,
    _guard: LinkGuard,
    _watch: Task,
    driver: Task,
}

impl Stream for Deliveries {
    type Item = Result<Delivery, BusError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(heard) = ready!(self.queue.poll(cx)) else {
                // A link that has ended has no connection either.
                self.driver.abort();
                return Poll::Ready(None);
            };
            let Heard { topic, bytes } = match heard {
                Ok(heard) => heard,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            match decode(topic, bytes) {
                Some(delivery) => {
                    if let Some(position) = delivery.position {
                        self.partition.saw(position.epoch, position.clock, false);
                    }
                    return Poll::Ready(Some(Ok(delivery)));
                }
                None => bump(&self.counters.malformed),
            }
        }
    }
}

/// Topics of one round trip.
const BATCH: usize = 512;
