//! What is to be published in one partition: queued within bounds, sent in batches, answered in time.
//!
//! While some batches are under way the next gather, so the busier a node is, the larger they are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::replace;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_core::{BusError, Publication, Receipt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::RedisConfig;
use crate::fault::Failure;
use crate::partition::{Partition, Step};
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

/// How far a job is, for a caller whose time is over.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    pub(crate) fn reached(&self, step: Step) {
        self.0.store(step as u8, Ordering::Release);
    }

    fn late(&self) -> Failure {
        match self.0.load(Ordering::Acquire) {
            step if step == Step::Sent as u8 => Failure::timed_out(),
            step if step == Step::Refused as u8 => Failure::moving(),
            _ => Failure::away("too much was to be published before it"),
        }
    }
}

pub(crate) type Answer = Result<Receipt, Failure>;

type Queued = (oneshot::Receiver<Vec<Answer>>, Arc<Progress>);

/// Bytes that wait, taken off the account when they no longer do.
#[derive(Debug)]
struct Reserved {
    counters: Arc<Counters>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.counters.publish_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Publisher {
    pub(crate) fn start(
        partition: Arc<Partition>,
        counters: Arc<Counters>,
        config: RedisConfig,
    ) -> Self {
        let queue = Mutex::default();
        let shared = Shared { partition, counters, config, queue, filled: Notify::new() };
        let shared = Arc::new(shared);
        Self { _worker: Task::spawn(work(shared.clone())), shared }
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
                _ => Err(progress.late()),
            }
        };
        outcome.await.unwrap_or_else(|failure: Failure| vec![Err(failure); count])
    }

    fn enqueue(&self, publications: Vec<Publication>) -> Result<Queued, Failure> {
        let bytes = publications.iter().map(cost).sum();
        let before = self.counters.publish_bytes.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved { counters: self.counters.clone(), bytes };
        if before + bytes > self.config.publish_bytes && before > 0 {
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
    let answers = send(&shared.partition, &jobs).await;
    let mut answers = answers.into_iter();
    for job in jobs {
        let own = answers.by_ref().take(job.publications.len()).collect();
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
