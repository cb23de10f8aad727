//! A stream of events, with what its client posts, keeps every law of a transport.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tidings_core::testing::transport_laws::{Heard, Peer, TransportFixture};
use tidings_core::{Frame, FrameReader, ReadError};
use tidings_transport_sse::{SseBody, SseTransport};
use tokio::sync::mpsc;

struct Fixture;

impl TransportFixture for Fixture {
    type Transport = SseTransport<Posts>;
    type Peer = Client;

    async fn open() -> (Self::Transport, Client) {
        let (posts, posted) = mpsc::channel(4);
        // Whole messages, so that the laws see their types.
        let (transport, body) = SseTransport::new(true, Duration::from_secs(1), Posts(posted));
        (transport, Client { posts, body, text: String::new() })
    }
}

struct Posts(mpsc::Receiver<Bytes>);

impl FrameReader for Posts {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        match self.0.recv().await {
            Some(text) => Some(Ok(Frame::Message(text))),
            None => std::future::pending().await,
        }
    }
}

struct Client {
    posts: mpsc::Sender<Bytes>,
    body: SseBody,
    text: String,
}

impl Client {
    /// The next block of lines.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let Ok(frame) = self.body.frame().await?;
            let chunk = frame.into_data().expect("a body of data");
            // All that the laws say is ASCII, so a chunk ends at a character.
            self.text += std::str::from_utf8(&chunk).expect("events are UTF-8");
        }
    }
}

impl Peer for Client {
    async fn send(&mut self, text: String) {
        self.posts.send(text.into()).await.expect("the server listens");
    }

    async fn next(&mut self) -> Heard {
        while let Some(block) = self.block().await {
            let field = |name| block.lines().find_map(|line: &str| line.strip_prefix(name));
            match (field("event: "), field("data: ")) {
                (Some("close"), Some(message)) => {
                    let message: serde_json::Value =
                        serde_json::from_str(message).expect("a message is JSON");
                    let code = message["payload"]["code"]
                        .as_u64()
                        .and_then(|code| u16::try_from(code).ok());
                    return Heard::Closed(code.expect("a code"));
                }
                (Some(_), Some(message)) => return Heard::Message(message.to_owned()),
                _ => assert!(block.starts_with("retry: ") || block == ": ping\n\n", "{block}"),
            }
        }
        Heard::End
    }
}

tidings_core::transport_laws!(Fixture);
