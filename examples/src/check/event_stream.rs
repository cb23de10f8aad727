//! An event stream over a raw socket, read as a plain `EventSource` reads it.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Failure;
use super::connection::{Ended, Event, Incoming, Request, invalid};

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    socket: TcpStream,
    /// What was read and not yet looked at.
    raw: Vec<u8>,
    /// The body without its chunks, and how much of it has been looked at.
    text: Vec<u8>,
    at: usize,
    chunked: bool,
    /// Bytes of the chunk that are still to come.
    chunk: usize,
    ended: bool,
    event: Event,
    /// What `retry:` said last.
    retry: Option<Duration>,
}

impl EventStream {
    pub(super) async fn open(
        mut socket: TcpStream,
        request: &Request<'_>,
    ) -> Result<Self, Failure> {
        let mut head = format!(
            "GET /events{} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\n",
            request.query(),
            request.address,
            request.token
        );
        if let Some(cursor) = request.cursor {
            head += &format!("Last-Event-ID: {cursor}\r\n");
        }
        head += "\r\n";
        socket.write_all(head.as_bytes()).await?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = find(&raw, b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut raw).await? == 0 {
                return Err(invalid("the answer has no end of its head").into());
            }
        };
        let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
        if head.split(' ').nth(1) != Some("200") {
            return Err(head.lines().next().unwrap_or_default().to_owned().into());
        }
        let chunked = head.contains("transfer-encoding: chunked");
        raw.drain(..end);
        Ok(Self {
            socket,
            raw,
            text: Vec::new(),
            at: 0,
            chunked,
            chunk: 0,
            ended: false,
            event: empty(),
            retry: None,
        })
    }

    /// What comes next. Cancel-safe: what was read is kept in `self`.
    pub(super) async fn next(&mut self) -> Result<Incoming, Ended> {
        loop {
            self.unwrap_chunks()?;
            let mut alive = false;
            while let Some(line) = self.line() {
                if let Some(event) = self.take_line(&line) {
                    return match event.kind.as_str() {
                        "close" => Err(closed(&event, self.retry)),
                        _ => Ok(Incoming::Event(event)),
                    };
                }
                alive |= line.starts_with(':');
            }
            if alive {
                return Ok(Incoming::Alive);
            }
            if self.ended {
                return Err(Ended {
                    reconnect_after: self.retry,
                    ..Ended::cut("the stream ended")
                });
            }
            self.raw.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.raw).await.map_err(|e| Ended::cut(e.to_string()))?
                == 0
            {
                self.ended = true;
            }
        }
    }

    /// Moves what chunks hold from `raw` to `text`.
    fn unwrap_chunks(&mut self) -> Result<(), Ended> {
        if !self.chunked {
            self.text.append(&mut self.raw);
            return Ok(());
        }
        let mut at = 0;
        loop {
            let taken = self.chunk.min(self.raw.len() - at);
            self.text.extend_from_slice(&self.raw[at..at + taken]);
            (at, self.chunk) = (at + taken, self.chunk - taken);
            if self.chunk > 0 {
                break;
            }
            // The line break that ends a chunk stands before the size of the next.
            let skip = if self.raw[at..].starts_with(b"\r\n") { 2 } else { 0 };
            let Some(end) = find(&self.raw[at + skip..], b"\r\n") else { break };
            let size = String::from_utf8_lossy(&self.raw[at + skip..at + skip + end]).into_owned();
            let size = size.split(';').next().unwrap_or_default().trim();
            self.chunk = usize::from_str_radix(size, 16).map_err(|e| Ended::cut(e.to_string()))?;
            at += skip + end + 2;
            if self.chunk == 0 {
                self.ended = true;
                break;
            }
        }
        self.raw.drain(..at);
        Ok(())
    }

    /// The next whole line of the body.
    fn line(&mut self) -> Option<String> {
        let Some(end) = find(&self.text[self.at..], b"\n") else {
            self.text.drain(..self.at);
            self.at = 0;
            return None;
        };
        let line = String::from_utf8_lossy(&self.text[self.at..self.at + end]).into_owned();
        self.at += end + 1;
        Some(line)
    }

    /// Takes one line in; answers the event that it ends.
    fn take_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::replace(&mut self.event, empty());
            return (!event.kind.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "event" if value == "server:error" => "error".clone_into(&mut self.event.kind),
            "event" => value.clone_into(&mut self.event.kind),
            "id" => self.event.cursor = Some(value.to_owned()),
            "data" => self.event.payload += value,
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis),
            _ => {}
        }
        None
    }
}

fn empty() -> Event {
    Event { kind: String::new(), cursor: None, payload: String::new() }
}

fn closed(event: &Event, retry: Option<Duration>) -> Ended {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Close {
        code: u16,
        reason: String,
        reconnect_after_ms: Option<u64>,
    }
    match event.read::<Close>() {
        Ok(close) => Ended {
            code: Some(close.code),
            reason: close.reason,
            reconnect_after: close.reconnect_after_ms.map(Duration::from_millis).or(retry),
        },
        Err(error) => Ended::cut(error.to_string()),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

const READ_BYTES: usize = 2048;
