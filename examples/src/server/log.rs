//! What the server says on stderr: what operators must know, and with `--log` a line for each request and each end of a
//! connection. No line holds a credential.
//!
//! One thread writes. Nothing waits for it: lines that it cannot keep up with are dropped, counted and told.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tidings_core::{Event, ForeignOrigin, Observer, redact_query};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Writes a line, with what could forge another one or steer a terminal escaped.
pub(crate) fn say(line: impl Display) {
    let line = escaped(&line.to_string());
    if WRITER.try_send(Entry::Line(line)).is_err() {
        DROPPED.fetch_add(1, Relaxed);
    }
}

/// Waits a while until what was said is written.
pub(crate) fn end() {
    let (done, is_done) = sync_channel(1);
    if WRITER.try_send(Entry::Mark(done)).is_ok() {
        let _ = is_done.recv_timeout(LAST_LINES);
    }
}

/// Lines that were dropped since the start.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

enum Entry {
    Line(String),
    /// Dropped when all before it is written.
    Mark(SyncSender<()>),
}

static DROPPED: AtomicU64 = AtomicU64::new(0);
static WRITER: LazyLock<SyncSender<Entry>> = LazyLock::new(|| {
    let (writer, entries) = sync_channel(QUEUED_LINES);
    // Without a thread all lines are dropped, and counted.
    let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&entries));
    writer
});

fn write(entries: &Receiver<Entry>) {
    let mut told = 0;
    while let Ok(entry) = entries.recv() {
        let mut line = match entry {
            Entry::Line(line) => line,
            Entry::Mark(done) => {
                drop(done);
                continue;
            }
        };
        let dropped = dropped();
        if dropped > told {
            line =
                format!("tidings-server: {} lines of the log were dropped\n{line}", dropped - told);
        }
        match io::stderr().write_all((line + "\n").as_bytes()) {
            Ok(()) => told = dropped,
            // Whoever read it is gone, or its disk is full: the service goes on.
            Err(_) => drop(DROPPED.fetch_add(1, Relaxed)),
        }
    }
}

fn escaped(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        match c {
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
        if text.len() > LINE_BYTES {
            return text + "…";
        }
    }
    text
}

/// What the hub tells: all of it is counted, and with `--log` the ends of connections are written.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: bool,
}

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        self.metrics.on_event(event);
        match event {
            Event::Closed { transport, reason, lasted, .. } if self.log => {
                let why =
                    reason.map_or("none".to_owned(), |why| format!("{} {}", why.code, why.reason));
                say(format_args!("{transport} closed {why} {}ms", lasted.as_millis()));
            }
            Event::Refused { error } if self.log => {
                say(format_args!("refused {} {error}", error.close_reason().code));
            }
            Event::Authenticated { outcome: Err(error) } if self.log => {
                say(format_args!("auth {error}"));
            }
            Event::LinkLost { partition } => say(format_args!("bus link {partition} lost")),
            _ => {}
        }
    }
}

/// Writes method, path, status and milliseconds of a request.
pub(crate) async fn line(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let target = redact_query(&request.uri().to_string());
    let begun = Instant::now();
    let response = next.run(request).await;
    let foreign = response.extensions().get::<ForeignOrigin>();
    let why = foreign.map(|why| format!(" {why}")).unwrap_or_default();
    let status = response.status().as_u16();
    say(format_args!("{method} {target} {status} {}ms{why}", begun.elapsed().as_millis()));
    response
}

/// Lines that wait for the writer at most; a line more is dropped.
const QUEUED_LINES: usize = 1024;
/// Longest line; the rest of it is left out.
const LINE_BYTES: usize = 4096;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_steers_no_terminal() {
        assert_eq!(escaped("a\nGET /\u{1b}[31m\r\u{9b}é"), "a\\nGET /\\u{1b}[31m\\r\\u{9b}é");
        assert_eq!(escaped(&"x".repeat(LINE_BYTES)).len(), LINE_BYTES);
        assert!(escaped(&"x".repeat(100_000)).len() < LINE_BYTES + 10);
    }
}
