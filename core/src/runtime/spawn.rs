//! The one place that spawns tasks and draws random numbers.
#![expect(clippy::disallowed_methods, reason = "this is where tasks are spawned")]

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::ClientId;

/// Runs a future on the current tokio runtime until it ends.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// The same for a future on which others depend: when it panics, `panicked` is called.
pub(crate) fn supervise(
    future: impl Future<Output = ()> + Send + 'static,
    panicked: impl FnOnce() + Send + 'static,
) {
    tokio::spawn(async move {
        let ended = AssertUnwindSafe(future).catch_unwind().await;
        if ended.is_err() {
            panicked();
        }
    });
}

/// A new client id, unguessable.
pub(crate) fn client_id() -> ClientId {
    ClientId::from_bits(u128::from_le_bytes(random()))
}

/// A time between half of `time` and all of it, so that nodes do not come back in step.
pub(crate) fn jitter(time: Duration) -> Duration {
    time.mul_f64(0.5 + f64::from(u16::from_le_bytes(random())) / f64::from(u16::MAX) / 2.0)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
