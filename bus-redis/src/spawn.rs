//! The one place where this crate spawns, reads the clock and draws random numbers.
#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A task that ends when it is dropped. As a future it is ready when the task is over.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub(crate) fn abort(&self) {
        self.0.abort();
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A random number above 0.
pub(crate) fn random() -> u64 {
    loop {
        let number = getrandom::u64().expect("the operating system gives random bytes");
        if number > 0 {
            return number;
        }
    }
}

/// Half of a duration to all of it, so that nodes do not come back all at once.
pub(crate) fn jitter(duration: Duration) -> Duration {
    let share = f64::from((random() >> 40) as u32) / f64::from(1 << 24);
    duration.mul_f64(0.5 + share / 2.0)
}
