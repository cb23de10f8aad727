//! What stands between a client and its connection: nothing, or a planted fault.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::connection::{Connection, Ended, Event, Incoming, Request};

/// A connection as its client sees it.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    waiting: VecDeque<Result<Incoming, Ended>>,
}

impl Reader {
    /// Opens a connection. With `cursor_ahead` each message that comes at once has the cursor of the last of them, as
    /// from a server that does not wait until the client has been told.
    pub(super) async fn open(request: &Request<'_>, cursor_ahead: bool) -> Result<Self, Failure> {
        let connection = Connection::open(request).await?;
        let mut reader = Self { connection, waiting: VecDeque::new() };
        if cursor_ahead {
            reader.look_ahead().await;
        }
        Ok(reader)
    }

    async fn look_ahead(&mut self) {
        let until = Instant::now() + AT_ONCE;
        let mut newest = None;
        while let Ok(incoming) = timeout_at(until, self.connection.next()).await {
            let ended = incoming.is_err();
            if let Ok(Incoming::Event(Event { cursor: Some(cursor), .. })) = &incoming {
                newest = Some(cursor.clone());
            }
            self.waiting.push_back(incoming);
            if ended {
                break;
            }
        }
        for incoming in &mut self.waiting {
            if let Ok(Incoming::Event(event)) = incoming {
                event.cursor = event.cursor.take().and(newest.clone());
            }
        }
    }

    /// What comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Incoming, Ended> {
        match self.waiting.pop_front() {
            Some(first) => first,
            None => self.connection.next().await,
        }
    }

    /// Sends a message; an event stream takes none.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Ended> {
        self.connection.send(text).await
    }
}

const AT_ONCE: Duration = Duration::from_millis(200);
