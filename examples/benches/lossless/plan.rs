//! What is to break, and when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use tidings_examples::check::Random;

use crate::Bus;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of a node, which is started again under its name.
    NodeKill,
    /// SIGSTOP of a node, then SIGCONT.
    NodeStop,
    /// SIGKILL of a Redis, which is started again with what it had written; the primary, where there are several.
    RedisKill,
    /// SIGSTOP of a Redis, then SIGCONT; of a primary, where there are several.
    RedisStop,
    /// `CLIENT KILL TYPE pubsub`.
    PubsubKill,
    /// What a node and Redis say to each other vanishes, one way or both.
    HalfOpen,
    /// All connections between a node and Redis are reset.
    Reset,
    /// `FLUSHALL`: all that was kept is lost, and clients must be told.
    Flush,
    /// Redis comes back without the last it took, while each node stays, is cut off or is started again.
    Tail,
    /// A planned failover: `SENTINEL FAILOVER` or `CLUSTER FAILOVER`.
    Failover,
    /// A partition of the cluster moves to another primary.
    MoveSlot,
}

impl Kind {
    /// Those that a run of this bus has when it is not told: on one Redis all that lose nothing of what was kept.
    pub(crate) fn all(bus: Bus) -> Vec<Self> {
        let everywhere =
            [Self::NodeKill, Self::NodeStop, Self::RedisKill, Self::RedisStop, Self::PubsubKill];
        let more: &[Self] = match bus {
            Bus::Memory => return Vec::new(),
            Bus::Redis => &[Self::HalfOpen, Self::Reset],
            // Planned ones come often: nodes learn of them at different times.
            Bus::Sentinel => &[Self::Failover, Self::Failover],
            Bus::Cluster => &[Self::Failover, Self::MoveSlot],
        };
        everywhere.iter().chain(more).copied().collect()
    }

    /// Whether it may lose what was acknowledged, so that a `gap` is right.
    pub(crate) fn may_lose(self) -> bool {
        matches!(self, Self::Flush | Self::Tail)
    }

    fn is_of_a_node(self) -> bool {
        matches!(self, Self::NodeKill | Self::NodeStop | Self::HalfOpen | Self::Reset)
    }
}

/// One step of the plan. A Redis is chosen by a number of which the world makes what it likes, always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    KillNode(usize),
    StartNode(usize),
    StopNode(usize),
    ContinueNode(usize),
    KillRedis(usize),
    StartRedis,
    StopRedis(usize),
    ContinueRedis,
    KillPubsub,
    Swallow(usize, Way),
    Pass(usize),
    Reset(usize),
    Flush,
    /// From now on Redis writes nothing to its disk, although it says so to nobody.
    StopWriting,
    Failover(usize),
    MoveSlot(usize),
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

impl Action {
    /// Whether it breaks something, so that it is left out where there is no time left to mend it.
    pub(crate) fn breaks(self) -> bool {
        !matches!(
            self,
            Self::StartNode(_)
                | Self::ContinueNode(_)
                | Self::StartRedis
                | Self::ContinueRedis
                | Self::Pass(_)
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.3} {:?}", self.at.as_secs_f64(), self.action)
    }
}

