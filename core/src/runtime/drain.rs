//! Draining: the node goes away, and its connections leave one after the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clock;
use super::hub::Hub;
use super::inbox::ShardHandle;
use super::shard::Members;
use crate::machines::ConnectionKey;
use crate::{CloseReason, Limits, Outgoing};

/// When each of a number of connections leaves and when it is to come back. Pure; times are since the start.
///
/// They leave evenly over the window. Each is told a delay of its own, from a spread in which the other nodes can
/// take all of them: so they come back evenly too, also when the window is 0 and all leave at once.
#[derive(Debug)]
struct Pace {
    connections: usize,
    window: Duration,
    spread: Duration,
}

impl Pace {
    fn new(connections: usize, window: Duration, limits: &Limits) -> Self {
        let rate = match limits.accept_rate {
            0 => Limits::default().accept_rate,
            rate => rate,
        };
        // Half of what another node takes, which has its own to take besides.
        let needed = Duration::from_secs_f64(connections as f64 * 2.0 / f64::from(rate));
        Self { connections, window, spread: needed.clamp(SHORTEST_SPREAD, LONGEST_SPREAD) }
    }

    fn leaves_at(&self, n: usize) -> Duration {
        self.window.mul_f64(n as f64 / self.connections.max(1) as f64)
    }

    /// The multiples of the golden ratio fill an interval evenly, however many there are, and no two are equal.
    fn reconnect_after(&self, n: usize) -> Duration {
        SHORTEST_DELAY + self.spread.mul_f64((n as f64 * GOLDEN_RATIO).fract())
    }
}

impl Hub {
    /// Ends this node: its connections leave evenly over `window`; returns when they are gone, or `close_deadline` after
    /// the last was told to leave.
    ///
    /// # Behavior
    /// - From the call on [`is_draining`](Self::is_draining); [`admit`](Self::admit) and [`attach`](Self::attach) refuse.
    /// - Each client gets `server:draining` with a delay of its own, all that was for it before, and the close 1012.
    /// - What is published meanwhile reaches those who are still there.
    /// - A client that does not take its last bytes by then is not waited for; it is cut when the process ends, or after
    ///   `write_deadline` and `close_deadline`.
    ///
    /// Dropping the future stops the leaving; [`shutdown`](Self::shutdown) then ends the rest at once.
    pub async fn drain(&self, window: Duration) {
        self.0.draining.store(true, Ordering::Release);
        let start = clock::monotonic();
        let leaving = self.connections().await;
        let pace = Pace::new(leaving.len(), window, self.limits());
        for (n, (shard, key)) in leaving.into_iter().enumerate() {
            let wait = (start + pace.leaves_at(n)).saturating_sub(clock::monotonic());
            if wait > Duration::ZERO {
                tokio::time::sleep(wait).await;
            }
            let delay = pace.reconnect_after(n);
            shard.run(move |members| leave(members, key, delay));
        }
        self.all_gone(self.limits().close_deadline).await;
        self.sign_off().await;
    }

    /// All connections of this node, those of its shards in turn.
    async fn connections(&self) -> Vec<(ShardHandle, ConnectionKey)> {
        let mut all = Vec::new();
        for shard in &self.0.shards {
            let keys = shard.ask(|members| {
                members.router.iter().map(|(key, _)| key).enumerate().collect::<Vec<_>>()
            });
            let keys = keys.await.unwrap_or_default().into_iter();
            all.extend(keys.map(|(place, key)| (place, shard.clone(), key)));
        }
        all.sort_by_key(|(place, ..)| *place);
        all.into_iter().map(|(_, shard, key)| (shard, key)).collect()
    }
}

fn leave(members: &mut Members, key: ConnectionKey, delay: Duration) {
    let Some(slot) = members.router.get(key) else { return };
    slot.send([&Outgoing::draining(delay.as_millis() as u64)]);
    slot.outbox.end(CloseReason::RESTART.with_reconnect_after(delay));
}

/// Few connections come back over a second too: other nodes may be draining.
const SHORTEST_SPREAD: Duration = Duration::from_secs(1);
/// Nobody waits for longer, however many there are: a longer window is better for that many.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);
/// Nobody comes back before its close is done.
const SHORTEST_DELAY: Duration = Duration::from_millis(100);
const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many come back in each tenth of the time in which they come back.
    fn tenths(pace: &Pace) -> Vec<usize> {
        let back = |n| pace.leaves_at(n) + pace.reconnect_after(n);
        let times: Vec<_> = (0..pace.connections).map(back).collect();
        let first = *times.iter().min().expect("there are some");
        let whole = *times.iter().max().expect("there are some") - first;
        let mut tenths = vec![0; 10];
        for at in times {
            let tenth = (at - first).as_secs_f64() / whole.as_secs_f64() * 10.0;
            tenths[(tenth as usize).min(9)] += 1;
        }
        tenths
    }

    #[test]
    fn they_leave_evenly_over_the_window() {
        let pace = Pace::new(200, Duration::from_secs(20), &Limits::default());
        for n in 0..200 {
            assert_eq!(pace.leaves_at(n), Duration::from_millis(100) * n as u32);
        }
        assert_eq!(Pace::new(9, Duration::ZERO, &Limits::default()).leaves_at(8), Duration::ZERO);
    }

    #[test]
    fn each_has_a_delay_of_its_own() {
        let pace = Pace::new(200, Duration::from_secs(20), &Limits::default());
        let mut delays: Vec<_> = (0..200).map(|n| pace.reconnect_after(n).as_micros()).collect();
        delays.sort_unstable();
        delays.dedup();
        assert_eq!(delays.len(), 200);
        assert!(delays.iter().all(|micros| (100_000..1_100_000).contains(micros)), "{delays:?}");
    }

    #[test]
    fn the_spread_grows_with_the_load_and_has_an_end() {
        let spread = |n| Pace::new(n, Duration::ZERO, &Limits::default()).spread;
        assert_eq!(spread(0), SHORTEST_SPREAD);
        assert_eq!(spread(10_000), Duration::from_secs(10));
        assert_eq!(spread(10_000_000), LONGEST_SPREAD);
        let slow = Limits { accept_rate: 200, ..Limits::default() };
        assert_eq!(Pace::new(1000, Duration::ZERO, &slow).spread, Duration::from_secs(10));
    }

    #[test]
    fn they_come_back_at_no_more_than_twice_the_mean_rate() {
        for (connections, window) in [(500, 0), (500, 1), (2000, 2), (2000, 30), (50_000, 30)] {
            let pace = Pace::new(connections, Duration::from_secs(window), &Limits::default());
            let tenths = tenths(&pace);
            assert!(tenths.iter().all(|n| *n <= connections / 5), "{connections}: {tenths:?}");
        }
    }
}
