//! Nodes, Redis, the network between them, and the clients' own connections break at random, and yet again with the
//! same seed.
//!
//! It prints the plan of faults, each as it happens, and what the checker found; it fails when a promise was broken.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidings_examples::check::{
    Address, Client, Crowd, Cuts, Failure, Outbound, Phase, Progress, Published, Publisher, Random,
    Rules, TopicId, Topics, Transport, explain, token, verdict,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::Bus;
use crate::plan::{Kind, plan};
use crate::world::World;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Decides what breaks, who is where and what is published.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of faults; the run takes some more to begin and to settle.
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// What joins the nodes.
    #[arg(long, value_enum, default_value = "redis")]
    bus: Bus,
    /// How many servers; the memory bus has one.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Clients, half of them on WebSocket and half on event streams; two for each user.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    #[arg(long, default_value_t = 20)]
    rooms: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// What may break, by commas; when not given, all that loses nothing of what was kept.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Option<Vec<Kind>>,
    /// Nothing of the servers breaks.
    #[arg(long, conflicts_with = "faults")]
    no_faults: bool,
    /// Clients do not cut themselves off.
    #[arg(long)]
    no_cuts: bool,
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
    let redis = args.bus == Bus::Redis;
    let nodes = if redis { args.nodes } else { 1 };
    let kinds = match &args.faults {
        _ if args.no_faults || !redis => Vec::new(),
        Some(kinds) => kinds.clone(),
        None => Kind::lossless(),
    };
    let steps = plan(args.seed, Duration::from_secs(args.seconds), nodes, &kinds);
    println!("plan of seed {} for {} s:", args.seed, args.seconds);
    steps.iter().for_each(|step| println!("  {step}"));

    let check = format!("history_check={}", args.check_seconds);
    let mut flags: Vec<String> =
        ["--workers", "2", "--heartbeat-seconds", "5", "--limit", &check].map(Into::into).into();
    if !args.history.is_empty() {
        flags.extend(["--history".into(), args.history.clone()]);
    }
    let mut world = World::start(server, redis, nodes, flags).await?;
    let topics = topics(args);
    let start = Instant::now();
    let crowd = Crowd::start(clients(args, &topics, &world, start), Phase::Calm);
    crowd.joined(PATIENCE).await?;
    println!("{} clients joined after {:.1} s", args.clients, start.elapsed().as_secs_f64());

    let (stop, stopped) = watch::channel(false);
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| publish(number, args, &topics, &world, start, stopped.clone()))
        .collect();
    crowd.set(Phase::Stormy);
    let begun = Instant::now();
    for step in &steps {
        sleep_until(begun + step.at).await;
        world.check()?;
        println!("{:7.3} {:?}", begun.elapsed().as_secs_f64(), step.action);
        world.act(step.action).await?;
    }
    sleep_until(begun + Duration::from_secs(args.seconds)).await;
    for number in 0..nodes {
        world.wait_for(number).await?;
    }
    crowd.set(Phase::Calm);
    println!("{:7.3} calm", begun.elapsed().as_secs_f64());
    tokio::time::sleep(CALM).await;
    stop.send_replace(true);
    let mut published = Vec::new();
    for publisher in publishers {
        published.extend(publisher.await??);
    }
    println!("{:7.3} {} published", begun.elapsed().as_secs_f64(), published.len());
    let patience = Duration::from_secs(2 * args.check_seconds) + SETTLE;
    let lacking = crowd.settle(&published, patience).await;
    println!("{:7.3} settled, {lacking} clients lack something", begun.elapsed().as_secs_f64());
    world.check()?;
    let records = crowd.end().await?;
    let report = verdict(
        &published,
        &records,
        Rules { no_gap: !args.gaps && !kinds.contains(&Kind::Flush) },
    );
    print!("{report}");
    let mut kinds = BTreeSet::new();
    for violation in &report.violations {
        // One of each kind.
        if kinds.insert(violation.kind()) {
            print!("{}", explain(violation, &topics, &published, &records));
        }
    }
    let verdict = if kinds.is_empty() { "kept".to_owned() } else { format!("BROKEN: {kinds:?}") };
    println!("seed {}: {verdict}", args.seed);
    if args.caught.is_empty() {
        return Ok(kinds.is_empty());
    }
    Ok(args.caught.iter().any(|kind| kinds.contains(kind.as_str())))
}

