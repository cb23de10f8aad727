//! Where a server is found.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{PushKind, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::connection::{OnPush, Opener};
use crate::fault::{Failure, Fault};
use crate::sabotage::Protection;
use crate::spawn::{Task, jitter};
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

    /// Has this told whenever another may have taken its place, while the tasks live.
    pub(crate) fn listen(&self, opener: &Arc<Opener>, told: &Arc<Notify>) -> Vec<Task> {
        let Self::Sentinels { addresses, master, login } = self else { return Vec::new() };
        let to = |sentinel: &Address| {
            let (master, login) = (master.clone(), login.clone());
            Task::spawn(listen(opener.clone(), sentinel.clone(), master, login, told.clone()))
        };
        addresses.iter().map(to).collect()
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

/// What the Sentinels that answer soon name: first what was agreed on last, then what most of them name, since one alone
/// may be behind. None is waited for when another has answered, so one that hangs costs little.
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
            Some(Ok(named)) => break named,
            Some(Err(why)) => failure = why,
            None => return Err(failure),
        }
    };
    let mut named = vec![first];
    let others = async {
        while let Some(answer) = asked.next().await {
            let Ok(other) = answer else { continue };
            match named.iter_mut().find(|known| known.address == other.address) {
                Some(known) => {
                    known.votes += 1;
                    known.epoch = known.epoch.max(other.epoch);
                }
                None => named.push(other),
            }
        }
    };
    let patience = if opener.config.lacks(Protection::Late) { Duration::MAX } else { LATE };
    let _ = timeout(patience, others).await;
    named.sort_by_key(|named| Reverse((named.epoch, named.votes)));
    if opener.config.lacks(Protection::OtherAnswers) {
        named.truncate(1);
    }
    Ok(named.into_iter().map(|named| named.address).collect())
}

/// What Sentinels name.
struct Named {
    address: Address,
    /// By which failover it became the primary: of two, the later is true.
    epoch: u64,
    votes: u32,
}

async fn ask_sentinel(
    opener: &Opener,
    sentinel: &Address,
    master: &str,
    login: &Login,
) -> Result<Named, Failure> {
    let mut opened = opener.open_as(sentinel, login, None).await?;
    // First, since an address that is named later may only be newer.
    let epoch = config_epoch(&mut opened.redis, master).await.unwrap_or(0);
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = opened.redis.send_packed_command(&question).await;
    let unknown = || {
        let text = format!("the Sentinel at {sentinel} knows no primary named `{master}`");
        Failure::new(Fault::Other, text)
    };
    match answer.and_then(Value::extract_error)? {
        Value::Array(parts) => {
            match parts.iter().map(text).collect::<Option<Vec<_>>>().as_deref() {
                Some([host, port]) => {
                    let port = port.parse().map_err(|_| unknown())?;
                    let address = Address::Tcp { host: host.clone(), port };
                    Ok(Named { address, epoch, votes: 1 })
                }
                _ => Err(unknown()),
            }
        }
        _ => Err(unknown()),
    }
}

/// `None` where a Sentinel does not tell.
async fn config_epoch(redis: &mut MultiplexedConnection, master: &str) -> Option<u64> {
    let mut question = cmd("SENTINEL");
    question.arg("MASTER").arg(master);
    let Ok(Value::Map(fields)) = redis.send_packed_command(&question).await else { return None };
    let mut fields = fields.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    fields.find(|(name, _)| name == "config-epoch")?.1.parse().ok()
}

/// Tells whenever a Sentinel says that another has become the primary, and when it is heard again.
async fn listen(
    opener: Arc<Opener>,
    sentinel: Address,
    master: String,
    login: Login,
    told: Arc<Notify>,
) {
    let heard = told.clone();
    let on_push: OnPush = Arc::new(move |push| {
        let name = push.data.get(1).and_then(text);
        let is_ours = |said: String| said.split(' ').next() == Some(&master);
        if push.kind == PushKind::Message && name.is_some_and(is_ours) {
            heard.notify_one();
        }
    });
    loop {
        if let Ok(mut opened) = opener.open_as(&sentinel, &login, Some(on_push.clone())).await
            && opened
                .redis
                .send_packed_command(cmd("SUBSCRIBE").arg("+switch-master"))
                .await
                .is_ok()
        {
            told.notify_one();
            opened.driver.await;
        }
        sleep(jitter(opener.config.probe_interval)).await;
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// How long other Sentinels are waited for when one has answered.
const LATE: Duration = Duration::from_millis(200);
