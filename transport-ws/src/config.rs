//! What can be set.

/// What the opening handshake lets through.
///
/// ```
/// let mut config = tidings_transport_ws::WsConfig::default();
/// config.allowed_origins.push("https://app.example".into());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WsConfig {
    /// Origins whose pages may connect besides those of the same host, each as a browser writes
    /// it: `https://app.example`, with the port where it is not the scheme's own. Empty by default.
    pub allowed_origins: Vec<String>,
    /// The cookie that may hold the token; `wsToken`.
    pub cookie: String,
}

impl Default for WsConfig {
    fn default() -> Self {
        Self { allowed_origins: Vec::new(), cookie: "wsToken".to_owned() }
    }
}
