//! The one place that reads the time.

#![expect(clippy::disallowed_methods)]

use std::time::{Duration, Instant, SystemTime};

/// One moment, on the calendar for claims and on the steady clock for waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Seconds since 1970.
    pub(crate) unix: u64,
    /// Never goes backwards.
    pub(crate) steady: Instant,
}

/// This moment.
pub(crate) fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now { unix: since_1970.as_ref().map_or(0, Duration::as_secs), steady: Instant::now() }
}
