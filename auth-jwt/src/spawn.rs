//! The one place that spawns.

#![expect(clippy::disallowed_methods)]

use tokio::task::JoinHandle;

/// Runs a future to its end, even when nobody waits for it any more.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}
