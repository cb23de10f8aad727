//! The least that a push server can do, to measure Tidings against: one thread, one epoll loop, one room, one ready
//! frame and one write per connection and message. It checks nothing and limits nothing: for benchmarks only.

use std::{error::Error, net::SocketAddr};

use clap::Parser;
use mio::{Events, Interest, Poll, Token, net::TcpListener};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::{PING, PONG, TEXT, Wire, frame};

mod wire;

const LISTENER: Token = Token(usize::MAX);

/// A bare WebSocket broadcaster, the floor of the benchmark.
#[derive(Debug, Parser)]
struct Args {
    /// The port of 127.0.0.1 to listen on.
    #[arg(long)]
    port: u16,
}

/// The connections by their tokens.
#[derive(Debug, Default)]
struct Floor {
    peers: Vec<Option<(Wire, bool)>>,
    free: Vec<usize>,
    joined: Vec<usize>,
}

impl Floor {
    /// Answers what this peer said; false when it has gone.
    fn hear(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let Some((wire, upgraded)) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return true;
        };
        wire.flush();
        let alive = wire.fill(buffer);
        if !*upgraded {
            let Some(head) = wire.head() else { return alive };
            let Some(key) = header(&head, "sec-websocket-key") else { return false };
            let accept = derive_accept_key(key.as_bytes());
            let mut answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .into_bytes();
            answer.extend(frame(TEXT, br#"{"type":"connected"}"#, false));
            wire.send(&answer);
            *upgraded = true;
        }
        let mut ready = Vec::new();
        while let Some((opcode, payload)) = wire.take() {
            if opcode == PING {
                let pong = frame(PONG, payload, false);
                wire.send(&pong);
            } else if opcode == TEXT {
                let text = String::from_utf8_lossy(payload);
                if text.contains("join:room") {
                    wire.send(&frame(TEXT, br#"{"type":"room:joined"}"#, false));
                    self.joined.push(index);
                } else if text.contains("room:message") {
                    let payload = text.split_once(r#""payload":"#).map_or("null}", |(_, p)| p);
                    let said = format!(r#"{{"type":"room:message","room":"r","payload":{payload}"#);
                    ready.push(frame(TEXT, said.as_bytes(), false));
                }
            }
        }
        for bytes in ready {
            for &to in &self.joined {
                if let Some((wire, _)) = &mut self.peers[to] {
                    wire.send(&bytes);
                }
            }
        }
        alive
    }
}

/// The value of a header of an HTTP head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::from(([127, 0, 0, 1], Args::parse().port));
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let index = event.token().0;
            if event.token() != LISTENER {
                if !floor.hear(index, &mut buffer) {
                    floor.joined.retain(|&other| other != index);
                    floor.peers[index] = None;
                    floor.free.push(index);
                }
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                let index = floor.free.pop().unwrap_or_else(|| {
                    floor.peers.push(None);
                    floor.peers.len() - 1
                });
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(index), interest)?;
                floor.peers[index] = Some((Wire::new(stream), false));
            }
        }
    }
}
