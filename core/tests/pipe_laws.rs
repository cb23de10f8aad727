//! The connection in memory keeps every law of a transport.

#![cfg(feature = "testing")]

use tidings_core::testing::transport_laws::{Heard, Peer, TransportFixture};
use tidings_core::testing::{MemoryPipe, PipeClient};

struct Fixture;

impl TransportFixture for Fixture {
    type Transport = MemoryPipe;
    type Peer = Client;

    async fn open() -> (MemoryPipe, Client) {
        let (server, pipe) = MemoryPipe::new(1024);
        (server, Client { pipe, told: false })
    }
}

struct Client {
    pipe: PipeClient,
    told: bool,
}

impl Peer for Client {
    async fn send(&mut self, text: String) {
        assert!(self.pipe.send(text).await, "the server listens");
    }

    async fn next(&mut self) -> Heard {
        match self.pipe.next().await {
            Some(text) => Heard::Message(text),
            None if self.told => Heard::End,
            None => {
                self.told = true;
                self.pipe.closed().map_or(Heard::End, |reason| Heard::Closed(reason.code))
            }
        }
    }
}

tidings_core::transport_laws!(Fixture);
