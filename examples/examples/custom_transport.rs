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
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// One TCP connection, and how many bytes a message of it may have.
struct Lines(TcpStream, usize);

impl Transport for Lines {
    type Reader = LineReader;
    type Writer = LineWriter;

    fn info(&self) -> TransportInfo {
        // An empty line is the heartbeat. The peer need not answer it.
        let framing = Framing { id: "lines", encode: line, heartbeat: b"\n" };
        TransportInfo { name: "lines", answers_heartbeats: false, framing }
    }

    fn split(self) -> (LineReader, LineWriter) {
        let (read, write) = self.0.into_split();
        let (read, line) = (BufReader::new(read), Vec::new());
        (LineReader { read, max_bytes: self.1, line, failed: false }, LineWriter(write))
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
    failed: bool,
}

impl FrameReader for LineReader {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        if self.failed {
            // What still comes is dropped: a socket closed over unread bytes loses the reason.
            let _ = copy(&mut self.read, &mut sink()).await;
            return None;
        }
        let room = (self.max_bytes + 1 - self.line.len()) as u64;
        let read = (&mut self.read).take(room).read_until(b'\n', &mut self.line).await;
        let frame = match (read, self.line.strip_suffix(b"\n").map(std::str::from_utf8)) {
            (Err(error), _) => Err(ReadError::Io(error)),
            (_, Some(Err(_))) => Err(ReadError::NotUtf8),
            (_, Some(Ok(text))) if text.trim().is_empty() => Ok(Frame::Alive),
            (_, Some(Ok(text))) => Ok(Frame::Message(Bytes::copy_from_slice(text.as_bytes()))),
            (_, None) if self.line.len() > self.max_bytes => Err(ReadError::TooBig),
            (_, None) => return None,
        };
        self.line.clear();
        self.failed = frame.is_err();
        Some(frame)
    }
}

struct LineWriter(OwnedWriteHalf);

impl FrameWriter for LineWriter {
    // Both may take less than they are offered; the rest is offered again.
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        match frames.first().map_or(Ok(0), |first| self.0.try_write(first)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        self.0.write(frames.first().map_or(&[], |first| first)).await
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
        let transport = Lines(stream, hub.limits().message_bytes);
        let mut request = ConnectRequest::default();
        request.peer = Some(peer);
        tokio::spawn(serve(hub.clone(), request, transport));
    }
}

async fn serve(hub: Hub, request: ConnectRequest, transport: Lines) {
    let error = match hub.connect(&request, transport.info()).await {
        Ok(attachment) => return attachment.serve(transport).await,
        Err(error) => error,
    };
    let (mut reader, mut writer) = transport.split();
    let _ = timeout(hub.limits().close_deadline, async {
        writer.close(&error.close_reason()).await;
        while reader.next().await.is_some() {}
    })
    .await;
}
