//! Clients that keep a record, publishers that know what was acknowledged, and a checker that compares the two.
//!
//! A run has five parts:
//!
//! 1. [`Node`]s: the built server as processes; [`Addresses`] says where each is reached now.
//! 2. [`Topics`]: the rooms, users and the stream for everyone that the run uses, numbered.
//! 3. [`Client`]s: one task each; they connect over WebSocket or Server-Sent Events, keep the newest cursor, come back
//!    with it, and give a [`ClientRecord`] at the end. A [`Crowd`] runs them, and its [`Phase`] tells all of them when
//!    to stop cutting themselves off and when to end.
//! 4. [`Publisher`]s: they repeat under one idempotency key until each publication is acknowledged, and answer
//!    [`Published`] for each.
//! 5. [`verdict()`]: pure; proves per client and topic that all came in order, each once within a connection, that
//!    nothing is missing that no `gap` covers, and that nothing came that a publisher was told was not done.
//! 6. [`look()`]: who a node shows in the rooms; [`presence()`] compares it with who is there.
//!
//! It makes up no load of its own: the programs in `benches/` and the tests say what is published and what breaks.

mod ahead;
mod client;
mod connection;
mod crowd;
mod event_stream;
mod explain;
mod history;
mod http;
mod node;
mod order;
mod presence;
mod publisher;
mod random;
mod verdict;

pub use client::{Client, Cuts, Leaves, Phase};
pub use connection::{Connection, Ended, Event, Incoming, Request, Transport};
pub use crowd::{Crowd, Progress};
pub use explain::explain;
pub use history::{
    Address, ClientRecord, ConnectionRecord, Fate, MessageId, Published, Seen, TopicId, Topics,
};
pub use http::Http;
pub use node::{Addresses, Node, PUBLISH_KEY, SECRET, token};
pub use presence::{Shown, Users, look, presence};
pub use publisher::{Outbound, Publisher};
pub use random::Random;
pub use verdict::{Report, Rules, Violation, verdict};

/// Why a run could not be carried out.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
