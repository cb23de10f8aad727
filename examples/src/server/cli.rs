//! The flags of the reference server; each also from `TIDINGS_…` in the environment.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::Parser;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use tidings_core::{Limits, Origin, Pattern, Retention, TopicOptions, TopicRules};

/// Pushes events to rooms and users over WebSocket and Server-Sent Events.
// It holds secrets, so it has no `Debug`.
#[derive(Clone, Parser)]
#[command(name = "tidings-server", version, after_help = limits_help())]
pub(crate) struct Cli {
    /// Where clients connect.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// The address of a proxy in front, which says by `X-Real-IP` where a client is; may be repeated. Clients of a proxy that
    /// is not named here share the limit of its address.
    #[arg(long, env = "TIDINGS_PROXY", value_delimiter = ',', default_value = "127.0.0.1,::1")]
    pub(crate) proxy: Vec<IpAddr>,
    /// What joins nodes: `memory`, or the URL of a Redis (`redis://`, `rediss://`, `redis+sentinel://`,
    /// `redis+cluster://`, several hosts by commas).
    #[arg(long, env = "TIDINGS_BUS", default_value = "memory", hide_env_values = true)]
    pub(crate) bus: String,
    /// The secret of HS256, HS384 and HS512 tokens; without it the server is in demo mode.
    #[arg(long, env = "TIDINGS_JWT_HS256_SECRET", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) jwt_hs256_secret: Option<String>,
    /// The URL (https, or http on loopback) or the file of a JWK Set whose keys check tokens; read again when a
    /// token names an unknown key, and from time to time. Until a URL was read once the server is not ready; a file must
    /// be there at the start.
    #[arg(long, env = "TIDINGS_JWT_JWKS", conflicts_with = "jwt_hs256_secret")]
    pub(crate) jwt_jwks: Option<String>,
    /// A PEM of root certificates: for the URL of the JWK Set they are trusted instead of the public ones.
    #[arg(long, env = "TIDINGS_JWT_ROOTS", requires = "jwt_jwks")]
    pub(crate) jwt_roots: Option<std::path::PathBuf>,
    /// The URL of the JWK Set may be http on any host, on a network where nobody can change what it carries.
    #[arg(long, env = "TIDINGS_JWT_ALLOW_HTTP", conflicts_with = "jwt_roots", value_parser = BoolishValueParser::new())]
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
    #[arg(long, env = "TIDINGS_PUBLISH_KEY", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) publish_key: Option<String>,
    /// An origin that may connect besides the server's own, as `https://app.example`; may be repeated.
    #[arg(long, env = "TIDINGS_ALLOW_ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<Origin>,
    /// The cookie that may hold the token.
    #[arg(long, env = "TIDINGS_COOKIE", default_value = "wsToken")]
    pub(crate) cookie: String,
    /// Worker threads, at most 1024; as many as there are processors when not given.
    #[arg(long, env = "TIDINGS_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// The name of this node; random when not given.
    #[arg(long, env = "TIDINGS_NODE_ID")]
    pub(crate) node_id: Option<String>,
    /// Where administrators connect. They are asked for no key, so the server warns when this is not on loopback.
    #[arg(long, env = "TIDINGS_ADMIN_LISTEN", default_value = "127.0.0.1:8081", value_parser = address)]
    pub(crate) admin_listen: SocketAddr,
    /// A name by which administrators reach their port, besides `localhost` and its address; may be repeated.
    #[arg(long, env = "TIDINGS_ADMIN_HOST", value_delimiter = ',')]
    pub(crate) admin_host: Vec<String>,
    /// Seconds until a connection without a request is closed, once it has sent one; longer than proxies keep theirs.
    #[arg(long, env = "TIDINGS_KEEP_ALIVE_SECONDS", default_value = "90", value_parser = seconds)]
    pub(crate) keep_alive_seconds: Duration,
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
    /// A limit, as NAME=VALUE; may be repeated. The names are below.
    #[arg(long, env = "TIDINGS_LIMIT", value_delimiter = ',')]
    pub(crate) limit: Vec<String>,
    /// Write a line for each request and each end of a connection to stderr.
    #[arg(long, env = "TIDINGS_LOG", value_parser = BoolishValueParser::new())]
    pub(crate) log: bool,
    /// A token without a `rooms` claim may join every room.
    #[arg(long, env = "TIDINGS_OPEN_ROOMS", value_parser = BoolishValueParser::new())]
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

/// The names of the limits, with their defaults, and how variables are read.
fn limits_help() -> String {
    let limits = format!("{:?}", Limits::default());
    let limits = limits.trim_start_matches("Limits { ").trim_end_matches(" }");
    let lines = limits.split(", ").filter_map(|limit| limit.split_once(": "));
    let lines: Vec<_> =
        lines.map(|(name, value)| format!("  {name}={}", value.trim_end_matches('s'))).collect();
    format!(
        "Limits, with their defaults, in bytes, seconds and counts:\n{}\n\nIn the environment a switch is 1, 0, yes, no, true or false. A variable TIDINGS_… that is no flag's, or is empty, is an error.",
        lines.join("\n")
    )
}

/// An address, or a name that has one.
fn address(text: &str) -> Result<SocketAddr, String> {
    let all = text.to_socket_addrs().map(Vec::from_iter).unwrap_or_default();
    let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
    first.filter(|_| !text.starts_with(':')).copied().ok_or_else(|| {
        "HOST:PORT, as 127.0.0.1:8080, localhost:8080, or 0.0.0.0:8080 for all interfaces"
            .to_owned()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_name() {
        let local = address("localhost:8080").expect("it is known");
        assert!(local.ip().is_loopback() && local.port() == 8080);
        assert_eq!(address("[::1]:80").map(|address| address.port()), Ok(80));
        for bad in [":8080", "8080", "localhost", "127.0.0.1:70000", ""] {
            assert!(address(bad).is_err_and(|why| why.contains("0.0.0.0:8080")), "{bad}");
        }
    }

    #[test]
    fn help_names_every_limit_as_it_is_set() {
        let help = limits_help();
        for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
            let (name, value) = line.split_once('=').expect("a name and a value");
            assert_eq!(Limits::default().set(name, value), Ok(()), "{line}");
        }
        assert!(help.contains("\n  write_deadline=10\n") && help.contains("\n  peer_rate=1000\n"));
    }
}
