//! What is to break, and when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use tidings_examples::check::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of a node, which is started again.
    NodeKill,
    /// SIGSTOP of a node, then SIGCONT.
    NodeStop,
    /// SIGKILL of Redis, which is started again with what it had written.
    RedisKill,
    /// SIGSTOP of Redis, then SIGCONT.
    RedisStop,
    /// `CLIENT KILL TYPE pubsub`.
    PubsubKill,
    /// What a node and Redis say to each other vanishes, one way or both.
    HalfOpen,
    /// All connections between a node and Redis are reset.
    Reset,
    /// `FLUSHALL`: all that was kept is lost, and clients must be told.
    Flush,
}

impl Kind {
    /// Those that lose nothing of what was kept.
    pub(crate) fn lossless() -> Vec<Self> {
        let kinds = Self::value_variants().iter().copied();
        kinds.filter(|kind| *kind != Self::Flush).collect()
    }
}

/// One step of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    KillNode(usize),
    StartNode(usize),
    StopNode(usize),
    ContinueNode(usize),
    KillRedis,
    StartRedis,
    StopRedis,
    ContinueRedis,
    KillPubsub,
    Swallow(usize, Way),
    Pass(usize),
    Reset(usize),
    Flush,
}

/// Which bytes between a node and Redis vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Both,
    Requests,
    Answers,
}

/// An action and when it is due, from the start of the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) action: Action,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.3} {:?}", self.at.as_secs_f64(), self.action)
    }
}

/// The steps of a run, in order. Every kind comes once before any comes again; whatever breaks is mended before `end`.
/// Faults of different targets overlap, those of one do not.
pub(crate) fn plan(seed: u64, end: Duration, nodes: usize, kinds: &[Kind]) -> Vec<Step> {
    let mut random = Random::of(seed, 0);
    let mut steps = Vec::new();
    // Until when each node is at it, and last Redis.
    let mut busy = vec![Duration::ZERO; nodes + 1];
    let mut at = secs(1.0);
    let mut round: Vec<Kind> = Vec::new();
    while !kinds.is_empty() {
        if round.is_empty() {
            round = kinds.to_vec();
        }
        let kind = round.swap_remove(random.below(round.len()));
        let node = random.below(nodes);
        let on_node =
            matches!(kind, Kind::NodeKill | Kind::NodeStop | Kind::HalfOpen | Kind::Reset);
        let target = if on_node { node } else { nodes };
        at = at.max(busy[target]);
        let lasts = random.between(&lasting(kind));
        if at + lasts > end {
            break;
        }
        steps.extend(
            actions(kind, node, &mut random)
                .into_iter()
                .zip([at, at + lasts])
                .map(|(action, at)| Step { at, action }),
        );
        busy[target] = at + lasts + secs(0.5);
        at += random.between(&(secs(0.5)..secs(4.0)));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn lasting(kind: Kind) -> std::ops::Range<Duration> {
    let (from, to) = match kind {
        Kind::NodeKill => (0.5, 5.0),
        Kind::NodeStop | Kind::RedisStop => (0.5, 8.0),
        Kind::RedisKill => (0.2, 5.0),
        Kind::HalfOpen => (2.0, 8.0),
        Kind::PubsubKill | Kind::Reset | Kind::Flush => (0.0, 0.001),
    };
    secs(from)..secs(to)
}

/// How a fault begins and, where it lasts, how it ends.
fn actions(kind: Kind, node: usize, random: &mut Random) -> Vec<Action> {
    match kind {
        Kind::NodeKill => vec![Action::KillNode(node), Action::StartNode(node)],
        Kind::NodeStop => vec![Action::StopNode(node), Action::ContinueNode(node)],
        Kind::RedisKill => vec![Action::KillRedis, Action::StartRedis],
        Kind::RedisStop => vec![Action::StopRedis, Action::ContinueRedis],
        Kind::PubsubKill => vec![Action::KillPubsub],
        Kind::HalfOpen => {
            let way = *random.one_of(&[Way::Both, Way::Requests, Way::Answers]);
            vec![Action::Swallow(node, way), Action::Pass(node)]
        }
        Kind::Reset => vec![Action::Reset(node)],
        Kind::Flush => vec![Action::Flush],
    }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
