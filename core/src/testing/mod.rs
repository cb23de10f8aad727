//! Laws and models: how a third `Bus`, `Transport` or `Authenticator` is proven like ours.

pub mod bus_laws;
mod bus_node;
mod pipe;
pub mod transport_laws;

pub use pipe::{MemoryPipe, PipeClient, PipeReader, PipeWriter};

#[doc(inline)]
pub use crate::{bus_laws, transport_laws};
