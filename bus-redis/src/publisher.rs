//! What is to be published in one partition: queued within bounds, sent in batches, answered in time.
//!
//! While some batches are under way the next gather, so the busier a node is, the larger they are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::replace;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_core::{BusError, Publication, Receipt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::RedisConfig;
use crate::fault::Failure;
use crate::partition::Partition;
use crate::resp::Commands;
use crate::sabotage::blurred;
use crate::send::{pass, send};
use crate::spawn::{Task, now};
use crate::stats::Counters;

/// Publishes in one partition.
#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    _worker: Task,
}

#[derive(Debug)]
struct Shared {
    partition: Arc<Partition>,
    counters: Arc<Counters>,
    config: RedisConfig,
    /// Bytes that wait here, and how many may.
    waiting: Arc<AtomicUsize>,
    most: usize,
    queue: Mutex<VecDeque<Job>>,
    filled: Notify,
}

/// What one caller published together, of a size for one call.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) publications: Vec<Publication>,
    /// The commands that publish it, where nothing of it is kept: made by the caller, so that callers share the work.
    pub(crate) passing: Option<Commands>,
    answer: oneshot::Sender<Vec<Answer>>,
    pub(crate) progress: Arc<Progress>,
    _reserved: Reserved,
}

/// How far a job is. Only who moves it on from `WAITING` or `REFUSED` acts on it: the worker, which sends it, or its
/// caller, which gives it up and is told that it was not done. So what is told so is never done later.
///
/// | from | to | by |
/// |---|---|---|
/// | waiting, refused | sent | the worker, before it hands it to a connection |
/// | sent | refused | the worker, when the slot has moved: it was not done, and will be sent again |
/// | waiting, refused | given up | the caller, when its time is over |
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    /// Marks it as sent, unless its caller has given it up.
    pub(crate) fn send(&self) {
        let _ = self.leave_queue(SENT);
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.0.load(Ordering::Acquire) == SENT
    }

    /// It was not done, and will be sent again.
    pub(crate) fn refused(&self) {
        let _ = self.0.compare_exchange(SENT, REFUSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The caller's time is over: what it is told.
    fn give_up(&self) -> Failure {
        match self.leave_queue(GIVEN_UP) {
            Ok(WAITING) => Failure::away("too much was to be published before it"),
            Ok(_) => Failure::moving(),
            Err(_) => Failure::timed_out(),
        }
    }

    /// The stage before, or the one that it is in already.
    fn leave_queue(&self, to: u8) -> Result<u8, u8> {
        let queued = |stage| matches!(stage, WAITING | REFUSED).then_some(to);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, queued)
    }
}

const WAITING: u8 = 0;
const REFUSED: u8 = 1;
const SENT: u8 = 2;
const GIVEN_UP: u8 = 3;

pub(crate) type Answer = Result<Receipt, Failure>;

type Queued = (oneshot::Receiver<Vec<Answer>>, Arc<Progress>);

/// Bytes that wait, taken off the account when they no longer do.
#[derive(Debug)]
struct Reserved {
    account: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.account.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Publisher {
    pub(crate) fn start(
        partition: Arc<Partition>,
        counters: Arc<Counters>,
        config: RedisConfig,
        most: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            partition,
            counters,
            config,
            waiting: Arc::default(),
            most,
            queue: Mutex::default(),
            filled: Notify::new(),
        });
        Self { _worker: Task::spawn(work(shared.clone())), shared }
    }

    /// Bytes that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// One answer for each, in order, within the deadline.
    pub(crate) async fn publish(
        &self,
        mut publications: Vec<Publication>,
    ) -> Vec<Result<Receipt, BusError>> {
        let until = now() + self.shared.config.deadline;
        let mut answers = Vec::new();
        // What is too much for one call goes in several, one after the other: so it stays in order whatever happens.
        while !publications.is_empty() {
            let rest = publications.split_off(fitting(&publications));
            let part = replace(&mut publications, rest);
            answers.extend(self.shared.answers(part, until).await);
        }
        let counters = &self.shared.counters;
        let told = |answer: Answer| {
            answer.map_err(|failure| {
                let failure = blurred(self.shared.config.without(), failure);
                counters.publish_failed(&failure);
                failure.into()
            })
        };
        answers.into_iter().map(told).collect()
    }
}

