//! A connection's replay: what it missed, read as it takes it, until it is live.

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use tokio::time::{sleep, timeout};

use super::handler::Context;
use super::observer::Event;
use super::routed::{Receiver, framed_or_gap};
use super::slot::{Overflown, gap_of};
use super::spawn::jitter;
use crate::machines::{EpochChanged, Replay, Resume};
use crate::{Framing, HistoryPage, Outgoing, Topic};

/// A replay that is under way. One step at a time; the connection polls it.
pub(crate) struct Replaying {
    /// Most connections have none, so their room for one is to be small.
    resume: Box<Resume>,
    step: Option<BoxFuture<'static, Step>>,
    going_live: bool,
}

/// How a step ended.
pub(crate) enum Step {
    Read(Vec<Read>),
    Live(Result<(), Overflown>),
    Rested,
}

type Read = (Topic, Result<HistoryPage, Unread>);

/// Why a topic could not be read.
pub(crate) enum Unread {
    /// It is read again.
    Failed,
    /// Its partition is away, while others are there: a connection that waited for it would keep what it has in those waiting too.
    Away,
}

/// The replay cannot go on: the client has to come back with its last cursor.
pub(crate) struct ComeBack;

impl From<EpochChanged> for ComeBack {
    fn from(_: EpochChanged) -> Self {
        Self
    }
}

impl Replaying {
    pub(crate) fn new(resume: Resume) -> Self {
        Self { resume: Box::new(resume), step: None, going_live: false }
    }

    /// The replay as it stands; what was being read will be read again.
    pub(crate) fn stop(mut self) -> Resume {
        self.resume.unask();
        *self.resume
    }

    /// Whether the shard was asked to let it go live, and has not answered yet. It must not be stopped then.
    pub(crate) fn is_going_live(&self) -> bool {
        self.going_live
    }

    pub(crate) fn leave(&mut self, topic: &Topic) {
        self.resume.remove(topic);
    }

    /// The next frames, about [`BATCH`] bytes and never more than the outbox takes; empty while something has to be
    /// read first, `None` when the transport cannot frame what it is.
    pub(crate) fn frames(
        &mut self,
        context: &Context,
        who: &Receiver,
        framing: Framing,
    ) -> Option<Vec<Bytes>> {
        let batch = BATCH.min(context.hub.0.limits.outbox_bytes / 2);
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let observer = &context.hub.0.observer;
        while bytes < batch
            && let Some(replay) = self.resume.take()
        {
            let (topic, message) = match replay {
                Replay::Gap(topic, reason) => {
                    observer.on(Event::Gap { reason, connections: 1 });
                    let gap = gap_of(&topic, reason);
                    (topic, gap)
                }
                Replay::Deliver(delivery, _) if !who.gets(delivery.except.as_ref()) => continue,
                Replay::Deliver(delivery, marks) => {
                    let room = delivery.topic.as_room().cloned();
                    let event = Outgoing::event(delivery.message, room);
                    (delivery.topic, context.with_cursor(event, &marks))
                }
            };
            let frame = framed_or_gap(framing, &message, &topic, observer)?;
            bytes += frame.len();
            frames.push(frame);
        }
        Some(frames)
    }

    /// Goes on; to be called when there are no frames. Ready with what [`done`](Self::done) takes.
    pub(crate) async fn step(&mut self, context: &Context) -> Step {
        let step = match &mut self.step {
            Some(step) => step,
            none => {
                let (step, going_live) = next(context.clone(), &mut self.resume);
                self.going_live = going_live;
                none.insert(step)
            }
        };
        let done = step.await;
        (self.step, self.going_live) = (None, false);
        done
    }

    /// Takes in how a step ended. Answers whether the connection is live.
    ///
    /// # Errors
    /// [`ComeBack`]: the connection is to be closed.
    pub(crate) fn done(&mut self, step: Step) -> Result<bool, ComeBack> {
        match step {
            Step::Read(reads) => {
                if take_in(&mut self.resume, reads)? {
                    self.step = Some(sleep(jitter(REST)).map(|()| Step::Rested).boxed());
                }
            }
            Step::Live(Ok(())) => return Ok(true),
            // What waited of a topic that is not read is gone.
            Step::Live(Err(Overflown)) if !self.resume.reads_all() => return Err(ComeBack),
            Step::Live(Err(Overflown)) => self.resume.again(),
            Step::Rested => {}
        }
        Ok(false)
    }
}

/// The next step, and whether it is the last one.
fn next(context: Context, resume: &mut Resume) -> (BoxFuture<'static, Step>, bool) {
    let wants = resume.wants();
    if !wants.is_empty() {
        return (async move { Step::Read(read(&context, wants).await) }.boxed(), false);
    }
    let floors = resume.floors();
    let key = context.key;
    let live = async move {
        let live = context.shard.ask(move |members| members.go_live(key, floors)).await;
        Step::Live(live.unwrap_or(Ok(())))
    };
    (live.boxed(), true)
}

async fn read(context: &Context, wants: Vec<(Topic, u64)>) -> Vec<Read> {
    let Some(kept) = &context.hub.0.kept else { return Vec::new() };
    join_all(wants.into_iter().map(|(topic, after)| async move {
        let page = kept.reader.read(&topic, after).await;
        let away = context.hub.is_bus_up() && !context.hub.is_linked(&topic);
        let page = page.map_err(|_| if away { Unread::Away } else { Unread::Failed });
        (topic, page)
    }))
    .await
}

/// Answers whether something could not be read.
fn take_in(resume: &mut Resume, reads: Vec<Read>) -> Result<bool, ComeBack> {
    let mut failed = false;
    for (topic, page) in reads {
        match page {
            Ok(page) => resume.page(&topic, page)?,
            Err(Unread::Away) => return Err(ComeBack),
            Err(Unread::Failed) => {
                resume.failed(&topic);
                failed = true;
            }
        }
    }
    Ok(failed)
}

/// The history could not be read in time.
pub(crate) struct Unproven;

/// Reads until it can be said what is recovered, at most for `handshake_deadline`.
pub(crate) async fn prove(context: &Context, resume: &mut Resume) -> Result<(), Unproven> {
    let proving = async {
        while !resume.is_proven() {
            let wants = resume.wants();
            let reads = read(context, wants).await;
            if take_in(resume, reads).map_err(|_| Unproven)? {
                sleep(jitter(REST)).await;
            }
        }
        Ok(())
    };
    let proven = timeout(context.hub.0.limits.handshake_deadline, proving).await;
    let proven = proven.unwrap_or(Err(Unproven));
    resume.unask();
    proven
}

/// Bytes that are replayed at once; the next come when these have left.
const BATCH: usize = 32 * 1024;
/// How long to wait, about, when the history could not be read.
const REST: std::time::Duration = std::time::Duration::from_millis(250);
