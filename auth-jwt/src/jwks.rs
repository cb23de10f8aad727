//! Keys that rotate: read from a source, kept, and read again when a token names an unknown one.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tidings_core::AuthError;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::clock;
use crate::jwk::read_set;
use crate::key::{FORGED, KeySet, NO_KEY, Verdict};
use crate::source::{KeySource, SourceError};
use crate::spawn::spawn;
use crate::token::Signed;

/// When keys are read again. Start from `JwksConfig::default()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwksConfig {
    /// Least time between two reads, so that strangers cannot make the server flood the source; default 30 s.
    /// Until it is over a token of an unknown key is `Unavailable`, so this is also how long a new key may have to wait.
    pub cooldown: Duration,
    /// Age at which the next token has the keys read again, without waiting for it, so that a withdrawn key
    /// ends; default 10 min. It is for a source that does not say how long its keys are fresh.
    pub refresh_after: Duration,
    /// The same for a source that says it: never sooner than this; default 1 min.
    pub refresh_at_soonest: Duration,
    /// And never later than this; default 1 h.
    pub refresh_at_latest: Duration,
    /// Age at which keys are no longer used, when all reads since have failed; default 24 h.
    pub stale_after: Duration,
    /// Longest time that one read may take; default 5 s.
    pub fetch_timeout: Duration,
}

impl Default for JwksConfig {
    fn default() -> Self {
        Self {
            cooldown: Duration::from_secs(30),
            refresh_after: Duration::from_secs(600),
            refresh_at_soonest: Duration::from_secs(60),
            refresh_at_latest: Duration::from_secs(3600),
            stale_after: Duration::from_secs(24 * 3600),
            fetch_timeout: Duration::from_secs(5),
        }
    }
}

impl JwksConfig {
    fn fresh_for(&self, said: Option<Duration>) -> Duration {
        let within = |said: Duration| said.min(self.refresh_at_latest).max(self.refresh_at_soonest);
        said.map_or(self.refresh_after, within)
    }
}

/// The keys of a [`KeySource`], kept between reads. Clones share them.
///
/// They are read when first needed, when a token names a key that is not among them, and when they
/// are old; there is one read at a time. Only a token whose key is unknown waits for it, and all such
/// tokens share it: old keys stay in use while they are read again, and while reads fail, for
/// `stale_after`.
///
/// A token whose key is unknown is [`AuthError::Refused`] only when the keys were read since it came: its client would
/// not come back, and the key may be new. While `cooldown` forbids to look, and when the read fails, it is
/// [`AuthError::Unavailable`]. Claims that are no good have no keys read.
#[derive(Clone)]
pub struct Jwks(Arc<Inner>);

struct Inner {
    source: Arc<dyn KeySource>,
    config: JwksConfig,
    state: RwLock<State>,
    /// Held during a read; whoever waits for it finds the result in `state`.
    reading: Arc<Mutex<()>>,
}

#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// When `keys` were read, and until when they are fresh.
    read_at: Option<Instant>,
    fresh_until: Option<Instant>,
    /// When a read was last begun.
    tried_at: Option<Instant>,
    /// Why the last read failed, if it did.
    failure: Option<String>,
}

impl Jwks {
    /// Keeps the keys of this source; nothing is read yet.
    pub fn new(source: impl KeySource, config: JwksConfig) -> Self {
        let (state, reading) = (RwLock::default(), Arc::default());
        Self(Arc::new(Inner { source: Arc::new(source), config, state, reading }))
    }

    /// Reads the keys now, so that the first client need not wait for them.
    ///
    /// # Errors
    /// Why they could not be read; clients are told to try again until they can.
    pub async fn warm(&self) -> Result<(), SourceError> {
        let guard = self.0.reading.clone().lock_owned().await;
        let _ = spawn(read(self.0.clone(), clock::now().steady, guard)).await;
        self.0.state().failure.map_or(Ok(()), |why| Err(SourceError(why)))
    }

