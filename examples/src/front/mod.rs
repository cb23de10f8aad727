//! What stands in front of nodes, and what clients notice when nodes leave.
//!
//! [`Proxy`] starts one of `examples/proxies` from its own configuration. [`Site`] is two nodes behind one; a
//! [`Load`] of clients and publishers lives on it while its nodes are restarted or killed, and gives an [`Outcome`].

mod deploy;
mod measure;
mod proxy;

pub use deploy::{Load, Outcome, Site};
pub use measure::{attempts, peak, returns, waits};
pub use proxy::{Kind, Proxy, free_address};
