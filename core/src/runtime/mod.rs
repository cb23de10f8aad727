//! The engine on tokio: the [`Hub`], its dispatcher, its shards, and the one loop of a connection.

mod clock;
mod command;
mod dispatcher;
mod drain;
mod gate;
mod handler;
mod hub;
mod link;
mod mailbox;
mod observer;
mod outbox;
mod serve;
mod shard;
mod spawn;
mod types;

pub use handler::{Context, Handler, HandlerError, NoHandler, Reply};
pub use hub::{Hub, HubBuilder};
pub use mailbox::{Mailbox, SubmitError};
pub use observer::{Event, Observer, SlowBound};
pub use serve::Attachment;
pub use types::{AttachError, ConnectOptions, PublishError, RoomInfo, StartError, Stats, UserInfo};