fn topics(args: &Args) -> Arc<Topics> {
    let rooms = (0..args.rooms).map(|room| Address::Room(format!("r{room}")));
    let users = (0..args.clients.div_ceil(2)).map(|user| Address::User(format!("u{user}")));
    Topics::new(rooms.chain(users).chain([Address::Everyone]))
}

fn clients(args: &Args, topics: &Arc<Topics>, world: &World, start: Instant) -> Vec<Client> {
    let cuts = Cuts {
        every: Duration::from_millis(200)..Duration::from_secs(25),
        away: Duration::ZERO..Duration::from_secs(20),
    };
    let client = |number: usize| {
        let user = format!("u{}", number / 2);
        let transport = [Transport::WebSocket, Transport::EventSource][number % 2];
        let mut random = Random::of(args.seed, number as u64 + 1);
        let first = random.below(args.rooms);
        // Some of either kind are everywhere.
        let count = if number % 20 < 2 { args.rooms } else { ROOMS_OF_A_CLIENT.min(args.rooms) };
        let mut rooms: Vec<_> =
            (0..count).map(|n| format!("r{}", (first + n * 7) % args.rooms)).collect();
        rooms.sort();
        rooms.dedup();
        let joins_late = transport == Transport::WebSocket && random.once_in(2);
        let late_room = rooms.pop_if(|_| joins_late);
        Client {
            name: format!("client {number} ({transport:?})"),
            token: token(&user, &json!({})),
            user,
            transport,
            rooms,
            late_room,
            topics: topics.clone(),
            addresses: world.addresses.clone(),
            cuts: (!args.no_cuts).then(|| cuts.clone()),
            start,
            random,
            progress: Progress::default(),
        }
    };
    (0..args.clients).map(client).collect()
}

/// Publishes at its part of the rate until it is stopped. Each batch goes to four rooms and a user, or now and then to
/// everyone; some of it is not for the user it is about.
fn publish(
    number: u16,
    args: &Args,
    topics: &Arc<Topics>,
    world: &World,
    start: Instant,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<Result<Vec<Published>, Failure>> {
    let mut publisher =
        Publisher::new(number, topics.clone(), world.addresses.clone(), start, args.seed);
    let mut random = Random::of(args.seed, u64::from(number) + 10_000);
    let every = Duration::from_micros(1_000_000 * BATCH * u64::from(PUBLISHERS) / args.rate.max(1));
    let (rooms, users) = (args.rooms, args.clients.div_ceil(2));
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut published = Vec::new();
        while !*stopped.borrow() {
            ticks.tick().await;
            let user = random.below(users);
            let to_everyone = random.once_in(50);
            let own = TopicId((rooms + if to_everyone { users } else { user }) as u32);
            let mut batch = vec![Outbound { topic: own, except: None }];
            let (first, step) = (random.below(rooms), 1 + random.below(3));
            for n in 0..(BATCH as usize - 1).min(rooms / 3) {
                let topic = TopicId(((first + n * step) % rooms) as u32);
                let except = random.once_in(10).then(|| format!("u{user}").into());
                batch.push(Outbound { topic, except });
            }
            published.extend(publisher.publish(&batch, PUBLISH_PATIENCE).await?);
        }
        Ok(published)
    })
}

const PUBLISHERS: u16 = 10;
/// Publications of one request.
const BATCH: u64 = 5;
const ROOMS_OF_A_CLIENT: usize = 3;
/// How long it stays calm before publishing ends.
const CALM: Duration = Duration::from_secs(2);
/// How long the beginning may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the end may take beside the looks of the nodes.
const SETTLE: Duration = Duration::from_secs(10);
const PUBLISH_PATIENCE: Duration = Duration::from_secs(120);
