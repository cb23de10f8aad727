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
        let enough = self.wait(now).is_zero();
        if enough {
            self.spend();
        }
        enough
    }

    /// Returns how long it is until there is a token.
    pub(crate) fn wait(&mut self, now: Duration) -> Duration {
        if self.rate == 0.0 {
            return Duration::ZERO;
        }
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        Duration::from_secs_f64(((1.0 - self.tokens) / self.rate).max(0.0))
    }

    /// Takes one token that need not be there; then it is owed.
    pub(crate) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// Gives back one token that was taken.
    #[cfg(feature = "runtime")]
    pub(crate) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.burst);
    }
}
