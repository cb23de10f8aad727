//! What can be set.

use tidings_core::Origin;

/// What the opening handshake lets through.
///
/// ```
/// let mut config = tidings_transport_ws::WsConfig::default();
/// config.allowed_origins.push("https://app.example".parse()?);
/// # Ok::<_, tidings_core::OriginError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WsConfig {
    /// Origins whose pages may connect besides those of the same host. Empty by default.
    pub allowed_origins: Vec<Origin>,
    /// The cookie that may hold the token; `wsToken`.
    pub cookie: String,
}

impl Default for WsConfig {
    fn default() -> Self {
        Self { allowed_origins: Vec::new(), cookie: "wsToken".to_owned() }
    }
}
