//! The transport: a byte stream's two halves, one that decodes and one that writes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tidings_core::{
    CloseReason, Frame, FrameReader, FrameWriter, ReadError, Transport, TransportInfo,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::codec::Decoder;
use crate::framing::{FRAMING, close_frame};

/// One WebSocket connection after its handshake, over any byte stream.
///
/// The writing half must send by itself what it has taken: it is flushed only at the end.
pub struct WsTransport<R, W> {
    reader: WsReader<R>,
    writer: WsWriter<W>,
}

impl<R, W> WsTransport<R, W>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    /// A connection that takes messages of up to `max_message_bytes`.
    pub fn new(read: R, write: W, max_message_bytes: usize) -> Self {
        let reader = WsReader {
            io: read,
            decoder: Decoder::new(max_message_bytes),
            frames: VecDeque::new(),
            undecoded: Bytes::new(),
            part: false,
            end: End::Open,
        };
        Self { reader, writer: WsWriter { io: write } }
    }

    /// The same connection with bytes of the peer that were read before it was handed over.
    #[must_use]
    pub fn with_read_ahead(mut self, bytes: &[u8]) -> Self {
        self.reader.feed(bytes);
        self
    }

    #[cfg(test)]
    pub(crate) fn halves(&self) -> (&R, &W) {
        (&self.reader.io, &self.writer.io)
    }
}

impl<R, W> Transport for WsTransport<R, W>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Reader = WsReader<R>;
    type Writer = WsWriter<W>;

    fn info(&self) -> TransportInfo {
        TransportInfo { name: "websocket", answers_heartbeats: true, framing: FRAMING }
    }

    fn split(self) -> (Self::Reader, Self::Writer) {
        (self.reader, self.writer)
    }
}

impl<R, W> fmt::Debug for WsTransport<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsTransport").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// The half of a [`WsTransport`] that reads.
pub struct WsReader<R> {
    io: R,
    decoder: Decoder,
    /// Decoded and not yet asked for.
    frames: VecDeque<Frame>,
    /// Read and not yet decoded.
    undecoded: Bytes,
    /// The last bytes left a message that is not whole, which has not been told.
    part: bool,
    end: End,
}

/// What comes after the last frame.
#[derive(Debug)]
enum End {
    /// It has not been read yet.
    Open,
    /// This error, once.
    Failed(ReadError),
    /// Nothing, but the peer may be in the middle of a message: what it sends is read and dropped, since
    /// a socket that is closed over unread bytes is reset, and the close frame is lost with it.
    Draining,
    /// Nothing.
    Closed,
}

impl<R> WsReader<R> {
    /// Decodes some frames and keeps the rest as it is: a thousand frames fit into a few bytes.
    fn feed(&mut self, bytes: &[u8]) {
        let taken = self.decode(bytes);
        self.undecoded = Bytes::copy_from_slice(&bytes[taken..]);
    }

    /// Decodes some of what was kept.
    fn feed_undecoded(&mut self) {
        let mut bytes = std::mem::take(&mut self.undecoded);
        bytes.advance(self.decode(&bytes));
        if !bytes.is_empty() {
            self.undecoded = bytes;
        }
    }

    /// Answers how many bytes were taken.
    fn decode(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        match self.decoder.feed_some(&mut rest, MAX_FRAMES, &mut self.frames) {
            Err(error) => self.end = End::Failed(error),
            Ok(()) => {
                if let Some(code) = self.decoder.closed() {
                    self.frames.push_back(Frame::Close(code));
                    self.end = End::Closed;
                }
            }
        }
        let open = matches!(self.end, End::Open);
        self.part = open && self.decoder.is_within();
        if open { bytes.len() - rest.len() } else { bytes.len() }
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front();
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
        frame
    }
}

impl<R: AsyncRead + Unpin> WsReader<R> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ReadError>>> {
        loop {
            if let Some(frame) = self.pop() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if std::mem::take(&mut self.part) {
                return Poll::Ready(Some(Ok(Frame::Part)));
            }
            match std::mem::replace(&mut self.end, End::Closed) {
                End::Closed => return Poll::Ready(None),
                End::Failed(error) => {
                    if !matches!(error, ReadError::Io(_)) {
                        self.end = End::Draining;
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                open => self.end = open,
            }
            if self.undecoded.is_empty() {
                ready!(self.poll_fill(cx));
            } else {
                self.feed_undecoded();
            }
        }
    }

    /// Reads once into the thread's buffer and decodes what came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = SCRATCH.take();
        if scratch.is_empty() {
            scratch = vec![0; SCRATCH_BYTES];
        }
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut buffer).map(|read| match read {
            Err(error) => self.end = End::Failed(ReadError::Io(error)),
            Ok(()) if buffer.filled().is_empty() => self.end = End::Closed,
            Ok(()) => self.feed(buffer.filled()),
        });
        SCRATCH.set(scratch);
        polled
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameReader for WsReader<R> {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl<R> fmt::Debug for WsReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsReader")
            .field("frames", &self.frames.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// The half of a [`WsTransport`] that writes.
pub struct WsWriter<W> {
    io: W,
}

impl<W: AsyncWrite + Unpin> WsWriter<W> {
    fn poll_write(&mut self, cx: &mut Context<'_>, frames: &[Bytes]) -> Poll<io::Result<usize>> {
        // The most common case; a plain send costs the kernel less than a vector of one.
        if let [frame] = frames
            && !frame.is_empty()
        {
            return taken(ready!(Pin::new(&mut self.io).poll_write(cx, frame)));
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for (slice, frame) in slices.iter_mut().zip(frames.iter().filter(|f| !f.is_empty())) {
            *slice = IoSlice::new(frame);
            used += 1;
        }
        if used == 0 {
            return Poll::Ready(Ok(0));
        }
        taken(ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..used])))
    }
}

/// A stream that takes nothing of something will never take anything.
fn taken(written: io::Result<usize>) -> Poll<io::Result<usize>> {
    Poll::Ready(match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    })
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameWriter for WsWriter<W> {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        match self.poll_write(&mut Context::from_waker(Waker::noop()), frames) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(0),
        }
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write(cx, frames)).await
    }

    async fn close(&mut self, reason: &CloseReason) {
        // Whether the peer hears of it or is gone already makes no difference any more.
        if self.io.write_all(&close_frame(reason)).await.is_ok() {
            let _ = self.io.shutdown().await;
        }
    }
}

impl<W> fmt::Debug for WsWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WsWriter")
    }
}

thread_local! {
    /// What all connections of a thread are read into; it is away only during a read.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How much one read takes at most.
const SCRATCH_BYTES: usize = 64 * 1024;
/// How many frames are decoded ahead at most.
const MAX_FRAMES: usize = 64;
/// How many frames one write takes at most.
const MAX_SLICES: usize = 64;

#[cfg(test)]
mod tests;
