//! What shards and connections ask of the dispatcher: the topics that somebody is in, or will be.

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::hub::Hub;
use crate::Topic;

#[derive(Debug)]
pub(crate) enum Wish {
    /// A connection of the shard will be in these topics; answered once all are subscribed, and the places of
    /// those that are kept are known. Answers how many connections were in the first of them before.
    Want { topics: Vec<Topic>, shard: usize, answer: oneshot::Sender<Result<usize, BusAway>> },
    /// A connection of the shard is no longer in this topic.
    Drop { topic: Topic, shard: usize },
}

/// The bus is away, so a topic cannot be subscribed now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BusAway;

/// Topics that are wished for, for a connection that is not in them yet. Dropping it gives them up, wherever a join is
/// cut; who puts the connection in says so by [`fulfil`](Self::fulfil).
#[derive(Debug)]
pub(crate) struct Wished {
    pub(super) topics: Vec<Topic>,
    pub(super) shard: usize,
    /// Connections that were in the first topic before.
    pub(crate) before: usize,
    pub(super) wishes: mpsc::UnboundedSender<Wish>,
}

impl Wished {
    /// The connection is in the topics: from now on the wish goes with the membership.
    pub(crate) fn fulfil(mut self) {
        self.topics.clear();
    }
}

impl Drop for Wished {
    fn drop(&mut self) {
        for topic in self.topics.drain(..) {
            let _ = self.wishes.send(Wish::Drop { topic, shard: self.shard });
        }
    }
}

impl Hub {
    /// Has topics subscribed for a connection of a shard, and waits for it, at most for `bus_deadline`.
    ///
    /// # Errors
    /// [`BusAway`]: nothing is wished for any more.
    pub(crate) async fn want(&self, shard: usize, topics: Vec<Topic>) -> Result<Wished, BusAway> {
        let (mut wished, subscribed) = self.wish(shard, topics);
        let subscribed = timeout(self.0.limits.bus_deadline, subscribed).await;
        wished.before = subscribed.map_or(Err(BusAway), |told| told.unwrap_or(Err(BusAway)))?;
        Ok(wished)
    }

    /// Wishes for topics; answered as [`Wish::Want`] says.
    pub(super) fn wish(&self, shard: usize, topics: Vec<Topic>) -> (Wished, Subscribed) {
        let (answer, subscribed) = oneshot::channel();
        let wishes = self.0.wishes.clone();
        let _ = wishes.send(Wish::Want { topics: topics.clone(), shard, answer });
        (Wished { topics, shard, before: 0, wishes }, subscribed)
    }
}

type Subscribed = oneshot::Receiver<Result<usize, BusAway>>;
