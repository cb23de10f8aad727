//! Where a server is found.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Value, cmd};
use tokio::time::timeout;

use crate::connection::Opener;
use crate::fault::{Failure, Fault};
use crate::sabotage::Protection;
use crate::url::{Address, Login};

/// Where a server is found.
#[derive(Debug)]
pub(crate) enum Place {
    /// Always there, and nothing takes its place.
    Fixed(Address),
    /// Where Sentinels say that the primary is.
    Sentinels { addresses: Vec<Address>, master: String, login: Login },
    /// A node of a cluster.
    Node(Address),
}

impl Place {
    /// Where it may be now, at least one address, the likeliest first.
    pub(crate) async fn find(&self, opener: &Opener) -> Result<Vec<Address>, Failure> {
        match self {
            Self::Fixed(address) | Self::Node(address) => Ok(vec![address.clone()]),
            Self::Sentinels { addresses, master, login } => {
                ask_sentinels(opener, addresses, master, login).await
            }
        }
    }

    /// Whether another server may take its place while it goes on.
    pub(crate) fn may_change(&self) -> bool {
        matches!(self, Self::Sentinels { .. })
    }

    /// Whether nothing is meant to take its place, so that after a restart it is the same server.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) | Self::Node(address) => address.fmt(f),
            Self::Sentinels { master, .. } => write!(f, "the primary `{master}`"),
        }
    }
}

/// What the Sentinels that answer soon name, first what most of them do: one alone may be behind. None is waited for
/// when another has answered, so one that hangs costs little.
async fn ask_sentinels(
    opener: &Opener,
    sentinels: &[Address],
    master: &str,
    login: &Login,
) -> Result<Vec<Address>, Failure> {
    let ask = |sentinel| ask_sentinel(opener, sentinel, master, login);
    let mut asked: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
    let mut failure = Failure::away("there is no Sentinel");
    let first = loop {
        match asked.next().await {
            Some(Ok(address)) => break address,
            Some(Err(why)) => failure = why,
            None => return Err(failure),
        }
    };
    let mut named = vec![(1, first)];
    let others = async {
        while let Some(answer) = asked.next().await {
            let Ok(address) = answer else { continue };
            match named.iter_mut().find(|(_, known)| *known == address) {
                Some((votes, _)) => *votes += 1,
                None => named.push((1, address)),
            }
        }
    };
    let patience = if opener.config.lacks(Protection::Late) { Duration::MAX } else { LATE };
    let _ = timeout(patience, others).await;
    named.sort_by_key(|(votes, _)| Reverse(*votes));
    if opener.config.lacks(Protection::OtherAnswers) {
        named.truncate(1);
    }
    Ok(named.into_iter().map(|(_, address)| address).collect())
}

async fn ask_sentinel(
    opener: &Opener,
    sentinel: &Address,
    master: &str,
    login: &Login,
) -> Result<Address, Failure> {
    let mut opened = opener.open_as(sentinel, login, None).await?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = opened.redis.send_packed_command(&question).await;
    let text = |value: &Value| match value {
        Value::BulkString(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    let unknown = || {
        let text = format!("the Sentinel at {sentinel} knows no primary named `{master}`");
        Failure::new(Fault::Other, text)
    };
    match answer.and_then(Value::extract_error)? {
        Value::Array(parts) => {
            match parts.iter().map(text).collect::<Option<Vec<_>>>().as_deref() {
                Some([host, port]) => {
                    let port = port.parse().map_err(|_| unknown())?;
                    Ok(Address::Tcp { host: host.clone(), port })
                }
                _ => Err(unknown()),
            }
        }
        _ => Err(unknown()),
    }
}

/// How long other Sentinels are waited for when one has answered.
const LATE: Duration = Duration::from_millis(200);
