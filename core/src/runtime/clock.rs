//! The one place that reads a clock: that of the runtime, which tests may move, and the system's for dates.
#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::sync::LazyLock;
use std::time::{Duration, Instant as RealInstant, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::session::Now;

/// Before every runtime of the process, of which each may have a clock of its own.
static ORIGIN: LazyLock<RealInstant> = LazyLock::new(|| {
    let now = RealInstant::now();
    now.checked_sub(LONG_BEFORE).unwrap_or(now)
});

/// The time for a pure machine. Its date is the system's, but for as much as the runtime's clock was moved.
pub(crate) fn now() -> Now {
    let moved = Instant::now().into_std();
    let real = RealInstant::now();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let unix = unix + moved.saturating_duration_since(real);
    let unix = unix.saturating_sub(real.saturating_duration_since(moved));
    Now { monotonic: monotonic(), unix }
}

/// Since some moment before the node started.
pub(crate) fn monotonic() -> Duration {
    Instant::now().into_std().saturating_duration_since(*ORIGIN)
}

/// A clock that stands is behind the others by no more than this.
const LONG_BEFORE: Duration = Duration::from_secs(3600);
