//! The end-to-end probe of a link: a command that a replica would refuse publishes to the link's own channel, and
//! the link must hear it. An answered `PING` proves nothing: a node may sit on a server that answers and delivers nothing.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::BusError;
use tokio::time::{MissedTickBehavior, timeout};

use crate::fault::Failure;
use crate::partition::{Call, Partition, Question};
use crate::queue::Queue;
use crate::script::PROBE;
use crate::stats::{Counters, bump};

/// The probe of one link.
#[derive(Debug)]
pub(crate) struct Probe {
    partition: Arc<Partition>,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    channel: String,
}

impl Probe {
    pub(crate) fn new(
        partition: Arc<Partition>,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        channel: String,
    ) -> Self {
        Self { partition, queue, counters, channel }
    }

    /// Sends one probe and waits for it.
    pub(crate) async fn once(&self, deadline: Duration) -> Result<(), Failure> {
        self.round(1, deadline).await
    }

    /// Probes until the link has ended, or ends it. Without an interval it never does.
    pub(crate) async fn keep(self, interval: Duration) {
        if interval.is_zero() {
            return std::future::pending().await;
        }
        let mut misses = 0;
        let mut ticks = tokio::time::interval(interval);
        // A round that took its whole time is followed by the next at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        for number in 2.. {
            ticks.tick().await;
            if self.queue.has_ended() {
                return;
            }
            // Not before a publisher would give the connection for commands up.
            match self.round(number, interval.max(self.partition.deadline)).await {
                Ok(()) => misses = 0,
                Err(failure) => {
                    misses += 1;
                    bump(&self.counters.probes_missed);
                    if misses >= MISSES {
                        let text = format!("{misses} probes did not come back: {}", failure.text());
                        self.partition.moved();
                        return self.queue.end(BusError::Unavailable(text));
                    }
                }
            }
        }
    }

    async fn round(&self, number: u64, patience: Duration) -> Result<(), Failure> {
        let mut probed = self.queue.probed();
        self.send(number, patience).await?;
        match timeout(patience, probed.wait_for(|last| *last == number)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Failure::away("a probe was published and did not arrive")),
        }
    }

    async fn send(&self, number: u64, patience: Duration) -> Result<(), Failure> {
        let asked = self.partition.call(patience, |session| {
            let [server, epoch, clock, fresh] = self.partition.standing(session);
            let secret = self.partition.secret();
            let publish = self.partition.publish_command().into();
            let (channel, number) = (self.channel.clone().into(), number.to_string().into());
            let question = Question {
                keys: vec![
                    self.partition.state_key(),
                    self.partition.samples_key(),
                    self.partition.secret_key(),
                ],
                arguments: vec![publish, channel, number, server, epoch, clock, fresh, secret],
            };
            Call::Script(&PROBE, question)
        });
        asked.await.map(|_| ())
    }
}

/// Probes in a row that may fail before the link ends, itself included.
const MISSES: u32 = 2;
