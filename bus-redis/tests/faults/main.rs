//! Real servers, real faults. Each test ends with the same assertion, [`Scene::serves_again`](scene::Scene::serves_again):
//! every node serves again without a restart, nothing hangs, and what was published while all was well arrived once and
//! in order. Each protection has a twin that lacks it and must stay broken.

#![expect(clippy::disallowed_methods, reason = "tests have tasks and tell how long things took")]

mod bounds;
mod buses;
mod client;
mod errors;
mod failover;
mod many;
mod network;
mod planned;
mod restart;
mod scene;
mod tail;
mod twins;
