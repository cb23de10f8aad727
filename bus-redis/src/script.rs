//! The scripts that run inside Redis, each one atomic step.

use std::sync::LazyLock;

use redis::Cmd;

use crate::partition::Question;

/// A script and its hash.
#[derive(Debug)]
pub(crate) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        Self { hash: redis::Script::new(&text).get_hash().to_owned(), text }
    }

    pub(crate) fn by_hash(&self, question: &Question) -> Cmd {
        command("EVALSHA", &self.hash, question)
    }

    pub(crate) fn by_text(&self, question: &Question) -> Cmd {
        command("EVAL", &self.text, question)
    }

    pub(crate) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(&self.text);
        command
    }
}

fn command(name: &str, script: &str, Question { keys, arguments }: &Question) -> Cmd {
    let bytes: usize = arguments.iter().map(|a| a.len() + 16).sum();
    let mut command = Cmd::with_capacity(3 + keys.len() + arguments.len(), bytes + 64);
    command.arg(name).arg(script).arg(keys.len());
    for key in keys {
        command.arg(key);
    }
    for argument in arguments {
        command.arg(argument);
    }
    command
}

/// Has a full Redis take what a script writes, where that is little and bounded. It must be the first line.
const ROOMY: &str = "#!lua flags=allow-oom\n";
const LEASE: &str = include_str!("scripts/lease.lua");
const PARTITION: &str = include_str!("scripts/partition.lua");

macro_rules! scripts {
    ($($name:ident = $($part:expr),+;)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$($part),+]));)*
    };
}

scripts! {
    PUBLISH = PARTITION, include_str!("scripts/publish.lua");
    ARRIVE = ROOMY, PARTITION, include_str!("scripts/arrive.lua");
    PROBE = ROOMY, PARTITION, include_str!("scripts/probe.lua");
    TOPS = ROOMY, PARTITION, include_str!("scripts/tops.lua");
    AFTER = ROOMY, PARTITION, include_str!("scripts/after.lua");
    SECRET = ROOMY, include_str!("scripts/secret.lua");
    CLAIM = ROOMY, LEASE, include_str!("scripts/claim.lua");
    RENEW = ROOMY, LEASE, include_str!("scripts/renew.lua");
    LAPSED = LEASE, include_str!("scripts/lapsed.lua");
    REAP = ROOMY, LEASE, include_str!("scripts/reap.lua");
}
