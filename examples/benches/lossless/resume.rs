//! A thousand clients whose node is killed come back at once and have missed 100 messages each.
//!
//! It fails when anything was lost, and when Redis was read more often than once per topic and 100 milliseconds.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidings_examples::check::{
    Address, Addresses, Client, Crowd, Failure, Outbound, Phase, Progress, Publisher, Random,
    Rules, TopicId, Topics, Transport, explain, token, verdict,
};
use tokio::time::Instant;

use crate::Bus;
use crate::jitter::{print_times, replays};
use crate::plan::Action;
use crate::world::World;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// How many they share; each user is a topic of its own.
    #[arg(long, default_value_t = 10)]
    users: usize,
    /// What each of them misses.
    #[arg(long, default_value_t = 100)]
    messages: usize,
}

/// Answers whether everything came, with few reads.
pub(crate) async fn run(args: &Args, server: &Path) -> Result<bool, Failure> {
    let flags = ["--limit", "connections_per_user=0"].map(Into::into).into();
    // Node 0 holds the clients, node 1 is published to.
    let mut world = World::start(server, Bus::Redis, 2, flags).await?;
    let topics = Topics::new([Address::Room("all".to_owned())]);
    let start = Instant::now();
    let (theirs, ours) =
        (Addresses::new([world.addresses.get(0)]), Addresses::new([world.addresses.get(1)]));
    let client = |number: usize| {
        let user = format!("u{}", number % args.users);
        Client {
            name: format!("client {number}"),
            token: token(&user, &json!({})),
            user,
            transport: [Transport::WebSocket, Transport::EventSource][number % 2],
            rooms: vec!["all".to_owned()],
            late_room: None,
            topics: topics.clone(),
            addresses: theirs.clone(),
            cuts: None,
            leaves: None,
            cursor_ahead: false,
            start,
            random: Random::of(1, number as u64 + 1),
            progress: Progress::default(),
        }
    };
    let crowd = Crowd::start((0..args.clients).map(client).collect(), Phase::Calm);
    crowd.joined(PATIENCE).await?;
    let mut publisher = Publisher::new(0, topics.clone(), ours, start, 1);
    let outbound = [Outbound { topic: TopicId(0), except: None }];
    let mut published = publisher.publish(&outbound, PATIENCE).await?;
    crowd.settle(&published, PATIENCE).await;

    world.act(Action::KillNode(0)).await?;
    for _ in 0..args.messages {
        published.extend(publisher.publish(&outbound, PATIENCE).await?);
    }
    let before = world.calls().await?;
    world.act(Action::StartNode(0)).await?;
    let back = Instant::now();
    world.wait_for(0).await?;
    theirs.set(0, world.addresses.get(0));
    let lacking = crowd.settle(&published, PATIENCE).await;
    let took = back.elapsed();
    let after = world.calls().await?;
    let records = crowd.end().await?;

    let report = verdict(&published, &records, Rules { no_gap: true, forks: None });
    print!("{report}");
    for violation in report.violations.iter().take(3) {
        print!("{}", explain(violation, &topics, &published, &records));
    }
    println!(
        "{} clients back with {} messages each after {:.2} s; {lacking} lack something",
        args.clients,
        args.messages,
        took.as_secs_f64()
    );
    print_times("replay", &mut replays(&published, &records));
    println!("calls of Redis meanwhile:");
    let mut reads = 0;
    for (command, calls) in after {
        let calls = calls - before.get(&command).copied().unwrap_or(0);
        if calls > 0 {
            println!("  {command} {calls}");
        }
        reads += if READS.contains(&&*command) { calls } else { 0 };
    }
    // The room, everyone, and each user, whose streams are empty but must be asked for.
    let most = (args.users as u64 + 2) * (took.as_millis() as u64 / 100 + 1);
    println!("{reads} reads of history, at most {most} allowed");
    Ok(report.violations.is_empty() && lacking == 0 && reads <= most)
}

/// What reads history, and nothing else does; a read of many messages is several of these.
const READS: [&str; 1] = ["xrange"];
const PATIENCE: Duration = Duration::from_secs(90);
