//! What can be set.

use std::time::Duration;

use tidings_core::Origin;

/// Who may ask for an event stream, and what its clients are told.
///
/// ```
/// let mut config = tidings_transport_sse::SseConfig::default();
/// config.allowed_origins.push("https://app.example".parse()?);
/// # Ok::<_, tidings_core::OriginError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseConfig {
    /// Origins whose pages may connect besides those of the same host. Empty by default.
    pub allowed_origins: Vec<Origin>,
    /// The cookie that may hold the token; `wsToken`.
    pub cookie: String,
    /// After what time a client comes back whose stream has ended; 2 s. Each is told one of its own between this and
    /// twice this, so that the clients of a node that died do not come back in step.
    pub retry: Duration,
}

impl Default for SseConfig {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            cookie: "wsToken".to_owned(),
            retry: Duration::from_secs(2),
        }
    }
}
