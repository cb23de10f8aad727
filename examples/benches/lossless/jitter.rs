//! Thousands of clients, each of which is cut off about every 15 seconds for 2 seconds.
//!
//! It fails when anything was lost. How long a replay took is printed and decides nothing.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidings_examples::check::{
    Address, Client, ClientRecord, Crowd, Cuts, Failure, Outbound, Phase, Progress, Published,
    Publisher, Random, Rules, Seen, TopicId, Topics, Transport, explain, token, verdict,
};
use tokio::time::{Instant, interval};

use crate::Bus;
use crate::world::World;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Decides who is cut off when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of coming and going.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What joins the nodes; the memory bus has one.
    #[arg(long, value_enum, default_value = "redis")]
    bus: Bus,
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Clients of each node, half of them on WebSocket and half on event streams.
    #[arg(long, default_value_t = 2000)]
    clients: usize,
    /// Messages per second, each for all.
    #[arg(long, default_value_t = 2)]
    rate: u64,
}

/// Answers whether everything came.
pub(crate) async fn run(args: &Args, server: &Path) -> Result<bool, Failure> {
    let nodes = if args.bus == Bus::Memory { 1 } else { args.nodes };
    let mut world = World::start(server, args.bus, nodes, Vec::new()).await?;
    let topics = Topics::new([Address::Room("all".to_owned())]);
    let start = Instant::now();
    let client = |number: usize| Client {
        name: format!("client {number}"),
        user: format!("u{number}"),
        token: token(&format!("u{number}"), &json!({})),
        transport: [Transport::WebSocket, Transport::EventSource][number % 2],
        rooms: vec!["all".to_owned()],
        late_room: None,
        topics: topics.clone(),
        addresses: world.addresses.clone(),
        cuts: Some(Cuts {
            every: Duration::from_secs(10)..Duration::from_secs(20),
            away: Duration::from_millis(1900)..Duration::from_millis(2100),
            in_welcome: 0,
            after_gap: 0,
        }),
        leaves: None,
        cursor_ahead: false,
        start,
        random: Random::of(args.seed, number as u64 + 1),
        progress: Progress::default(),
    };
    let clients = nodes * args.clients;
    let crowd = Crowd::start((0..clients).map(client).collect(), Phase::Calm);
    crowd.joined(PATIENCE).await?;
    println!("{clients} clients joined after {:.1} s", start.elapsed().as_secs_f64());

    crowd.set(Phase::Stormy);
    let mut publisher =
        Publisher::new(0, topics.clone(), world.addresses.clone(), start, args.seed);
    let mut published = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(args.rate.max(1))?);
    for _ in 0..args.seconds * args.rate {
        ticks.tick().await;
        let outbound = Outbound { topic: TopicId(0), except: None };
        published.extend(publisher.publish(&[outbound], PATIENCE).await?);
    }
    crowd.set(Phase::Calm);
    let lacking = crowd.settle(&published, PATIENCE).await;
    world.check()?;
    let records = crowd.end().await?;
    let report = verdict(&published, &records, Rules { no_gap: true, forks: None });
    print!("{report}");
    for violation in report.violations.iter().take(3) {
        print!("{}", explain(violation, &topics, &published, &records));
    }
    let due = published.len() * clients;
    let came = report.delivered - report.repeated;
    let percent = 100.0 * came as f64 / due.max(1) as f64;
    println!("delivered {came} of {due}, {percent:.3} %; {lacking} clients lack something");
    print_times("replay", &mut replays(&published, &records));
    Ok(report.violations.is_empty() && came == due)
}

/// For each return of a client that had missed something: how long from its first step until it had all that was
/// acknowledged before that.
pub(crate) fn replays(published: &[Published], records: &[ClientRecord]) -> Vec<Duration> {
    let mut times = Vec::new();
    for record in records {
        let mut had = HashSet::new();
        for connection in &record.connections {
            let due =
                published.iter().rev().find(|message| message.acknowledged < connection.opened);
            let due = due.map(|message| message.id).filter(|id| !had.contains(id));
            for seen in &connection.seen {
                let Seen::Message(id, at) = seen else { continue };
                had.insert(*id);
                if due == Some(*id) {
                    let at = Duration::from_millis(u64::from(*at));
                    times.push(at.saturating_sub(connection.opened));
                }
            }
        }
    }
    times
}

/// Prints the middle, the 99th percentile and the longest of some times.
pub(crate) fn print_times(name: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
    let millis = |part| at(part).map_or(0, Duration::as_millis);
    println!(
        "{name}: {} times, p50 {} ms, p99 {} ms, longest {} ms",
        times.len(),
        millis(50),
        millis(99),
        millis(100)
    );
}

const PATIENCE: Duration = Duration::from_secs(90);
