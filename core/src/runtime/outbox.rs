//! What waits for one client: a queue of frames, bounded in bytes, with one wake when it turns non-empty.
//!
//! All output state of a connection is here and none in a future, so a dropped future loses nothing.
//! A std mutex is right: it is held for a push, or for one non-blocking write, never over an await.
//!
//! While the connection's task has nothing to write it lends its writer to the outbox. Then whoever
//! pushes writes at once, and only what the socket does not take wakes the task.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::listing::Counts;
use super::queue::{Droppable, Queue};
use crate::{CloseReason, FrameWriter, SlowPolicy, Topic};

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    limit: usize,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// As many bytes of it are counted.
    counted: usize,
    /// The front frame has left in part: it must not be dropped.
    begun: bool,
    /// A waiting write has the front frame and may take part of it at any time.
    held: bool,
    writer: Option<Lent>,
    /// A write failed: the connection is dead.
    broken: bool,
    ended: Option<CloseReason>,
    waker: Option<Waker>,
    ticked: bool,
    heard: Duration,
    /// Nobody reads what the client says: it cannot be judged by its silence.
    unread: bool,
    /// What has left since the last sweep.
    written: Written,
    due: Option<Duration>,
}

/// What has left for a client.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.frames += more.frames;
        self.bytes += more.bytes;
    }
}

/// A writer of whatever make.
struct Lent(Box<dyn LentWriter>);

trait LentWriter: Any + Send {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize>;
}

impl<W: FrameWriter> LentWriter for W {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        FrameWriter::try_write(self, frames)
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

/// What the queue looks like after a flush.
#[derive(Debug, PartialEq)]
pub(crate) enum Flushed {
    Empty,
    Blocked,
    Ended(CloseReason),
}

impl Outbox {
    pub(crate) fn new(limit: usize, heard: Duration, counts: Arc<Counts>) -> Self {
        Self { state: Mutex::new(State { heard, ..State::default() }), limit, counts }
    }

    /// Most bytes that may wait.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Adds frames, in order, and writes them where the writer is lent. Beyond the limit the connection
    /// ends as too slow.
    pub(crate) fn push(&self, frames: impl IntoIterator<Item = Bytes>) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        let was_empty = state.queue.is_empty();
        for frame in frames {
            // A single frame always fits: `message_bytes` bounds it. Of a burst that does not, the socket
            // may take the beginning.
            let is_over = |state: &State| {
                state.queue.bytes() + frame.len() > self.limit && !state.queue.is_empty()
            };
            if is_over(&state) && !state.write_lent() && is_over(&state) {
                return Self::end_locked(state, CloseReason::TOO_SLOW, true);
            }
            state.queue.push(frame);
        }
        if was_empty && !state.write_lent() {
            Self::wake(state)
        }
    }

