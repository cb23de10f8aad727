//! Laws and models: how a third `Bus`, `Transport` or `Authenticator` is proven like ours.

pub mod bus_laws;
mod bus_node;

#[doc(inline)]
pub use crate::bus_laws;
