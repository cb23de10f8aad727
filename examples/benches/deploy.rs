//! Thousands of clients whose nodes, behind a proxy and on one Redis, are restarted one after the other or killed.
//!
//! Run with: cargo bench --bench deploy -- rolling
//!
//! It fails when anything was lost, when somebody did not come back, had no cursor or was not told `recovered`, and when
//! a client waited for more than ten seconds. A rolling run also fails when more than twice the mean tried to connect
//! within any second. Each restart is judged by itself: the mean is that of its attempts, also of those that were
//! refused, from the first to the last, and the second slides. So the pace is that of the servers' advice: a machine
//! that is slow by a fraction of a second moves few of them.

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tidings_examples::check::Failure;
use tidings_examples::front::{Kind, Load, Outcome, Site};
use tidings_redis_testing::{Options, Redis};

/// Restarts or kills nodes under many clients.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    run: Run,
    /// What stands in front.
    #[arg(long, value_enum, default_value_t = Kind::Nginx, global = true)]
    proxy: Kind,
    /// How many clients, half on WebSocket and half on event streams.
    #[arg(long, default_value_t = 2000, global = true)]
    clients: usize,
    /// The server's window for a drain.
    #[arg(long, default_value_t = 10, global = true)]
    drain_seconds: u32,
    /// Messages per second to a room and to a user.
    #[arg(long, default_value_t = 20, global = true)]
    rate: u32,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Run {
    /// Both nodes are asked to end and started again, one after the other.
    Rolling,
    /// One node is killed with all its clients.
    Avalanche,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("deploy: the run could not be carried out: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<bool, Failure> {
    let redis = Redis::start(Options::default()).await;
    let (url, drain) = (redis.url(), cli.drain_seconds.to_string());
    let flags = ["--bus", &url, "--drain-seconds", &drain].map(str::to_owned).to_vec();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidings-server"));
    let mut site = Site::start(cli.proxy, binary, flags).await?;
    let load = Load::start(&site, cli.clients, cli.rate).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut restarts, mut sent_away) = (Vec::new(), 0);
    for node in 0..2 {
        let begun = load.elapsed();
        match cli.run {
            Run::Rolling => sent_away += site.restart(node).await?,
            Run::Avalanche if node == 0 => sent_away += site.kill(node).await?,
            Run::Avalanche => break,
        }
        load.all_are_back(&site).await?;
        restarts.push(begun..load.elapsed());
    }
    let outcome = load.end().await?;
    let broken = broken(&outcome, sent_away, &restarts, matches!(cli.run, Run::Rolling));
    broken.iter().for_each(|promise| println!("not kept: {promise}"));
    Ok(broken.is_empty())
}

/// Prints what came out of it. The promises that were not kept.
fn broken(
    outcome: &Outcome,
    sent_away: u64,
    restarts: &[Range<Duration>],
    paced: bool,
) -> Vec<String> {
    let waits = &outcome.waits;
    let at = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or_default();
    let longest = waits.last().copied().unwrap_or_default();
    let (back, recovered) = outcome.returns();
    print!("{}", outcome.report);
    println!("{sent_away} sent away, {back} back, {recovered} of them recovered");
    println!("away: p50 {:?} p99 {:?} at most {longest:?}", at(50), at(99));
    let mut broken = Vec::new();
    let mut promise = |kept: bool, what: &str| {
        if !kept {
            broken.push(what.to_owned());
        }
    };
    let whole = outcome.report.violations.is_empty() && outcome.lacking == 0;
    promise(whole, "every client has every message, in order");
    promise(sent_away > 0 && back as u64 >= sent_away, "all are back");
    promise(recovered == back, "who is back was told that nothing is missing");
    promise(longest <= LONGEST_WAIT, "nobody waits for more than ten seconds");
    for restart in restarts {
        let (attempts, most, mean) = outcome.attempts(restart);
        println!("{attempts} attempts to connect, {mean:.0} a second, at most {most}");
        promise(!paced || most as f64 <= 2.0 * mean, "attempts stay under twice their mean");
    }
    broken
}

const LONGEST_WAIT: Duration = Duration::from_secs(10);
