//! What can be set.

/// What the opening handshake lets through.
///
/// ```
/// let mut config = tidings_transport_ws::WsConfig::default();
/// config.allowed_origins.push("https://app.example".into());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WsConfig {
    /// Origins whose pages may connect besides those of the same host, each as a browser writes
    /// it: `https://app.example`, with the port where it is not the scheme's own. Empty by default.
    pub allowed_origins: Vec<String>,
}
