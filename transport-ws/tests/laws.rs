//! A WebSocket connection keeps every law of a transport.

use tidings_core::testing::transport_laws::{Heard, Peer, TransportFixture};
use tidings_transport_ws::WsTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

struct Fixture;

impl TransportFixture for Fixture {
    type Transport = WsTransport<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;
    type Peer = Client;

    async fn open() -> (Self::Transport, Client) {
        let (server, client) = tokio::io::duplex(1024);
        let (read, write) = tokio::io::split(server);
        (WsTransport::new(read, write, 64 * 1024), Client(client))
    }
}

struct Client(DuplexStream);

impl Client {
    /// One frame of the server: its first byte and what it carries.
    async fn frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let (first, short) = (self.0.read_u8().await?, self.0.read_u8().await?);
        let length = match short {
            126 => self.0.read_u16().await?.into(),
            127 => self.0.read_u64().await?,
            short => short.into(),
        };
        let mut content = vec![0; usize::try_from(length).expect("it fits into memory")];
        self.0.read_exact(&mut content).await?;
        Ok((first, content))
    }
}

impl Peer for Client {
    /// One text frame, masked by zeros.
    async fn send(&mut self, text: String) {
        let mut frame = vec![0x81];
        match text.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            length @ 126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.into_bytes());
        self.0.write_all(&frame).await.expect("the server listens");
    }

    async fn next(&mut self) -> Heard {
        loop {
            match self.frame().await {
                Err(_) => return Heard::End,
                Ok((0x81, text)) => {
                    return Heard::Message(String::from_utf8(text).expect("text is UTF-8"));
                }
                Ok((0x88, reason)) => {
                    return Heard::Closed(u16::from_be_bytes([reason[0], reason[1]]));
                }
                Ok((first, content)) => assert_eq!((first, content.len()), (0x89, 0), "a ping"),
            }
        }
    }
}

tidings_core::transport_laws!(Fixture);
