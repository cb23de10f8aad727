//! A token bucket: so much at once, so much per second in the long run.

use std::time::Duration;

/// Pure; time is an argument. A rate of 0 is no limit.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket: `burst`, at least one, and `rate` per second.
    pub(crate) fn new(now: Duration, rate: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: f64::from(rate), burst, tokens: burst, at: now }
    }

    /// Takes one token, when there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}
