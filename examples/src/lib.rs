//! What the tests and the measuring programs of this package share. The servers and examples beside it do not need it.
//!
//! [`check`] drives real servers with clients that keep a record of all they saw, and proves from the records that
//! nothing was lost, swapped or doubled. [`front`] has the proxies in front, and what they make of nodes that leave.
#![expect(
    clippy::disallowed_methods,
    reason = "tests and benchmarks read the clock and spawn where they like"
)]

pub mod check;
pub mod front;
