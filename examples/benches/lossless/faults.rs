//! Nodes, Redis, the network between them, and the clients' own connections break at random, and yet again with the
//! same seed.
//!
//! It prints the plan of faults, each as it happens, and what the checker found; it fails when a promise was broken.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_examples::check::{
    Crowd, Failure, Phase, Published, Random, Rules, Topics, Violation, explain, look, presence,
    verdict,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Bus;
use crate::people::{ALL, clients, publish, topics};
use crate::plan::{Kind, Step, plan};
use crate::store::Store;
use crate::world::World;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Decides what breaks, who is where and what is published.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Seconds of faults; the run takes some more to begin and to settle.
    #[arg(long, default_value_t = 90)]
    pub(crate) seconds: u64,
    /// What joins the nodes.
    #[arg(long, value_enum, default_value = "redis")]
    bus: Bus,
    /// How many servers; the memory bus has one.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Clients, half of them on WebSocket and half on event streams; two for each user.
    #[arg(long, default_value_t = 200)]
    pub(crate) clients: usize,
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 500)]
    pub(crate) rate: u64,
    /// What may break, by commas; when not given, all that loses nothing of what was kept.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Option<Vec<Kind>>,
    /// Nothing of the servers breaks.
    #[arg(long, conflicts_with = "faults")]
    no_faults: bool,
    /// Clients do not cut themselves off.
    #[arg(long)]
    pub(crate) no_cuts: bool,
    /// Nobody leaves for good, and nobody asks who is there.
    #[arg(long)]
    pub(crate) no_presence: bool,
    /// A planted fault: clients take for the cursor of each message of a welcome that of the last one.
    #[arg(long)]
    pub(crate) cursor_ahead: bool,
    /// The servers' `--history`.
    #[arg(long, default_value = "20000:600")]
    history: String,
    /// A `gap` breaks no promise.
    #[arg(long)]
    gaps: bool,
    /// The servers' `history_check`, in seconds. What has not come after two of them is lost.
    #[arg(long, default_value_t = 30)]
    check_seconds: u64,
    /// The server is broken on purpose (`TIDINGS_SABOTAGE`), and the checker has to notice one of these, by commas.
    #[arg(long, value_delimiter = ',')]
    caught: Vec<String>,
}

/// Answers whether all promises were kept.
pub(crate) async fn run(args: &Args, server: &Path) -> Result<bool, Failure> {
    let nodes = if args.bus == Bus::Memory { 1 } else { args.nodes };
    let kinds = match &args.faults {
        _ if args.no_faults || args.bus == Bus::Memory => Vec::new(),
        Some(kinds) => kinds.clone(),
        None => Kind::all(args.bus),
    };
    let loses = kinds.iter().any(|kind| kind.may_lose());
    let steps = plan(args.seed, Duration::from_secs(args.seconds), args.bus, nodes, &kinds);
    println!("plan of seed {} for {} s:", args.seed, args.seconds);
    steps.iter().for_each(|step| println!("  {step}"));

    let store = Store::start(args.bus, !loses).await;
    let mut world = World::start_apart(server, store, flags(args), &apart(args, nodes)).await?;
    let topics = topics(args);
    let start = Instant::now();
    let crowd = Crowd::start(clients(args, &topics, &world, start), Phase::Calm);
    crowd.joined(PATIENCE).await?;
    println!("{} clients joined after {:.1} s", args.clients, start.elapsed().as_secs_f64());

    let (stop, stopped) = watch::channel(false);
    let publishers: Vec<_> = (0..ALL)
        .map(|number| publish(number, args, &topics, &world, start, stopped.clone()))
        .collect();
    let begun = Instant::now();
    storm(&crowd, &mut world, &steps, begun + Duration::from_secs(args.seconds)).await?;
    println!("{:7.3} calm", begun.elapsed().as_secs_f64());
    let calm = Instant::now();
    sleep(CALM).await;
    stop.send_replace(true);
    let mut published = Vec::new();
    for publisher in publishers {
        published.extend(publisher.await??);
    }
    println!("{:7.3} {} published", begun.elapsed().as_secs_f64(), published.len());
    let patience = Duration::from_secs(2 * args.check_seconds) + SETTLE;
    let lacking = crowd.settle(&published, patience).await;
    println!("{:7.3} settled, {lacking} clients lack something", begun.elapsed().as_secs_f64());
    let shown =
        if args.no_presence { Vec::new() } else { shown(&crowd, &world, &topics, calm).await? };
    println!("{:7.3} {} wrong in presence", begun.elapsed().as_secs_f64(), shown.len());
    world.check()?;
    let rules = Rules {
        no_gap: matches!(args.bus, Bus::Memory | Bus::Redis) && !args.gaps && !loses,
        forks: match args.bus {
            Bus::Sentinel | Bus::Cluster => Some(LATE),
            Bus::Redis if loses => Some(Duration::ZERO),
            _ => None,
        },
    };
    judged(args, &topics, &published, crowd, shown, rules).await
}

