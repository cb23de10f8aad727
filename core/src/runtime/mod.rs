//! The engine on tokio: the [`Hub`], its dispatcher, its shards, and the one loop of a connection.

mod attach;
mod attendance;
mod attendant;
mod barrier;
mod builder;
mod clock;
mod command;
mod dispatcher;
mod drain;
mod gate;
mod handler;
mod handling;
mod hub;
mod inbox;
mod link;
mod listing;
mod mailbox;
mod observer;
mod operations;
mod outbox;
mod pass;
mod pull;
mod queue;
mod reader;
mod reads;
mod replay;
mod routed;
mod sabotage;
mod serve;
mod shard;
mod slot;
mod spawn;
mod types;
mod up;
mod welcome;
mod wish;

pub use builder::HubBuilder;
pub use gate::Admission;
pub use handler::{Context, Handler, HandlerError, NoHandler, Reply};
pub use hub::Hub;
pub use mailbox::{Mailbox, SubmitError};
pub use observer::{Event, Observer, SlowBound};
pub use serve::Attachment;
pub use types::{
    AttachError, ConnectError, ConnectOptions, DisconnectError, Page, PublishError, RoomInfo,
    StartError, Stats, UserInfo,
};
