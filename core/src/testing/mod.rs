//! Laws and models: how a third `Bus`, `Transport` or `Authenticator` is proven like ours, and a `Hub` on it.

pub mod authenticator_laws;
pub mod bus_laws;
mod bus_node;
pub mod history_laws;
pub mod history_model;
mod history_node;
pub mod hub_laws;
pub mod idempotency_laws;
mod pipe;
pub mod presence_laws;
pub mod router_model;
mod script;
pub mod transport_laws;

pub use pipe::{MemoryPipe, PipeClient, PipeReader, PipeWriter};

#[doc(inline)]
pub use crate::{authenticator_laws, bus_laws, hub_laws, transport_laws};
