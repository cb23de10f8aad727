//! One connection of a client, over either transport.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Failure;
use super::event_stream::EventStream;

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `/ws`; the cursor goes into the query.
    WebSocket,
    /// `/events`, as a plain `EventSource` does it; the cursor goes into `Last-Event-ID`.
    EventSource,
}

/// What a client asks for when it connects.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// Its token.
    pub token: &'a str,
    /// The rooms it joins by the URL; names that need no percent escapes.
    pub rooms: &'a [String],
    /// Whether it asks who is in them.
    pub presence: bool,
    /// The newest cursor it has.
    pub cursor: Option<&'a str>,
}

impl Request<'_> {
    pub(super) fn query(&self) -> String {
        let mut query = String::from("?");
        for room in self.rooms {
            query += &format!("room={room}&");
        }
        if self.presence {
            query += "presence=1&";
        }
        if let (Transport::WebSocket, Some(cursor)) = (self.transport, self.cursor) {
            query += &format!("cursor={cursor}");
        }
        query
    }
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `error` also on an event stream.
    pub kind: String,
    /// The cursor beside it.
    pub cursor: Option<String>,
    /// Its payload as JSON text, `null` when there is none.
    pub payload: String,
}

impl Event {
    /// The payload, read as `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(&self.payload)
    }
}

/// What comes next on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Event(Event),
    /// A sign of life without a message.
    Alive,
}

/// How a connection ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// The close code; `None` when the connection was cut without one.
    pub code: Option<u16>,
    /// The reason, or the error of the socket.
    pub reason: String,
    /// How long the server asks to stay away.
    pub reconnect_after: Option<Duration>,
}

impl Ended {
    pub(super) fn cut(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }
}

/// An open connection. Dropping it cuts it.
#[derive(Debug)]
pub enum Connection {
    /// Over WebSocket.
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// Over Server-Sent Events.
    EventSource(Box<EventStream>),
}

impl Connection {
    /// Connects and asks; nothing has been read yet.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn open(request: &Request<'_>) -> Result<Self, Failure> {
        let socket = TcpStream::connect(request.address).await?;
        socket.set_nodelay(true)?;
        match request.transport {
            Transport::WebSocket => {
                let url = format!("ws://{}/ws{}", request.address, request.query());
                let mut upgrade = url.into_client_request()?;
                let bearer = HeaderValue::from_str(&format!("Bearer {}", request.token))?;
                upgrade.headers_mut().insert("authorization", bearer);
                // Small, so that thousands of clients fit in one process.
                let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
                let client =
                    tokio_tungstenite::client_async_with_config(upgrade, socket, Some(config));
                Ok(Self::WebSocket(Box::new(client.await?.0)))
            }
            Transport::EventSource => {
                Ok(Self::EventSource(Box::new(EventStream::open(socket, request).await?)))
            }
        }
    }

    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// [`Ended`] when nothing comes any more.
    pub async fn next(&mut self) -> Result<Incoming, Ended> {
        match self {
            Self::WebSocket(socket) => read_frame(socket.next().await),
            Self::EventSource(stream) => stream.next().await,
        }
    }

    /// Sends a message; an event stream takes none.
    ///
    /// # Errors
    /// [`Ended`] when the connection is lost.
    pub async fn send(&mut self, text: String) -> Result<(), Ended> {
        match self {
            Self::WebSocket(socket) => {
                socket.send(Message::text(text)).await.map_err(|e| Ended::cut(e.to_string()))
            }
            Self::EventSource(_) => Err(Ended::cut("an event stream takes no messages")),
        }
    }
}

fn read_frame(frame: Option<Result<Message, Error>>) -> Result<Incoming, Ended> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(rename = "type")]
        kind: String,
        cursor: Option<String>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    match frame {
        Some(Ok(Message::Text(text))) => {
            let read: Envelope<'_> =
                serde_json::from_str(&text).map_err(|e| Ended::cut(e.to_string()))?;
            let payload = read.payload.map_or("null", RawValue::get).to_owned();
            Ok(Incoming::Event(Event { kind: read.kind, cursor: read.cursor, payload }))
        }
        Some(Ok(Message::Close(Some(close)))) => Err(Ended {
            code: Some(close.code.into()),
            reason: close.reason.to_string(),
            reconnect_after: None,
        }),
        Some(Ok(Message::Close(None))) | None => Err(Ended::cut("the stream ended")),
        Some(Ok(_)) => Ok(Incoming::Alive),
        Some(Err(error)) => Err(Ended::cut(error.to_string())),
    }
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

const READ_BUFFER_BYTES: usize = 4096;