    /// Adds a frame that may be dropped, or may drop others of its kind, when the client is too slow. `gap` makes the
    /// frame that says so.
    pub(crate) fn push_droppable(
        &self,
        frame: Bytes,
        of: Arc<Droppable>,
        gap: impl Fn(&Topic) -> Option<Bytes>,
    ) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        let was_empty = state.queue.is_empty();
        let keep = state.kept();
        if of.policy == SlowPolicy::KeepLatest {
            state.queue.conflate(&of, keep);
        }
        let is_over = |state: &State| {
            state.queue.bytes() + frame.len() > self.limit && !state.queue.is_empty()
        };
        if is_over(&state) {
            state.write_lent();
        }
        while is_over(&state) {
            let keep = state.kept();
            if !state.queue.drop_oldest(keep, &gap) {
                return Self::end_locked(state, CloseReason::TOO_SLOW, true);
            }
        }
        state.queue.push_droppable(frame, of);
        if was_empty && !state.write_lent() {
            Self::wake(state)
        }
    }

    /// Lets whoever pushes write, until [`take_back`](Self::take_back).
    pub(crate) fn lend<W: FrameWriter>(&self, writer: Box<W>) {
        self.lock().writer = Some(Lent(writer));
    }

    /// The writer that was lent.
    pub(crate) fn take_back<W: FrameWriter>(&self) -> Option<Box<W>> {
        let writer: Box<dyn Any> = self.lock().writer.take()?.0;
        writer.downcast().ok()
    }

    /// Ends the connection. What waits is still sent, unless the client is too slow for it.
    pub(crate) fn end(&self, reason: CloseReason) {
        let drop_queue = reason == CloseReason::TOO_SLOW;
        Self::end_locked(self.lock(), reason, drop_queue);
    }

    fn end_locked(mut state: Locked<'_>, reason: CloseReason, drop_queue: bool) {
        if state.ended.is_none() {
            if drop_queue {
                let keep = state.kept();
                state.queue.truncate(keep);
            }
            state.ended = Some(reason);
            Self::wake(state);
        }
    }

    /// Offers what waits to `write`, which says how many bytes it took.
    pub(crate) fn flush(
        &self,
        write: impl FnMut(&[Bytes]) -> io::Result<usize>,
    ) -> io::Result<Flushed> {
        let mut state = self.lock();
        if state.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !state.flush(write)? {
            return Ok(Flushed::Blocked);
        }
        Ok(state.ended.clone().map_or(Flushed::Empty, Flushed::Ended))
    }

    /// The frame whose turn it is, for a waiting write; `None` when nothing waits. It is not dropped
    /// before [`taken`](Self::taken) says what the write took.
    pub(crate) fn hold_front(&self) -> Option<Bytes> {
        let mut state = self.lock();
        state.held = !state.queue.is_empty();
        state.queue.front().cloned()
    }

    /// The rest of a frame that has left in part, for a waiting write.
    pub(crate) fn hold_begun(&self) -> Option<Bytes> {
        if self.lock().begun { self.hold_front() } else { None }
    }

    /// A waiting write took so many bytes, or was given up with 0. Answers whether the front frame has left.
    pub(crate) fn taken(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        state.held = false;
        state.advance(bytes)
    }

    /// Ready when there is something to send, the end has come, or a tick is due.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx, |state| !state.queue.is_empty() || state.ended.is_some() || state.broken)
    }

    /// Ready when a tick is due or, unless that is known, the end has come: for one who is writing.
    pub(crate) fn poll_told(&self, cx: &mut Context<'_>, end_is_known: bool) -> Poll<()> {
        self.poll(cx, |state| state.ended.is_some() && !end_is_known)
    }

    fn poll(&self, cx: &mut Context<'_>, is_ready: impl Fn(&State) -> bool) -> Poll<()> {
        let mut state = self.lock();
        if state.ticked || is_ready(&state) {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Why the connection ends, once it does.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.lock().ended.clone()
    }

    /// Whether a tick was asked for since the last time.
    pub(crate) fn take_tick(&self) -> bool {
        std::mem::take(&mut self.lock().ticked)
    }

    /// Notes a sign of life, or that the client is read from now on.
    pub(crate) fn heard(&self, at: Duration) {
        let mut state = self.lock();
        (state.heard, state.unread) = (at, false);
    }

    /// Notes that the client is not read until it is [`heard`](Self::heard) again.
    pub(crate) fn unread(&self) {
        self.lock().unread = true;
    }

    /// Notes when the session wants its next tick.
    pub(crate) fn set_due(&self, due: Option<Duration>) {
        self.lock().due = due;
    }

    /// Asks for a tick when it is due. Answers when the client was last heard, and what has left since the last time.
    /// One who is not read, or has a write waiting, which has a deadline of its own, counts as heard.
    pub(crate) fn sweep(&self, now: Duration) -> (Duration, Written) {
        let mut state = self.lock();
        if state.unread || state.held {
            state.heard = now;
        }
        let swept = (state.heard, std::mem::take(&mut state.written));
        if state.due.is_some_and(|due| due <= now) {
            (state.due, state.ticked) = (None, true);
            Self::wake(state);
        }
        swept
    }

    /// The connection is gone, and what waits for it with it. Answers what has left since the last sweep.
    pub(crate) fn gone(&self) -> Written {
        let mut state = self.lock();
        state.queue = Queue::default();
        std::mem::take(&mut state.written)
    }

    #[cfg(test)]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().queue.bytes()
    }

    fn wake(mut state: Locked<'_>) {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> Locked<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { state, counts: &self.counts }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.lock().queue = Queue::default();
    }
}

/// The state for as long as it is locked. What waits is counted when that ends, so that what leaves at once never is.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    counts: &'a Counts,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let waits = self.state.queue.bytes();
        let counted = std::mem::replace(&mut self.state.counted, waits);
        if waits > counted {
            self.counts.queued.fetch_add(waits - counted, Relaxed);
        } else if waits < counted {
            self.counts.queued.fetch_sub(counted - waits, Relaxed);
        }
    }
}

impl State {
    /// Writes what waits by the writer that was lent. Answers whether the task has nothing to do for it.
    fn write_lent(&mut self) -> bool {
        let Some(Lent(mut writer)) = self.writer.take() else { return false };
        // A transport that panics ends its own connection, not whoever pushes.
        let written = catch_unwind(AssertUnwindSafe(|| self.flush(|f| writer.try_write(f))));
        self.writer = Some(Lent(writer));
        match written {
            Ok(Ok(all)) => all,
            Ok(Err(_)) | Err(_) => {
                self.broken = true;
                false
            }
        }
    }