    /// Returns how long ago the keys were read; `None` when they never were.
    pub fn age(&self) -> Option<Duration> {
        let read_at = self.0.state().read_at?;
        Some(clock::now().steady.saturating_duration_since(read_at))
    }

    /// Checks a token with the keys as they are or, when none of them is known to be its key, as they are read now.
    pub(crate) async fn verify(&self, token: &Signed<'_>, now: Instant) -> Result<(), AuthError> {
        let inner = &self.0;
        if let Some(answer) = inner.judge(token, now) {
            if !inner.state().is_fresh(now)
                && let Ok(guard) = inner.reading.clone().try_lock_owned()
                && inner.may_read(now)
            {
                drop(spawn(read(inner.clone(), now, guard)));
            }
            return answer;
        }
        let guard = inner.reading.clone().lock_owned().await;
        if let Some(answer) = inner.judge(token, now) {
            return answer;
        }
        if inner.may_read(now) {
            // A task of its own, so that a client that goes away cannot undo the read for the others.
            let _ = spawn(read(inner.clone(), now, guard)).await;
        }
        inner.judge(token, now).unwrap_or_else(|| Err(inner.unknown(now)))
    }
}

impl Inner {
    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the keys that may be used say of a token; nothing when none of them is known to be its key.
    fn judge(&self, token: &Signed<'_>, now: Instant) -> Option<Result<(), AuthError>> {
        let state = self.state();
        let young = |read_at| now.saturating_duration_since(read_at) < self.config.stale_after;
        if !state.is_fresh(now) && !state.read_at.is_some_and(young) {
            return None;
        }
        match state.keys?.judge(token) {
            Verdict::Good => Some(Ok(())),
            Verdict::Forged => Some(Err(AuthError::Refused(FORGED.into()))),
            Verdict::Unknown => None,
        }
    }

    /// Whether the cooldown is over; asked by who holds `reading`.
    fn may_read(&self, now: Instant) -> bool {
        // Who waited for `reading` carries a time before the read that has just ended: that counts as no time.
        let rested = |tried| now.saturating_duration_since(tried) >= self.config.cooldown;
        self.state().tried_at.is_none_or(rested)
    }

    /// Why a token that came at `now` is not taken, of which no key is known.
    fn unknown(&self, now: Instant) -> AuthError {
        let state = self.state();
        match state.failure {
            Some(why) => AuthError::Unavailable(why),
            None if state.tried_at.is_some_and(|tried| tried >= now) => {
                AuthError::Refused(NO_KEY.into())
            }
            // The keys that are here may have been read before the key was published.
            None => AuthError::Unavailable(format!("{NO_KEY}, and the cooldown forbids to look")),
        }
    }
}

impl State {
    fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| now < until)
    }
}

/// Reads the source once; the guard ends with it.
async fn read(inner: Arc<Inner>, now: Instant, _guard: OwnedMutexGuard<()>) {
    // Should the source panic, this is what stays behind.
    inner.change(|state| {
        state.tried_at = Some(now);
        state.failure = Some("the key source broke off".into());
    });
    let fetched = tokio::time::timeout(inner.config.fetch_timeout, inner.source.fetch()).await;
    let keys = match fetched {
        Ok(Ok(document)) => {
            let fresh_for = inner.config.fresh_for(document.fresh_for);
            read_set(&document.text).map(|keys| (keys, fresh_for)).map_err(|e| e.to_string())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the key source takes too long".into()),
    };
    inner.change(|state| match keys {
        Ok((keys, fresh_for)) => {
            (state.keys, state.read_at) = (Some(Arc::new(keys)), Some(now));
            (state.fresh_until, state.failure) = (Some(now + fresh_for), None);
        }
        Err(why) => state.failure = Some(why),
    });
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { source, config, .. } = &*self.0;
        f.debug_struct("Jwks").field("source", source).field("config", config).finish()
    }
}
