//! What a publication costs a node and Redis, with history and without.

use std::path::Path;
use std::time::Duration;

use tidings_examples::check::{Address, Failure, Outbound, Publisher, TopicId, Topics};
use tokio::time::Instant;

use crate::Bus;
use crate::world::World;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Publications of each turn.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Publishers at the same time, each with a room of its own.
    #[arg(long, default_value_t = 10)]
    publishers: u16,
    /// Turns of each kind, by turns; the best counts.
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

/// The processor time of a publication.
#[derive(Debug, Clone, Copy)]
struct Cost {
    node: Duration,
    redis: Duration,
}

/// Prints the costs and their ratios; nothing decides.
pub(crate) async fn run(args: &Args, server: &Path) -> Result<bool, Failure> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..args.turns {
        with.push(turn(args, server, "256:600").await?);
        without.push(turn(args, server, "0").await?);
    }
    let least = |costs: &[Cost], of: fn(&Cost) -> Duration| costs.iter().map(of).min();
    for (name, of) in [("node", (|c| c.node) as fn(&Cost) -> Duration), ("redis", |c| c.redis)] {
        let (with, without) = (least(&with, of), least(&without, of));
        let (with, without) = (with.unwrap_or_default(), without.unwrap_or_default());
        println!(
            "{name}: with history {:.1} µs, without {:.1} µs, ratio {:.2}",
            with.as_secs_f64() * 1e6,
            without.as_secs_f64() * 1e6,
            with.as_secs_f64() / without.as_secs_f64().max(1e-9)
        );
    }
    Ok(true)
}

async fn turn(args: &Args, server: &Path, history: &str) -> Result<Cost, Failure> {
    let flags = ["--history", history].map(Into::into).into();
    let mut world = World::start(server, Bus::Redis, 1, flags).await?;
    let rooms = (0..args.publishers).map(|room| Address::Room(format!("r{room}")));
    let (topics, start) = (Topics::new(rooms), Instant::now());
    let (node, redis) = (world.node(0)?.cpu()?, world.redis_cpu().await?);
    let each = args.messages / usize::from(args.publishers.max(1));
    let publishers: Vec<_> = (0..args.publishers)
        .map(|number| {
            let addresses = world.addresses.clone();
            let mut publisher = Publisher::new(number, topics.clone(), addresses, start, 1);
            tokio::spawn(async move {
                let outbound = [Outbound { topic: TopicId(number.into()), except: None }];
                for _ in 0..each {
                    publisher.publish(&outbound, PATIENCE).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await??;
    }
    let count = u32::try_from(each * usize::from(args.publishers))?.max(1);
    let cost = Cost {
        node: world.node(0)?.cpu()?.saturating_sub(node) / count,
        redis: world.redis_cpu().await?.saturating_sub(redis) / count,
    };
    println!("--history {history}: node {:?}, redis {:?} per publication", cost.node, cost.redis);
    Ok(cost)
}

const PATIENCE: Duration = Duration::from_secs(60);
