//! How a connection is cut whose client reads nothing.

use std::sync::Arc;

use tokio::sync::Notify;

/// Cuts the connection of HTTP/1 that a request came by, whatever still waits to be sent there.
///
/// An HTTP server waits for ever for a client that reads nothing, long after core has given it up. So who accepts
/// connections puts one of these among the extensions of each request, waits for [`asked`](Self::asked) beside serving
/// the connection, and then drops it. [`serve`](crate::serve) asks for it when a stream has ended.
#[derive(Debug, Clone, Default)]
pub struct Hangup(Arc<Notify>);

impl Hangup {
    /// Asks for the cut.
    pub fn cut(&self) {
        self.0.notify_one();
    }

    /// Waits until the cut is asked for.
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}
