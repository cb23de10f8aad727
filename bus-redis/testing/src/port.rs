//! Loopback ports that stay ours while a server is down.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port of 127.0.0.1 that no other test takes while this lives.
///
/// The mark is a listener on the same port of 127.0.0.2: the system keeps it for as long as the process lives, so tests
/// in several processes agree, also while the server that owns the port is killed. Ports come from below the range from
/// which systems choose ports of outgoing connections: otherwise a client that tries a dead port may be given it and
/// connect to itself.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _mark: TcpListener,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        for _ in 0..ATTEMPTS {
            let number = LOWEST + (RandomState::new().hash_one(0) % COUNT) as u16;
            let Ok(mark) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), number)) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _mark: mark };
            }
        }
        panic!(
            "no free port from {LOWEST} on: are 127.0.0.1 and 127.0.0.2 addresses of this machine?"
        );
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

const LOWEST: u16 = 12_000;
const COUNT: u64 = 20_000;
const ATTEMPTS: u32 = 1000;
