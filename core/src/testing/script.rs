//! What laws make their scripts of: hostile names, reproducible choices, things at the same time.

use std::future::Future;

use bytes::Bytes;

use crate::{ClientId, Payload, RoomId, TenantId, Topic, UserId};

/// Topics that a careless spelling would take for one another or for a pattern.
pub(super) fn hostile_topics() -> Vec<Topic> {
    let named = |name| TenantId::new(name).expect("it is a name");
    let mut topics = Vec::new();
    for tenant in [TenantId::default(), named("a"), named("*"), named("a:b"), named("(default)")] {
        for name in HOSTILE {
            topics.push(Topic::room(tenant.clone(), RoomId::new(name).expect("it is a name")));
            topics.push(Topic::user(tenant.clone(), user(name)));
        }
        topics.push(Topic::client(tenant.clone(), ClientId::from_bits(0)));
        topics.push(Topic::everyone(tenant));
    }
    topics
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a name of a law is a name")
}

#[expect(clippy::disallowed_methods, reason = "what a law does at once must truly run at once")]
pub(super) fn in_background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

/// Payloads that a bus might take for something of its own, and all that are no text.
pub(super) fn payloads() -> Vec<Option<Payload>> {
    let all: Vec<u8> = (0..=255).collect();
    let big: Vec<u8> =
        (0..1 << 20_u32).map(|n: u32| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let json =
        Payload::json("{ \"a\" : 1.50,\r\n \"a\":[1e3, \"\u{2028}\"] }").expect("it is JSON");
    vec![
        None,
        Some(Payload::Binary(Bytes::new())),
        Some(Payload::Binary(all.into())),
        Some(Payload::Binary(Bytes::from_static(b"\r\n$5\r\n\0"))),
        Some(Payload::Binary(Bytes::from_static(b"{}"))),
        Some(json),
        Some(Payload::Binary(big.into())),
    ]
}

/// Reproducible choices (xorshift64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// Names with a meaning for patterns, separators, hash tags or encodings.
pub(super) const HOSTILE: [&str; 14] = [
    "*",
    "?",
    "a",
    "b",
    "a:b",
    "b:*",
    "{}",
    "{a}",
    " ",
    "a ",
    "[a-z]",
    "ä",
    "a\u{308}",
    "00000000000000000000000000000000",
];
