//! What waits for one client: a queue of frames, bounded in bytes, with one wake when it turns non-empty.
//!
//! All output state of a connection is here and none in a future, so a dropped future loses nothing.
//! A std mutex is right: it is held for a push, or for one non-blocking write, never over an await.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::CloseReason;

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The front frame has left in part: it must not be dropped.
    begun: bool,
    ended: Option<CloseReason>,
    waker: Option<Waker>,
    ticked: bool,
    heard: Duration,
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

/// What the queue looks like after a flush.
#[derive(Debug, PartialEq)]
pub(crate) enum Flushed {
    Empty,
    Blocked,
    Ended(CloseReason),
}

impl Outbox {
    pub(crate) fn new(limit: usize, heard: Duration) -> Self {
        Self { state: Mutex::new(State { heard, ..State::default() }), limit }
    }

    /// Adds frames, in order. Beyond the limit the connection ends as too slow.
    pub(crate) fn push(&self, frames: impl IntoIterator<Item = Bytes>) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        let was_empty = state.queue.is_empty();
        for frame in frames {
            // A single frame always fits: `message_bytes` bounds it.
            if state.bytes + frame.len() > self.limit && !state.queue.is_empty() {
                return Self::end_locked(state, CloseReason::TOO_SLOW, true);
            }
            state.bytes += frame.len();
            state.queue.push_back(frame);
        }
        if was_empty {
            Self::wake(state)
        }
    }

    /// Ends the connection. What waits is still sent, unless the client is too slow for it.
    pub(crate) fn end(&self, reason: CloseReason) {
        let drop_queue = reason == CloseReason::TOO_SLOW;
        Self::end_locked(self.lock(), reason, drop_queue);
    }

    fn end_locked(mut state: MutexGuard<'_, State>, reason: CloseReason, drop_queue: bool) {
        if state.ended.is_none() {
            if drop_queue {
                let keep = usize::from(state.begun);
                state.queue.truncate(keep);
                state.bytes = state.queue.iter().map(Bytes::len).sum();
            }
            state.ended = Some(reason);
            Self::wake(state);
        }
    }

    /// Offers what waits to `write`, which says how many bytes it took.
    pub(crate) fn flush(
        &self,
        mut write: impl FnMut(&[Bytes]) -> io::Result<usize>,
    ) -> io::Result<Flushed> {
        let mut state = self.lock();
        while !state.queue.is_empty() {
            let (front, _) = state.queue.as_slices();
            let taken = write(front)?;
            if taken == 0 {
                return Ok(Flushed::Blocked);
            }
            state.advance(taken);
        }
        if state.queue.capacity() > KEPT_CAPACITY {
            state.queue.shrink_to(KEPT_CAPACITY);
        }
        Ok(state.ended.clone().map_or(Flushed::Empty, Flushed::Ended))
    }

    /// The frame whose turn it is, for a waiting write; `None` when nothing waits. It counts as begun
    /// from now on, since the write may take part of it at any time.
    pub(crate) fn begin_front(&self) -> Option<Bytes> {
        let mut state = self.lock();
        state.begun = !state.queue.is_empty();
        state.queue.front().cloned()
    }

    /// A waiting write took so many bytes. Answers whether the front frame has left.
    pub(crate) fn taken(&self, bytes: usize) -> bool {
        self.lock().advance(bytes)
    }

    /// Ready when there is something to send, the end has come, or a tick is due.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.queue.is_empty() || state.ended.is_some() || state.ticked {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether a tick was asked for since the last time.
    pub(crate) fn take_tick(&self) -> bool {
        std::mem::take(&mut self.lock().ticked)
    }

    /// Notes a sign of life.
    pub(crate) fn heard(&self, at: Duration) {
        self.lock().heard = at;
    }

    /// Notes when the session wants its next tick.
    pub(crate) fn set_due(&self, due: Option<Duration>) {
        self.lock().due = due;
    }

    /// Asks for a tick when it is due. Answers when the client was last heard, and what has left since the last time.
    pub(crate) fn sweep(&self, now: Duration) -> (Duration, Written) {
        let mut state = self.lock();
        let swept = (state.heard, std::mem::take(&mut state.written));
        if state.due.is_some_and(|due| due <= now) {
            (state.due, state.ticked) = (None, true);
            Self::wake(state);
        }
        swept
    }

    /// What has left since the last sweep.
    pub(crate) fn take_written(&self) -> Written {
        std::mem::take(&mut self.lock().written)
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, mut taken: usize) -> bool {
        let mut left = false;
        self.bytes = self.bytes.saturating_sub(taken);
        self.written.bytes += taken as u64;
        while let Some(front) = self.queue.front_mut() {
            if taken < front.len() {
                self.begun |= taken > 0;
                front.advance(taken);
                break;
            }
            taken -= front.len();
            self.queue.pop_front();
            self.written.frames += 1;
            (self.begun, left) = (false, true);
        }
        left
    }
}

/// Places for frames that an idle queue keeps.
const KEPT_CAPACITY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize) -> Bytes {
        Bytes::from(vec![7; n])
    }

    #[test]
    fn the_limit_holds_from_both_sides() {
        let outbox = Outbox::new(10, Duration::ZERO);
        outbox.push([frame(5), frame(5)]);
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Blocked));
        outbox.push([frame(1)]);
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Ended(CloseReason::TOO_SLOW)));
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn a_frame_that_has_begun_is_never_dropped() {
        let outbox = Outbox::new(10, Duration::ZERO);
        outbox.push([frame(6), frame(4)]);
        assert!(!outbox.taken(2));
        outbox.push([frame(9)]);
        assert_eq!(outbox.begin_front(), Some(frame(4)));
        assert!(outbox.taken(4));
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Ended(CloseReason::TOO_SLOW)));
        assert_eq!(outbox.begin_front(), None);
    }

    #[test]
    fn a_frame_that_a_write_waits_with_survives_an_overflow() {
        let outbox = Outbox::new(10, Duration::ZERO);
        outbox.push([frame(6), frame(4)]);
        assert_eq!(outbox.begin_front(), Some(frame(6)));
        outbox.push([frame(9)]);
        assert_eq!((outbox.queued_bytes(), outbox.taken(6)), (6, true));
        assert_eq!(outbox.flush(|_| Ok(0)).ok(), Some(Flushed::Ended(CloseReason::TOO_SLOW)));
    }
}
