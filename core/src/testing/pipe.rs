//! A connection without a network: [`MemoryPipe`] for the hub, [`PipeClient`] for the test.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::{
    CloseReason, Frame, FrameReader, FrameWriter, Framing, Outgoing, ReadError, Transport,
    TransportInfo, encode_json,
};

/// The server's half of a connection in memory. Each message is its length in four bytes, then its JSON.
#[derive(Debug)]
pub struct MemoryPipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl MemoryPipe {
    /// A connection on which at most `capacity` bytes are under way to the client.
    pub fn new(capacity: usize) -> (Self, PipeClient) {
        let (sender, messages) = mpsc::channel(MESSAGES_UNDER_WAY);
        let wire = Arc::new(Wire { capacity: capacity.max(1), ..Wire::default() });
        let writer = PipeWriter(Arc::clone(&wire));
        let reader = PipeReader { messages, wire: Arc::clone(&wire), ended: false };
        (Self { reader, writer }, PipeClient { sender: Some(sender), wire })
    }

    /// What the hub must know of it.
    pub fn info() -> TransportInfo {
        let framing = Framing { id: "memory.json", encode, heartbeat: &[0; HEADER] };
        TransportInfo { name: "memory", answers_heartbeats: false, framing }
    }
}

impl Transport for MemoryPipe {
    type Reader = PipeReader;
    type Writer = PipeWriter;

    fn info(&self) -> TransportInfo {
        Self::info()
    }

    fn split(self) -> (PipeReader, PipeWriter) {
        (self.reader, self.writer)
    }
}

/// The half of a [`MemoryPipe`] that reads.
#[derive(Debug)]
pub struct PipeReader {
    messages: mpsc::Receiver<Bytes>,
    wire: Arc<Wire>,
    ended: bool,
}

impl FrameReader for PipeReader {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        if let Some(text) = self.messages.recv().await {
            return Some(Ok(Frame::Message(text)));
        }
        let lost = self.wire.state().client_gone;
        let first = !std::mem::replace(&mut self.ended, true);
        (first && !lost).then(|| Ok(Frame::Close(CloseReason::NORMAL.code)))
    }
}

/// The half of a [`MemoryPipe`] that writes.
#[derive(Debug)]
pub struct PipeWriter(Arc<Wire>);

impl FrameWriter for PipeWriter {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.client_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let before = state.bytes.len();
        for frame in frames {
            let room = self.0.capacity - state.bytes.len();
            state.bytes.extend_from_slice(&frame[..frame.len().min(room)]);
        }
        self.0.filled.notify_one();
        Ok(state.bytes.len() - before)
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        loop {
            match self.try_write(frames)? {
                0 => self.0.drained.notified().await,
                taken => return Ok(taken),
            }
        }
    }

    async fn close(&mut self, reason: &CloseReason) {
        self.0.state().closed = Some(reason.clone());
        self.0.filled.notify_one();
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.state().server_gone = true;
        self.0.filled.notify_one();
    }
}

/// The client's half of a connection in memory. It reads in [`next`](PipeClient::next) only, so one that
/// is not asked has stopped reading. Dropping it cuts the connection.
#[derive(Debug)]
pub struct PipeClient {
    sender: Option<mpsc::Sender<Bytes>>,
    wire: Arc<Wire>,
}

impl PipeClient {
    /// Sends a message; answers whether the server still listens.
    pub async fn send(&self, text: impl Into<Bytes>) -> bool {
        match &self.sender {
            Some(sender) => sender.send(text.into()).await.is_ok(),
            None => false,
        }
    }

    /// Ends the connection in order, with 1000: nothing more is sent.
    pub fn finish(&mut self) {
        self.sender = None;
    }

    /// The next message as JSON; `None` when the connection has ended. Heartbeats are skipped. Cancel-safe.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            {
                let mut state = self.wire.state();
                if let Some(message) = state.take() {
                    self.wire.drained.notify_one();
                    if message.is_empty() {
                        continue;
                    }
                    return Some(String::from_utf8(message).expect("JSON is UTF-8"));
                }
                if state.bytes.len() == self.wire.capacity {
                    // The message is longer than the wire: its beginning moves on.
                    let part = std::mem::take(&mut state.bytes);
                    state.begun.extend(part);
                    self.wire.drained.notify_one();
                    continue;
                }
                if state.closed.is_some() || state.server_gone {
                    self.sender = None;
                    return None;
                }
            }
            self.wire.filled.notified().await;
        }
    }

    /// What the server said at the end, once it did.
    pub fn closed(&self) -> Option<CloseReason> {
        self.wire.state().closed.clone()
    }
}

impl Drop for PipeClient {
    fn drop(&mut self) {
        self.wire.state().client_gone = true;
        self.wire.drained.notify_one();
    }
}

/// The bytes on their way to the client.
#[derive(Debug, Default)]
struct Wire {
    state: Mutex<State>,
    capacity: usize,
    filled: Notify,
    drained: Notify,
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// What the client already took of a message that is not whole.
    begun: Vec<u8>,
    closed: Option<CloseReason>,
    server_gone: bool,
    client_gone: bool,
}

impl State {
    fn take(&mut self) -> Option<Vec<u8>> {
        let at = |n: usize| self.begun.iter().chain(&self.bytes).nth(n).copied();
        let header = [at(0)?, at(1)?, at(2)?, at(3)?];
        let end = HEADER + u32::from_be_bytes(header) as usize;
        let missing = end.saturating_sub(self.begun.len());
        if missing > self.bytes.len() {
            return None;
        }
        let mut message = std::mem::take(&mut self.begun);
        message.extend(self.bytes.drain(..missing));
        self.begun = message.split_off(end);
        message.drain(..HEADER);
        Some(message)
    }
}

fn encode(message: &Outgoing) -> Bytes {
    let mut frame = vec![0; HEADER];
    encode_json(message, &mut frame);
    let length = u32::try_from(frame.len() - HEADER).expect("a message is shorter than 4 GiB");
    frame[..HEADER].copy_from_slice(&length.to_be_bytes());
    frame.into()
}

const HEADER: usize = 4;
/// Messages of the client that wait for the server.
const MESSAGES_UNDER_WAY: usize = 64;
