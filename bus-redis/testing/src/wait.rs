//! Waiting for events, never for a time.

use std::io::Write;
use std::time::Duration;

/// How long a test waits for what must come; far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for an answer; panics, naming it, when it does not come within [`PATIENCE`].
pub async fn in_time<T>(what: &str, answer: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Prints a line that is seen also when the test passes.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads it: that is no reason for a test to fail.
    let _ = writeln!(out, "{line}");
}

/// Asks again and again until the answer is yes; panics, naming it, when that takes longer than [`PATIENCE`].
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    in_time(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
