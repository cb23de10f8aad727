//! A transport of one's own: JSON messages over plain TCP, one per line.
//!
//! Run with: cargo run -p tidings-examples --example custom_transport [PORT]
//!
//! Talk to it with `nc 127.0.0.1 8080` and type `{"type":"join:room","payload":{"roomId":"lobby"}}`.
#![expect(clippy::disallowed_methods, reason = "a program may spawn where it likes")]

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, CloseReason, ConnectRequest, Frame, FrameReader, FrameWriter, Framing,
    Hub, Outgoing, ReadError, Transport, TransportInfo, encode_json,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// One TCP connection that takes messages of up to `max_bytes`.
struct Lines {
    stream: TcpStream,
    max_bytes: usize,
}

impl Transport for Lines {
    type Reader = LineReader;
    type Writer = LineWriter;

    fn info(&self) -> TransportInfo {
        // An empty line is the heartbeat. The peer need not answer it.
        let framing = Framing { id: "lines", encode: line, heartbeat: b"\n" };
        TransportInfo { name: "lines", answers_heartbeats: false, framing }
    }

    fn split(self) -> (LineReader, LineWriter) {
        let (read, write) = self.stream.into_split();
        let (read, line) = (BufReader::new(read), Vec::new());
        (LineReader { read, max_bytes: self.max_bytes, line }, LineWriter(write))
    }
}

fn line(message: &Outgoing) -> Bytes {
    let mut line = Vec::new();
    encode_json(message, &mut line);
    line.push(b'\n');
    line.into()
}

struct LineReader {
    read: BufReader<OwnedReadHalf>,
    max_bytes: usize,
    /// What has been read of a line. It is a field, so that a dropped `next` loses nothing.
    line: Vec<u8>,
}

impl FrameReader for LineReader {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        let room = (self.max_bytes + 1 - self.line.len()) as u64;
        let read = (&mut self.read).take(room).read_until(b'\n', &mut self.line).await;
        let Some(text) = self.line.strip_suffix(b"\n") else {
            return match read {
                Err(error) => Some(Err(ReadError::Io(error))),
                Ok(_) if self.line.is_empty() => None,
                Ok(_) if self.line.len() > self.max_bytes => Some(Err(ReadError::TooBig)),
                Ok(_) => Some(Err(ReadError::Protocol("the last line has no end"))),
            };
        };
        let frame = match std::str::from_utf8(text) {
            Err(_) => Err(ReadError::NotUtf8),
            Ok(text) if text.trim().is_empty() => Ok(Frame::Alive),
            Ok(_) => Ok(Frame::Message(Bytes::copy_from_slice(text))),
        };
        self.line.clear();
        Some(frame)
    }
}

struct LineWriter(OwnedWriteHalf);

impl FrameWriter for LineWriter {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        // It may take less than it is offered; the rest is offered again.
        match frames.first().map_or(Ok(0), |first| self.0.try_write(first)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        loop {
            self.0.writable().await?;
            let written = self.try_write(frames)?;
            if written > 0 {
                return Ok(written);
            }
        }
    }

    async fn close(&mut self, reason: &CloseReason) {
        let payload = json!({"code": reason.code, "reason": reason.reason});
        let line = format!("{}\n", json!({"type": "close", "payload": payload}));
        // Whether the peer hears of it or is gone already makes no difference any more.
        let _ = self.0.write_all(line.as_bytes()).await;
        let _ = self.0.shutdown().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).start().await?;
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let transport = Lines { stream, max_bytes: hub.limits().message_bytes };
        let (hub, mut request) = (hub.clone(), ConnectRequest::default());
        request.peer = Some(peer);
        tokio::spawn(async move {
            if let Ok(attachment) = hub.connect(&request, transport.info()).await {
                attachment.serve(transport).await;
            }
        });
    }
}