/// Breaks what the plan says, and waits for the nodes that are started again.
async fn storm(
    crowd: &Crowd,
    world: &mut World,
    steps: &[Step],
    end: Instant,
) -> Result<(), Failure> {
    crowd.set(Phase::Stormy);
    let begun = Instant::now();
    for step in steps {
        sleep_until(begun + step.at).await;
        world.check()?;
        if step.action.breaks() && Instant::now() > end {
            continue;
        }
        println!("{:7.3} {:?}", begun.elapsed().as_secs_f64(), step.action);
        world.act(step.action).await?;
    }
    sleep_until(end).await;
    for number in 0..world.addresses.count() {
        world.wait_for(number).await?;
    }
    crowd.set(Phase::Calm);
    Ok(())
}

fn flags(args: &Args) -> Vec<String> {
    let check = format!("history_check={}", args.check_seconds);
    let mut flags: Vec<String> =
        ["--workers", "2", "--heartbeat-seconds", "5", "--limit", &check].map(Into::into).into();
    if !args.history.is_empty() {
        flags.extend(["--history".into(), args.history.clone()]);
    }
    if !args.no_presence {
        flags.extend(["--presence".into(), "*".into()]);
    }
    flags
}

/// How long after one node the next begins: where each looks for itself for another primary, it is at another time.
fn apart(args: &Args, nodes: usize) -> Vec<Duration> {
    let mut random = Random::of(args.seed, APART);
    let longest = match args.bus {
        Bus::Memory | Bus::Redis => Duration::from_millis(1),
        Bus::Sentinel | Bus::Cluster => Duration::from_secs(3),
    };
    (0..nodes).map(|_| random.between(&(Duration::ZERO..longest))).collect()
}

/// What is wrong of what the nodes show, once it is right, or when the time that it may take is over.
async fn shown(
    crowd: &Crowd,
    world: &World,
    topics: &Topics,
    calm: Instant,
) -> Result<Vec<Violation>, Failure> {
    loop {
        let is_last = calm.elapsed() > SHOWN;
        let asked =
            (0..world.addresses.count()).map(|node| look(node, world.addresses.get(node), topics));
        let before = crowd.users();
        let shown: Result<Vec<_>, _> = join_all(asked).await.into_iter().collect();
        match shown {
            Ok(shown) => {
                let wrong = presence(&before, &shown);
                if wrong.is_empty() || is_last {
                    return Ok(wrong);
                }
            }
            Err(failure) if is_last => return Err(failure),
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

async fn judged(
    args: &Args,
    topics: &Topics,
    published: &[Published],
    crowd: Crowd,
    shown: Vec<Violation>,
    rules: Rules,
) -> Result<bool, Failure> {
    let records = crowd.end().await?;
    let mut report = verdict(published, &records, rules);
    report.violations.extend(shown);
    print!("{report}");
    let mut kinds = BTreeSet::new();
    for violation in &report.violations {
        // One of each kind.
        if kinds.insert(violation.kind()) {
            print!("{}", explain(violation, topics, published, &records));
        }
    }
    let verdict = if kinds.is_empty() { "kept".to_owned() } else { format!("BROKEN: {kinds:?}") };
    println!("seed {}: {verdict}", args.seed);
    if args.caught.is_empty() {
        return Ok(kinds.is_empty());
    }
    Ok(args.caught.iter().any(|kind| kinds.contains(kind.as_str())))
}

/// How long it stays calm before publishing ends.
const CALM: Duration = Duration::from_secs(2);
/// How long the beginning may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the end may take beside the looks of the nodes.
const SETTLE: Duration = Duration::from_secs(10);
/// How long after the last fault the `gap` may come of what went into a primary that had been replaced.
const LATE: Duration = Duration::from_secs(10);
/// By when every node shows who is there: within a minute after a node has died, and some seconds for this machine.
const SHOWN: Duration = Duration::from_secs(70);
const PAUSE: Duration = Duration::from_millis(500);
/// The number of the random times of the starts.
const APART: u64 = 20_000;
