//! The URL of a bus: which topology, which servers, who logs in.
//!
//! The errors never repeat the URL: it may hold a password.

use std::fmt;
use std::path::PathBuf;

use crate::spelling::unescape;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What joins the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server, or several that know nothing of each other.
    Servers,
    Sentinel {
        master: String,
        login: Login,
    },
    Cluster,
}

/// Who logs in, and to which database.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u16,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("database", &self.database).finish_non_exhaustive()
    }
}

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) addresses: Vec<Address>,
    pub(crate) login: Login,
    pub(crate) tls: bool,
    /// Whether a restart loses nothing, where the URL says.
    pub(crate) durable: Option<bool>,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(SCHEMES)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if scheme == "redis+unix" || scheme == "unix" {
            return unix(rest, query);
        }
        let (base, tls) = match scheme {
            "redis" | "redis+sentinel" | "redis+cluster" => (scheme, false),
            "rediss" => ("redis", true),
            "rediss+sentinel" => ("redis+sentinel", true),
            "rediss+cluster" => ("redis+cluster", true),
            _ => return Err(SCHEMES.to_owned()),
        };
        let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let sentinel = base == "redis+sentinel";
        let port = if sentinel { SENTINEL_PORT } else { PORT };
        let addresses =
            hosts.split(',').map(|host| address(host, port)).collect::<Result<_, _>>()?;
        let mut login = login(user)?;
        let query = parameters(query)?;
        let mut durable = None;
        let kind = match (base, path) {
            ("redis+sentinel", path) => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                login.database = database_number(database)?;
                sentinel_kind(master, query)?
            }
            ("redis+cluster", "" | "0") if query.is_empty() => Kind::Cluster,
            ("redis+cluster", "" | "0") => {
                return Err("the URL of a Redis Cluster knows no parameters".to_owned());
            }
            ("redis+cluster", _) => return Err("a Redis Cluster has database 0 only".to_owned()),
            (_, database) => {
                login.database = database_number(database)?;
                for (name, value) in query {
                    match name.as_str() {
                        "durable" => durable = Some(flag(&value)?),
                        _ => return Err(format!("a Redis URL knows durable, not `{name}`")),
                    }
                }
                Kind::Servers
            }
        };
        Ok(Self { kind, addresses, login, tls, durable })
    }
}

fn unix(path: &str, query: &str) -> Result<Target, String> {
    let mut login = Login::default();
    let mut durable = None;
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "durable" => durable = Some(flag(&value)?),
            "db" => login.database = database_number(&value)?,
            "user" => login.username = Some(value),
            "password" => login.password = Some(value),
            _ => {
                return Err(format!(
                    "a unix URL knows db, user, password and durable, not `{name}`"
                ));
            }
        }
    }
    let path = unescape(path).ok_or(ESCAPES)?;
    if !path.starts_with('/') {
        return Err("a unix URL holds an absolute path: redis+unix:///run/redis.sock".to_owned());
    }
    let addresses = vec![Address::Unix(path.into())];
    Ok(Target { kind: Kind::Servers, addresses, login, tls: false, durable })
}

fn sentinel_kind(master: &str, query: Vec<(String, String)>) -> Result<Kind, String> {
    let master = unescape(master).ok_or(ESCAPES)?;
    if master.is_empty() {
        return Err("a Sentinel URL ends with the name of the primary: redis+sentinel://host:26379/mymaster".to_owned());
    }
    let mut login = Login::default();
    for (name, value) in query {
        match name.as_str() {
            "sentinel_user" => login.username = Some(value),
            "sentinel_password" => login.password = Some(value),
            _ => {
                return Err(format!(
                    "a Sentinel URL knows sentinel_user and sentinel_password, not `{name}`"
                ));
            }
        }
    }
    Ok(Kind::Sentinel { master, login })
}

fn login(text: &str) -> Result<Login, String> {
    if text.is_empty() {
        return Ok(Login::default());
    }
    let (user, password) = text.split_once(':').map_or((text, None), |(u, p)| (u, Some(p)));
    let read = |text: &str| unescape(text).ok_or(ESCAPES);
    let (username, password) = (read(user)?, password.map(read).transpose()?);
    Ok(Login { username: (!username.is_empty()).then_some(username), password, database: 0 })
}