/// The steps of a run, in order. Every kind comes once before any comes again; whatever breaks is mended before `end`.
/// Faults of different targets overlap, those of one do not.
pub(crate) fn plan(seed: u64, end: Duration, bus: Bus, nodes: usize, kinds: &[Kind]) -> Vec<Step> {
    let mut random = Random::of(seed, 0);
    let mut steps = Vec::new();
    // Until when each node is at it, and last Redis.
    let mut busy = vec![Duration::ZERO; nodes + 1];
    let mut at = secs(1.0);
    let mut round: Vec<Kind> = Vec::new();
    while !kinds.is_empty() && at < end {
        if round.is_empty() {
            round = kinds.to_vec();
        }
        let kind = round.swap_remove(random.below(round.len()));
        let node = random.below(nodes);
        let targets = match kind {
            Kind::Tail => 0..nodes + 1,
            kind if kind.is_of_a_node() => node..node + 1,
            _ => nodes..nodes + 1,
        };
        let begins = busy[targets.clone()].iter().copied().fold(at, Duration::max);
        let fault = actions(kind, node, nodes, &mut random);
        let lasts = fault.iter().map(|(after, _)| *after).max().unwrap_or_default();
        if begins + lasts <= end {
            let step = |(after, action)| Step { at: begins + after, action };
            steps.extend(fault.into_iter().map(step));
            let rest = if targets.end <= nodes { secs(0.5) } else { rest(bus) };
            busy[targets].fill(begins + lasts + rest);
        }
        at += random.between(&(secs(0.5)..secs(4.0)));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// How long servers take until another fault does not lose both copies: a Sentinel makes a primary that was replaced a
/// replica after about ten seconds.
fn rest(bus: Bus) -> Duration {
    match bus {
        Bus::Memory | Bus::Redis => secs(0.5),
        Bus::Sentinel => secs(10.0),
        Bus::Cluster => secs(4.0),
    }
}

/// How a fault begins and, where it lasts, how it ends, and how long after its beginning.
fn actions(kind: Kind, node: usize, nodes: usize, random: &mut Random) -> Vec<(Duration, Action)> {
    let mut lasts = |from, to| random.between(&(secs(from)..secs(to)));
    let now = Duration::ZERO;
    match kind {
        Kind::NodeKill => {
            vec![(now, Action::KillNode(node)), (lasts(0.5, 5.0), Action::StartNode(node))]
        }
        Kind::NodeStop => {
            vec![(now, Action::StopNode(node)), (lasts(0.5, 8.0), Action::ContinueNode(node))]
        }
        Kind::RedisKill => {
            let lasts = lasts(0.2, 5.0);
            vec![(now, Action::KillRedis(random.below(ANY))), (lasts, Action::StartRedis)]
        }
        Kind::RedisStop => {
            let lasts = lasts(0.5, 8.0);
            vec![(now, Action::StopRedis(random.below(ANY))), (lasts, Action::ContinueRedis)]
        }
        Kind::PubsubKill => vec![(now, Action::KillPubsub)],
        Kind::HalfOpen => {
            let lasts = lasts(2.0, 8.0);
            let way = *random.one_of(&[Way::Both, Way::Requests, Way::Answers]);
            vec![(now, Action::Swallow(node, way)), (lasts, Action::Pass(node))]
        }
        Kind::Reset => vec![(now, Action::Reset(node))],
        Kind::Flush => vec![(now, Action::Flush)],
        Kind::Tail => lose_tail(nodes, random),
        Kind::Failover => vec![(now, Action::Failover(random.below(ANY)))],
        Kind::MoveSlot => vec![(now, Action::MoveSlot(random.below(ANY)))],
    }
}

/// Redis dies some time after its last write. Of the nodes each may have seen what is lost and stay, may have seen it
/// and come back to Redis later than the others, or may be started again and have seen nothing.
fn lose_tail(nodes: usize, random: &mut Random) -> Vec<(Duration, Action)> {
    let dies = random.between(&(secs(0.1)..secs(3.0)));
    let back = dies + random.between(&(secs(0.1)..secs(1.0)));
    let mut steps = vec![
        (Duration::ZERO, Action::StopWriting),
        (dies, Action::KillRedis(0)),
        (back, Action::StartRedis),
    ];
    let all_go = random.once_in(3);
    for node in 0..nodes {
        let later = back + random.between(&(secs(0.0)..secs(4.0)));
        match random.below(3) {
            0 if !all_go => {}
            1 if !all_go => {
                steps.push((dies, Action::Swallow(node, Way::Both)));
                steps.extend([(later, Action::Pass(node)), (later, Action::Reset(node))]);
            }
            _ => steps.extend([(dies, Action::KillNode(node)), (later, Action::StartNode(node))]),
        }
    }
    steps
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Beyond every count that is made of it.
const ANY: usize = 720;
