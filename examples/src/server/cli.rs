//! The flags of the reference server; each also from `TIDINGS_…` in the environment.

use std::time::Duration;

use clap::Parser;
use tidings_core::{Limits, Origin, Pattern, Retention, TopicOptions, TopicRules};

/// Pushes events to rooms and users over WebSocket and Server-Sent Events.
// It holds secrets, so it has no `Debug`.
#[derive(Clone, Parser)]
#[command(name = "tidings-server", version)]
pub(crate) struct Cli {
    /// Where clients connect.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: std::net::SocketAddr,
    /// What joins nodes: `memory`, or the URL of a Redis (`redis://`, `rediss://`, `redis+sentinel://`,
    /// `redis+cluster://`, several hosts by commas).
    #[arg(long, env = "TIDINGS_BUS", default_value = "memory", hide_env_values = true)]
    pub(crate) bus: String,
    /// The secret of HS256, HS384 and HS512 tokens; without it the server is in demo mode.
    #[arg(long, env = "TIDINGS_JWT_HS256_SECRET", hide_env_values = true)]
    pub(crate) jwt_hs256_secret: Option<String>,
    /// The URL (https, or http on loopback) or the file of a JWK Set whose keys check tokens; read again when a
    /// token names an unknown key, and from time to time.
    #[arg(long, env = "TIDINGS_JWT_JWKS", conflicts_with = "jwt_hs256_secret")]
    pub(crate) jwt_jwks: Option<String>,
    /// A PEM of root certificates: for the URL of the JWK Set they are trusted instead of the public ones.
    #[arg(long, env = "TIDINGS_JWT_ROOTS", requires = "jwt_jwks")]
    pub(crate) jwt_roots: Option<std::path::PathBuf>,
    /// The URL of the JWK Set may be http on any host, on a network where nobody can change what it carries.
    #[arg(long, env = "TIDINGS_JWT_ALLOW_HTTP", conflicts_with = "jwt_roots")]
    pub(crate) jwt_allow_http: bool,
    /// Who must have issued tokens.
    #[arg(long, env = "TIDINGS_JWT_ISSUER")]
    pub(crate) jwt_issuer: Option<String>,
    /// For whom tokens must be.
    #[arg(long, env = "TIDINGS_JWT_AUDIENCE")]
    pub(crate) jwt_audience: Option<String>,
    /// Longest token that is looked at, in bytes.
    #[arg(long, env = "TIDINGS_JWT_MAX_BYTES", default_value_t = 8192)]
    pub(crate) jwt_max_bytes: usize,
    /// The key of `POST /publish`.
    #[arg(long, env = "TIDINGS_PUBLISH_KEY", hide_env_values = true)]
    pub(crate) publish_key: Option<String>,
    /// An origin that may connect besides the server's own, as `https://app.example`; may be repeated.
    #[arg(long, env = "TIDINGS_ALLOW_ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<Origin>,
    /// The cookie that may hold the token.
    #[arg(long, env = "TIDINGS_COOKIE", default_value = "wsToken")]
    pub(crate) cookie: String,
    /// Worker threads; as many as there are processors when not given.
    #[arg(long, env = "TIDINGS_WORKERS")]
    pub(crate) workers: Option<usize>,
    /// The name of this node; random when not given.
    #[arg(long, env = "TIDINGS_NODE_ID")]
    pub(crate) node_id: Option<String>,
    /// Where administrators connect. They are asked for no key, so the server warns when this is not on loopback.
    #[arg(long, env = "TIDINGS_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub(crate) admin_listen: std::net::SocketAddr,
    /// Seconds between two heartbeats.
    #[arg(long, env = "TIDINGS_HEARTBEAT_SECONDS", default_value = "30")]
    pub(crate) heartbeat_seconds: String,
    /// Seconds over which SIGTERM lets connections leave, evenly; 0 ends them all at once.
    #[arg(long, env = "TIDINGS_DRAIN_SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) drain_seconds: Duration,
    /// What is kept of each room and user, as MESSAGES:SECONDS; 0 keeps nothing.
    #[arg(long, env = "TIDINGS_HISTORY", default_value = "256:600", value_parser = history)]
    pub(crate) history: History,
    /// A pattern of rooms that show who is in them, `*` stands for any run of characters; may be repeated.
    #[arg(long, env = "TIDINGS_PRESENCE", value_delimiter = ',')]
    pub(crate) presence: Vec<String>,
    /// A field of `Limits`, as NAME=VALUE; may be repeated.
    #[arg(long, env = "TIDINGS_LIMIT", value_delimiter = ',')]
    pub(crate) limit: Vec<String>,
    /// Write a line for each request and each end of a connection to stderr.
    #[arg(long, env = "TIDINGS_LOG")]
    pub(crate) log: bool,
    /// A token without a `rooms` claim may join every room.
    #[arg(long, env = "TIDINGS_OPEN_ROOMS")]
    pub(crate) open_rooms: bool,
}

impl Cli {
    /// What is kept and shown of which topic.
    pub(crate) fn topics(&self) -> TopicRules {
        let mut options = TopicOptions::default();
        options.retention = self.history.0;
        let mut shown = options.clone();
        shown.presence = true;
        let rules = TopicRules::all(options);
        self.presence.iter().fold(rules, |rules, pattern| {
            rules.rooms(Pattern::new(pattern.as_str()), shown.clone())
        })
    }

    /// The limits that the flags say.
    pub(crate) fn limits(&self) -> Result<Limits, String> {
        let mut limits = Limits::default();
        limits.set("heartbeat", &self.heartbeat_seconds).map_err(|e| e.to_string())?;
        for limit in &self.limit {
            let (name, value) = limit
                .split_once('=')
                .ok_or_else(|| format!("--limit takes NAME=VALUE, not `{limit}`"))?;
            limits.set(name, value).map_err(|e| e.to_string())?;
        }
        Ok(limits)
    }
}

/// What is kept of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History(pub(crate) Option<Retention>);

fn history(text: &str) -> Result<History, String> {
    if text == "0" {
        return Ok(History(None));
    }
    let retention = text.split_once(':').and_then(|(count, age)| {
        let count = count.parse().ok().filter(|&count| count > 0)?;
        let age = age.parse().ok().filter(|&age| age > 0).map(Duration::from_secs)?;
        Some(Retention { count, age })
    });
    retention
        .map(|retention| History(Some(retention)))
        .ok_or("MESSAGES:SECONDS, both above 0, or 0 for nothing".to_owned())
}

/// A number of seconds up to a day; fractions count.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("a number of seconds from 0 to 86400".to_owned())
}