fn address(text: &str, default_port: u16) -> Result<Address, String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(HOSTS)?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err(HOSTS.to_owned());
    }
    let port = port.map_or(Ok(default_port), str::parse).ok().filter(|port| *port > 0);
    Ok(Address::Tcp { host: host.to_owned(), port: port.ok_or("a port is 1 to 65535")? })
}

fn database_number(text: &str) -> Result<u16, String> {
    match text {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| "the path of a Redis URL is the number of a database".to_owned()),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err("`durable` is 1 or 0".to_owned()),
    }
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let read = |text: &str| unescape(text).ok_or_else(|| ESCAPES.to_owned());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((read(name)?, read(value)?))
        })
        .collect()
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const SCHEMES: &str = "the URL of a Redis bus begins with redis://, redis+sentinel://, redis+cluster://, \
                       rediss:// or redis+unix://";
const HOSTS: &str = "a Redis URL names hosts, as in redis://user:password@host:6379,other:6379";
const ESCAPES: &str = "the URL has a broken percent escape";

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    fn parse(url: &str) -> Target {
        Target::parse(url).expect(url)
    }

    #[test]
    fn each_topology_has_its_url() {
        let one = parse("redis://localhost");
        assert_eq!((one.kind, one.addresses), (Kind::Servers, vec![tcp("localhost", 6379)]));
        let shards = parse("rediss://a,b:1,[::1]:2/3");
        assert_eq!(shards.addresses, [tcp("a", 6379), tcp("b", 1), tcp("::1", 2)]);
        assert!(shards.tls && shards.login.database == 3);
        let sentinel = parse("redis+sentinel://u:p@s1,s2:5/main/2?sentinel_password=x%20y");
        assert_eq!(sentinel.addresses, [tcp("s1", 26379), tcp("s2", 5)]);
        assert_eq!(sentinel.login.database, 2);
        let Kind::Sentinel { master, login } = sentinel.kind else { panic!("a sentinel") };
        assert_eq!((master.as_str(), login.password.as_deref()), ("main", Some("x y")));
        assert_eq!(parse("redis+cluster://a,b").kind, Kind::Cluster);
        let unix = parse("redis+unix:///tmp/r%20s.sock?db=1&password=p");
        assert_eq!(unix.addresses, [Address::Unix("/tmp/r s.sock".into())]);
        assert_eq!((unix.login.database, unix.login.password.as_deref()), (1, Some("p")));
        assert_eq!((unix.durable, parse("redis+unix:///r?durable=0").durable), (None, Some(false)));
        assert_eq!(parse("redis://a,b/3?durable=1").durable, Some(true));
    }

    #[test]
    fn credentials_are_unescaped_and_never_shown() {
        let target = parse("redis://us%40er:p%3Ass%2Fw@h");
        assert_eq!(target.login.username.as_deref(), Some("us@er"));
        assert_eq!(target.login.password.as_deref(), Some("p:ss/w"));
        let shown = format!("{target:?}");
        assert!(!shown.contains("p:ss") && !shown.contains("us@er"), "{shown}");
        assert_eq!(parse("redis://:secret@h").login.username, None);
        assert_eq!(parse("redis://h").login, Login::default());
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        for url in [
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://h:0",
            "redis://h:99999",
            "redis://h:secret",
            "redis://h/secret",
            "redis://h,,i",
            "redis://u:%zz@h",
            "redis+sentinel://h",
            "redis+cluster://h/1",
            "redis+unix://secret",
            "redis://[::1",
            "redis+sentinel://h/m?secret=1",
            "redis+sentinel://h/m?durable=1",
            "redis+cluster://h?durable=1",
            "redis://h?secret=1",
            "redis://h?durable=secret",
        ] {
            let error = Target::parse(url).expect_err(url);
            assert!(!error.contains("%zz") && !error.contains("99999"), "{error}");
        }
    }
}
