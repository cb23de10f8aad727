//! Thousands of clients whose nodes, behind a proxy and on one Redis, are restarted one after the other or killed.
//!
//! Run with: cargo bench --bench deploy -- rolling
//!
//! It fails when anything was lost, when a client waited for more than ten seconds, and when within any second of a
//! restart more than twice the mean tried to connect.

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
    let mut restarts = Vec::new();
    for node in 0..2 {
        let begun = load.elapsed();
        match cli.run {
            Run::Rolling => site.restart(node).await?,
            Run::Avalanche if node == 0 => println!("killed with {} clients", site.kill(0).await?),
            Run::Avalanche => break,
        }
        load.all_are_back(&site).await?;
        restarts.push(begun..load.elapsed());
    }
    let outcome = load.end().await?;
    Ok(judge(&outcome, &restarts, matches!(cli.run, Run::Rolling)))
}

fn judge(outcome: &Outcome, restarts: &[Range<Duration>], paced: bool) -> bool {
    print!("{}", outcome.report);
    let waits = &outcome.waits;
    let at = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or_default();
    let longest = waits.last().copied().unwrap_or_default();
    println!("{} times away: p50 {:?} p99 {:?} at most {longest:?}", waits.len(), at(50), at(99));
    let mut kept = outcome.report.violations.is_empty() && outcome.lacking == 0;
    kept &= longest <= LONGEST_WAIT;
    for restart in restarts {
        let (attempts, most, mean) = outcome.attempts(restart);
        println!("{attempts} attempts to connect, {mean:.0} a second, at most {most}");
        kept &= !paced || most as f64 <= 2.0 * mean;
    }
    kept
}

const LONGEST_WAIT: Duration = Duration::from_secs(10);
