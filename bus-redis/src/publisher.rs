//! What is to be published in one partition: queued within bounds, sent in batches, answered in time.
//!
//! While some batches are under way the next gather, so the busier a node is, the larger they are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_core::{BusError, Publication, Receipt};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::RedisConfig;
use crate::fault::Failure;
use crate::partition::Partition;
use crate::send::send;
use crate::spawn::Task;
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

/// What one caller published together.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) publications: Vec<Publication>,
    answer: oneshot::Sender<Vec<Answer>>,
    /// Set when it is handed to a connection: from then on it may have been done.
    sent: Arc<AtomicBool>,
    _reserved: Reserved,
}

pub(crate) type Answer = Result<Receipt, Failure>;

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
        publications: Vec<Publication>,
    ) -> Vec<Result<Receipt, BusError>> {
        let count = publications.len();
        let answers = match timeout(self.shared.config.deadline, self.answered(publications)).await
        {
            Ok(answers) => answers,
            Err(_) => vec![Err(Failure::timed_out()); count],
        };
        let counters = &self.shared.counters;
        let told = |answer: Answer| {
            answer.map_err(|failure| {
                counters.publish_failed(&failure);
                failure.into()
            })
        };
        answers.into_iter().map(told).collect()
    }

    async fn answered(&self, publications: Vec<Publication>) -> Vec<Answer> {
        // While the server is away nothing is queued for it.
        if let Err(failure) = self.shared.partition.server().await.and_then(|s| s.check()) {
            return vec![Err(failure); publications.len()];
        }
        let mut waiting = Vec::new();
        for publications in chunks(publications) {
            let count = publications.len();
            waiting.push((count, self.shared.enqueue(publications)));
        }
        let mut answers = Vec::new();
        for (count, queued) in waiting {
            match queued {
                Ok((answer, sent)) => answers.extend(answer.await.unwrap_or_else(|_| {
                    let done = sent.load(Ordering::Acquire);
                    let failure =
                        if done { Failure::timed_out() } else { Failure::away("it was not sent") };
                    vec![Err(failure); count]
                })),
                Err(failure) => answers.extend(vec![Err(failure); count]),
            }
        }
        answers
    }
}

type Queued = (oneshot::Receiver<Vec<Answer>>, Arc<AtomicBool>);

impl Shared {
    fn enqueue(&self, publications: Vec<Publication>) -> Result<Queued, Failure> {
        let bytes = publications.iter().map(cost).sum();
        let before = self.counters.publish_bytes.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved { counters: self.counters.clone(), bytes };
        if before + bytes > self.config.publish_bytes && before > 0 {
            return Err(Failure::away(format!(
                "{before} bytes of publications are waiting already"
            )));
        }
        let (answer, answered) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        let job = Job { publications, answer, sent: sent.clone(), _reserved: reserved };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        self.filled.notify_one();
        Ok((answered, sent))
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
    jobs.iter().for_each(|job| job.sent.store(true, Ordering::Release));
    let publications = jobs.iter().flat_map(|job| &job.publications).collect::<Vec<_>>();
    let answers = send(&shared.partition, &publications).await;
    let mut answers = answers.into_iter();
    for job in jobs {
        let own = answers.by_ref().take(job.publications.len()).collect();
        // Nobody waits any more when the caller's deadline has passed.
        let _ = job.answer.send(own);
    }
}

/// Splits what is too much for one call.
fn chunks(publications: Vec<Publication>) -> Vec<Vec<Publication>> {
    let (mut chunks, mut bytes) = (vec![Vec::new()], 0);
    for publication in publications {
        let chunk = chunks.last_mut().expect("there is one from the start");
        bytes += cost(&publication);
        if !chunk.is_empty() && (chunk.len() >= CALL_COUNT || bytes > CALL_BYTES) {
            bytes = cost(&publication);
            chunks.push(vec![publication]);
        } else {
            chunk.push(publication);
        }
    }
    chunks
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
