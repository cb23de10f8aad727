//! Which run of a server it is. Another run of it, like another server, may lack the last of what was answered.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};

use crate::fault::{Failure, Fault};
use crate::url::Address;

/// A server from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    id: Arc<str>,
    /// A later run of it has all that this one answered.
    durable: bool,
}

impl Run {
    /// `durable` is what the configuration says of it.
    pub(crate) fn read(info: &Info, address: &Address, durable: bool) -> Result<Self, Failure> {
        match info.field("run_id") {
            "" if !durable => Err(Failure::new(
                Fault::Other,
                format!(
                    "{address} tells no run_id, so that a restart that lost something would pass unnoticed: say \
                     `durable` where none can"
                ),
            )),
            id => Ok(Self { id: id.into(), durable }),
        }
    }

    /// As the scripts are told it.
    pub(crate) fn text(&self) -> String {
        let mark = if self.durable { "+" } else { "" };
        format!("{}{mark}", self.id)
    }

    /// Whether it is this run that tells so of itself.
    pub(crate) fn is_of(&self, info: &Info) -> bool {
        *self.id == *info.field("run_id")
    }

    /// Whether what another run answered is all here.
    pub(crate) fn has_all_of(&self, other: &Self) -> bool {
        self.id == other.id || self.durable && other.durable
    }
}

/// What a server says of itself.
#[derive(Debug)]
pub(crate) struct Info(String);

impl Info {
    pub(crate) async fn ask(redis: &mut MultiplexedConnection) -> Result<Self, Failure> {
        let answer = redis.send_packed_command(&cmd("INFO")).await;
        Ok(Self::from(&answer.and_then(Value::extract_error)?))
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        let field = |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix(':')?.len());
        let found = self.0.lines().find_map(|line| Some(&line[line.len() - field(line)?..]));
        found.unwrap_or_default().trim()
    }

    /// Whether it has followed another server since it was started, and may lack what that one answered.
    fn has_followed(&self) -> bool {
        self.field("master_replid2").contains(|c| c != '0')
    }
}

impl From<&Value> for Info {
    fn from(value: &Value) -> Self {
        match value {
            Value::BulkString(text) => Self(String::from_utf8_lossy(text).into()),
            Value::VerbatimString { text, .. } => Self(text.clone()),
            _ => Self(String::new()),
        }
    }
}

/// Whether a server that is no stand-in for another writes to its disk before it answers. One that does not say so
/// is taken for one that does not.
pub(crate) async fn is_durable(redis: &mut MultiplexedConnection, info: &Info) -> bool {
    let mut question = cmd("CONFIG");
    question.arg("GET");
    for (name, _) in DURABLE {
        question.arg(name);
    }
    let Ok(Value::Map(settings)) = redis.send_packed_command(&question).await else { return false };
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) => text.clone().into(),
        _ => Vec::new(),
    };
    let settings: Vec<_> = settings.iter().map(|(n, v)| (bytes(n), bytes(v))).collect();
    let says = |(name, value): &(&str, &str)| {
        settings.iter().any(|(n, v)| n == name.as_bytes() && v == value.as_bytes())
    };
    !info.has_followed() && DURABLE.iter().all(says)
}

/// What a server is set to that writes to its disk before it answers.
const DURABLE: [(&str, &str); 3] =
    [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(id: &str, durable: bool) -> Run {
        let info = Info(format!("# Server\r\nrun_id:{id}\r\n"));
        let address = Address::Tcp { host: "h".to_owned(), port: 1 };
        Run::read(&info, &address, durable).expect("it tells its run")
    }

    #[test]
    fn a_later_run_has_all_where_both_lose_nothing() {
        assert!(run("a", false).has_all_of(&run("a", true)), "it is the same run");
        assert!(run("b", true).has_all_of(&run("a", true)));
        assert!(!run("b", true).has_all_of(&run("a", false)), "that one may have lost its tail");
        assert!(!run("b", false).has_all_of(&run("a", true)));
        assert_eq!((run("a", false).text(), run("a", true).text()), ("a".into(), "a+".into()));
    }

    #[test]
    fn a_server_without_a_run_is_refused_unless_it_is_durable() {
        let address = Address::Tcp { host: "h".to_owned(), port: 1 };
        let silent = Info("run_idle:1".to_owned());
        assert!(Run::read(&silent, &address, false).is_err());
        assert!(Run::read(&silent, &address, true).is_ok());
    }

    #[test]
    fn a_promoted_replica_has_followed_another() {
        let followed = |id: &str| Info(format!("master_replid2:{id}\r\n")).has_followed();
        assert!(followed("5ee0") && !followed("0000"));
    }
}
