//! One client's stream, as core serves it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{
    CloseReason, Frame, FrameReader, FrameWriter, Framing, ReadError, Transport, TransportInfo,
};

use crate::framing::late_close_event;
use crate::pipe::{Pipe, SseBody};
use crate::{ENVELOPE, FRAMING};

/// One stream of events; what its client posts comes from an `R`.
#[derive(Debug)]
pub struct SseTransport<R> {
    framing: Framing,
    reader: SseReader<R>,
    writer: SseWriter,
}

impl<R: FrameReader> SseTransport<R> {
    /// Both ends of one stream: what core serves, and the body of the answer.
    ///
    /// With `envelope` the data of an event is the whole message. The client is told to come back
    /// after `retry` when the stream ends. `reader` gives what the client posts; when it gives
    /// `None` the connection ends, so one of which nothing comes must wait for ever.
    pub fn new(envelope: bool, retry: Duration, reader: R) -> (Self, SseBody) {
        let pipe = Pipe::default();
        let framing = if envelope { ENVELOPE } else { FRAMING };
        let transport = Self {
            framing,
            reader: SseReader { posted: reader, pipe: pipe.clone() },
            writer: SseWriter { framing, retry, pipe: pipe.clone() },
        };
        (transport, SseBody::new(retry, pipe))
    }
}

/// What core must know of a stream whose events look so.
pub(crate) fn info(framing: Framing) -> TransportInfo {
    TransportInfo { name: "sse", answers_heartbeats: false, framing }
}

impl<R: FrameReader> Transport for SseTransport<R> {
    type Reader = SseReader<R>;
    type Writer = SseWriter;

    fn info(&self) -> TransportInfo {
        info(self.framing)
    }

    fn split(self) -> (SseReader<R>, SseWriter) {
        (self.reader, self.writer)
    }
}

/// Reads what the client posts, until its stream is gone.
#[derive(Debug)]
pub struct SseReader<R> {
    posted: R,
    pipe: Pipe,
}

impl<R: FrameReader> FrameReader for SseReader<R> {
    fn next(&mut self) -> impl Future<Output = Option<Result<Frame, ReadError>>> + Send {
        let Self { posted, pipe } = self;
        async move {
            let mut posted = pin!(posted.next());
            poll_fn(|cx| match pipe.poll_gone(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => posted.as_mut().poll(cx),
            })
            .await
        }
    }
}

/// Writes events into the body. Dropped, it ends the body after what was written.
#[derive(Debug)]
pub struct SseWriter {
    framing: Framing,
    retry: Duration,
    pipe: Pipe,
}

impl FrameWriter for SseWriter {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        self.pipe.append(frames)
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        poll_fn(|cx| self.pipe.poll_append(cx, frames)).await
    }

    /// Appends the event `close` and waits until the HTTP server has taken all there is.
    async fn close(&mut self, reason: &CloseReason) {
        self.pipe.close(late_close_event(self.framing, self.retry, reason));
        poll_fn(|cx| self.pipe.poll_taken(cx)).await;
    }
}

impl Drop for SseWriter {
    fn drop(&mut self) {
        self.pipe.end();
    }
}