    /// Answers whether everything has left.
    fn flush(&mut self, mut write: impl FnMut(&[Bytes]) -> io::Result<usize>) -> io::Result<bool> {
        while !self.queue.is_empty() {
            let taken = write(self.queue.first())?;
            if taken == 0 {
                return Ok(false);
            }
            self.advance(taken);
        }
        self.queue.shrink_to(KEPT_CAPACITY);
        Ok(true)
    }

    /// Answers whether a frame has left.
    fn advance(&mut self, taken: usize) -> bool {
        let (left, begun) = self.queue.advance(taken);
        self.begun = begun.unwrap_or(self.begun);
        self.written += Written { frames: left, bytes: taken as u64 };
        left > 0
    }

    /// Frames that must stay: the front one when it has begun, or a write has it.
    fn kept(&self) -> usize {
        usize::from(self.begun || self.held)
    }
}

/// Places for frames that an idle queue keeps.
const KEPT_CAPACITY: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn frame(n: usize) -> Bytes {
        Bytes::from(vec![7; n])
    }

    /// A socket that takes so many bytes at once, and so many in all.
    struct Socket(usize, Arc<AtomicUsize>);

    impl FrameWriter for Socket {
        fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
            let (most, left) = (self.0, self.1.load(Ordering::Relaxed));
            assert_ne!(most, 0, "the test asked for it");
            let taken = frames.iter().map(Bytes::len).sum::<usize>().min(most).min(left);
            self.1.store(left - taken, Ordering::Relaxed);
            Ok(taken)
        }

        async fn write(&mut self, _: &[Bytes]) -> io::Result<usize> {
            std::future::pending().await
        }

        async fn close(&mut self, _: &CloseReason) {}
    }

    fn lent(limit: usize, most: usize, all: usize) -> (Outbox, Arc<AtomicUsize>) {
        let (outbox, left) =
            (Outbox::new(limit, Duration::ZERO, Arc::default()), Arc::new(AtomicUsize::new(all)));
        outbox.lend(Box::new(Socket(most, left.clone())));
        (outbox, left)
    }

    #[test]
    fn what_is_pushed_leaves_at_once_while_the_writer_is_lent() {
        let (outbox, left) = lent(10, 4, 100);
        outbox.push([frame(5), frame(9)]);
        assert_eq!((outbox.queued_bytes(), left.load(Ordering::Relaxed)), (0, 86));
        assert!(outbox.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(outbox.take_back::<Socket>().is_some());
        outbox.push([frame(5)]);
        assert_eq!((outbox.queued_bytes(), left.load(Ordering::Relaxed)), (5, 86));
    }

    #[test]
    fn what_the_socket_does_not_take_wakes_the_task_and_is_not_dropped_in_its_middle() {
        let (outbox, _) = lent(10, 4, 7);
        let waits = outbox.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        outbox.push([frame(5), frame(6), frame(7)]);
        assert!(outbox.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(outbox.ended(), Some(CloseReason::TOO_SLOW));
        assert_eq!(outbox.hold_begun(), Some(frame(4)));
    }

    #[test]
    fn a_writer_that_panics_breaks_its_connection_alone() {
        let (outbox, _) = lent(10, 0, 0);
        outbox.push([frame(5)]);
        assert!(outbox.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(outbox.flush(|_| Ok(1)).is_err());
    }

    #[test]
    fn the_limit_holds_from_both_sides() {
        let outbox = Outbox::new(10, Duration::ZERO, Arc::default());
        outbox.push([frame(5), frame(5)]);
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Blocked));
        outbox.push([frame(1)]);
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Ended(CloseReason::TOO_SLOW)));
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn a_frame_that_has_begun_is_never_dropped() {
        let outbox = Outbox::new(10, Duration::ZERO, Arc::default());
        outbox.push([frame(6), frame(4)]);
        assert!(!outbox.taken(2));
        outbox.push([frame(9)]);
        assert_eq!(outbox.hold_front(), Some(frame(4)));
        assert!(outbox.taken(4));
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Ended(CloseReason::TOO_SLOW)));
        assert_eq!(outbox.hold_front(), None);
    }

    #[test]
    fn a_frame_that_a_write_waits_with_survives_an_overflow() {
        let outbox = Outbox::new(10, Duration::ZERO, Arc::default());
        outbox.push([frame(6), frame(4)]);
        assert_eq!(outbox.hold_front(), Some(frame(6)));
        outbox.push([frame(9)]);
        assert_eq!((outbox.queued_bytes(), outbox.taken(6)), (6, true));
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Ended(CloseReason::TOO_SLOW)));
    }
}
