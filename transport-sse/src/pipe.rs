//! The bounded pipe between the writer and the body: one lock, no task, wakers both ways.

use std::convert::Infallible;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::framing::retry_line;

/// What an HTTP server sends to the client: `retry:`, then all that the writer was given. Of a refusal, its text.
///
/// Dropped, it ends the connection: writing fails and reading comes to its end.
#[derive(Debug)]
pub struct SseBody {
    /// The first chunk, until it is taken.
    first: Option<Bytes>,
    pipe: Pipe,
}

impl SseBody {
    pub(crate) fn new(retry: Duration, pipe: Pipe) -> Self {
        Self { first: Some(retry_line(retry)), pipe }
    }

    /// A body that is no stream.
    pub(crate) fn text(text: &'static str) -> Self {
        let pipe = Pipe::default();
        pipe.end();
        Self { first: Some(text.into()).filter(|text: &Bytes| !text.is_empty()), pipe }
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.pipe.poll_take(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.pipe.rest() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len);
        self.pipe
            .rest()
            .map_or_else(SizeHint::default, |rest| SizeHint::with_exact((first + rest) as u64))
    }
}

impl Drop for SseBody {
    fn drop(&mut self) {
        self.pipe.drop_body();
    }
}

/// The pipe, as each of its ends holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Bytes>,
    /// Bytes in `chunks`.
    len: usize,
    /// The writer appends nothing more.
    ended: bool,
    /// The body is gone: no one takes anything any more.
    gone: bool,
    /// The body waits for bytes or the end.
    body: Option<Waker>,
    /// The writer waits for room.
    writer: Option<Waker>,
    /// The reader waits for the body to go.
    reader: Option<Waker>,
}

impl Pipe {
    /// Appends as much of `frames` as there is room for, and answers how many bytes that was.
    pub(crate) fn append(&self, frames: &[Bytes]) -> io::Result<usize> {
        let mut state = self.lock();
        let taken = state.append(frames)?;
        let body = if taken > 0 { state.body.take() } else { None };
        drop(state);
        wake(body);
        Ok(taken)
    }

    /// The same, once there is room for at least one byte.
    pub(crate) fn poll_append(
        &self,
        cx: &mut Context<'_>,
        frames: &[Bytes],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.room() == 0 && !state.ended && !state.gone {
            remember(&mut state.writer, cx);
            return Poll::Pending;
        }
        drop(state);
        Poll::Ready(self.append(frames))
    }

    /// Appends the last event, for which there is always room, and ends the stream.
    pub(crate) fn close(&self, event: Bytes) {
        let mut state = self.lock();
        if !state.ended && !state.gone {
            state.push(event);
        }
        drop(state);
        self.end();
    }

    /// Ends the stream after what is in the pipe.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let body = state.body.take();
        drop(state);
        wake(body);
    }

    /// Waits until the body has taken everything or is gone.
    pub(crate) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.len == 0 || state.gone {
            return Poll::Ready(());
        }
        remember(&mut state.writer, cx);
        Poll::Pending
    }

    /// Waits until the body is gone.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.gone {
            return Poll::Ready(());
        }
        remember(&mut state.reader, cx);
        Poll::Pending
    }

    /// All that is in the pipe as one chunk; `None` at its end.
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.lock();
        if state.len == 0 {
            if state.ended {
                return Poll::Ready(None);
            }
            remember(&mut state.body, cx);
            return Poll::Pending;
        }
        let chunks = mem::take(&mut state.chunks);
        state.len = 0;
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        Poll::Ready(Some(match <[Bytes; 1]>::try_from(chunks) {
            Ok([chunk]) => chunk,
            Err(chunks) => chunks.concat().into(),
        }))
    }

    /// How many bytes are still to be taken, once that is known.
    fn rest(&self) -> Option<usize> {
        let state = self.lock();
        state.ended.then_some(state.len)
    }

    fn drop_body(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.len = 0;
        let chunks = mem::take(&mut state.chunks);
        let (writer, reader) = (state.writer.take(), state.reader.take());
        drop(state);
        drop(chunks);
        wake(writer);
        wake(reader);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so a poisoned state is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        if self.gone || self.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let before = self.len;
        for frame in frames {
            let fits = frame.len().min(self.room());
            if fits > 0 {
                self.push(frame.slice(..fits));
            }
            if fits < frame.len() {
                break;
            }
        }
        Ok(self.len - before)
    }

    fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    fn room(&self) -> usize {
        PIPE_BYTES.saturating_sub(self.len)
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What lies between core and the HTTP server at most, per client.
const PIPE_BYTES: usize = 16 * 1024;