impl Shared {
    async fn answers(&self, publications: Vec<Publication>, until: Instant) -> Vec<Answer> {
        let count = publications.len();
        let outcome = async {
            // While the server is away nothing is queued for it.
            let server = timeout_at(until, self.partition.server()).await;
            server
                .map_err(|_| Failure::away("it is not known where the partition is"))??
                .check()?;
            let (answer, progress) = self.enqueue(publications)?;
            match timeout_at(until, answer).await {
                Ok(Ok(answers)) => Ok(answers),
                _ => Err(progress.give_up()),
            }
        };
        outcome.await.unwrap_or_else(|failure: Failure| vec![Err(failure); count])
    }

    fn enqueue(&self, publications: Vec<Publication>) -> Result<Queued, Failure> {
        let bytes = publications.iter().map(cost).sum();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved { account: self.waiting.clone(), bytes };
        if before + bytes > self.most && before > 0 {
            return Err(Failure::away(format!(
                "{before} bytes of publications are waiting already"
            )));
        }
        let passing = pass(&self.partition, &publications);
        let (answer, answered) = oneshot::channel();
        let progress = Arc::<Progress>::default();
        let queued = (answered, progress.clone());
        let job = Job { publications, passing, answer, progress, _reserved: reserved };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        self.filled.notify_one();
        Ok(queued)
    }

    /// The next jobs that fit into one call; those that nobody waits for any more are dropped.
    fn take(&self) -> Vec<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut jobs, mut count, mut bytes) = (Vec::new(), 0, 0);
        while let Some(job) = queue.front() {
            if job.answer.is_closed() {
                queue.pop_front();
                continue;
            }
            let (more, more_bytes) = (job.publications.len(), job._reserved.bytes);
            if !jobs.is_empty() && (count + more > CALL_COUNT || bytes + more_bytes > CALL_BYTES) {
                break;
            }
            (count, bytes) = (count + more, bytes + more_bytes);
            jobs.extend(queue.pop_front());
        }
        jobs
    }
}

/// Sends what is queued, some calls at a time, in order.
async fn work(shared: Arc<Shared>) {
    let mut calls = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = calls.next(), if !calls.is_empty() => {}
            jobs = next_jobs(&shared), if calls.len() < CALLS => {
                let mut call = Box::pin(carry_out(shared.clone(), jobs));
                // The first poll hands the call to the connection: so calls stay in order.
                let done = poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
                if done.is_pending() {
                    calls.push(call);
                }
            }
        }
    }
}

async fn next_jobs(shared: &Shared) -> Vec<Job> {
    loop {
        let jobs = shared.take();
        if !jobs.is_empty() {
            return jobs;
        }
        shared.filled.notified().await;
    }
}

async fn carry_out(shared: Arc<Shared>, jobs: Vec<Job>) {
    let mut outcome = send(&shared.partition, &jobs).await.map(Vec::into_iter);
    for job in jobs {
        let count = job.publications.len();
        let own = match &mut outcome {
            Ok(answers) if job.progress.is_sent() => answers.by_ref().take(count).collect(),
            // Its caller knows by the progress what became of it.
            Ok(_) => continue,
            Err(failure) => vec![Err(failure.clone()); count],
        };
        // Nobody waits any more when the caller's deadline has passed.
        let _ = job.answer.send(own);
    }
}

/// How many of the first go into one call; at least one.
fn fitting(publications: &[Publication]) -> usize {
    let mut bytes = 0;
    let fits = |publication: &&Publication| {
        bytes += cost(publication);
        bytes <= CALL_BYTES
    };
    publications.iter().take(CALL_COUNT).take_while(fits).count().max(1)
}

fn cost(publication: &Publication) -> usize {
    size_of::<Publication>() + publication.message.len()
}

/// Most publications of one call: some hundred microseconds of Redis' time.
const CALL_COUNT: usize = 128;
/// Bytes after which a call takes no more.
const CALL_BYTES: usize = 256 << 10;
/// Calls under way at a time. More gain nothing: Redis works on one.
const CALLS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn what_is_given_up_is_never_sent() {
        let progress = Progress::default();
        assert_eq!(progress.give_up().fault, Fault::Away);
        progress.send();
        assert!(!progress.is_sent());
        progress.refused();
        progress.send();
        assert!(!progress.is_sent());
    }

    #[test]
    fn what_is_sent_is_never_given_up() {
        let progress = Progress::default();
        progress.send();
        assert_eq!(progress.give_up().fault, Fault::TimedOut);
        assert!(progress.is_sent());
    }

    #[test]
    fn what_a_moving_slot_refused_waits_again() {
        let progress = Progress::default();
        progress.send();
        progress.refused();
        assert!(!progress.is_sent());
        progress.send();
        assert!(progress.is_sent());
        progress.refused();
        assert_eq!(progress.give_up().fault, Fault::Moved);
        progress.send();
        assert!(!progress.is_sent());
    }
}
