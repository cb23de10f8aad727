//! The one place that reads a clock.
#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::session::Now;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time for a pure machine.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { monotonic: monotonic(), unix }
}

/// Since the first time that anybody asked.
pub(crate) fn monotonic() -> Duration {
    START.elapsed()
}
