//! Proves that nothing is lost, and measures what that costs. Real processes, real sockets, the release build.
//!
//! Run with: cargo bench --bench lossless -- faults --seed 7 --seconds 600
//!
//! A seed repeats a run: who is where, what is published, what breaks and when. That the checker notices, a server
//! shows that is broken on purpose:
//!
//!     TIDINGS_SABOTAGE=no-repair cargo bench --bench lossless --features sabotage -- faults --caught lost
//!
//! and so does one whose bus has a planted fault (`examples/broken/`; `./test` has a run for each):
//!
//!     cargo build --release -p tidings-broken-server
//!     PLANTED_FAULT=void cargo bench --bench lossless -- faults --server $PWD/target/release/tidings-broken-server --caught lost
//!
//! The long form, ten seeds of a minute on each topology, ends at the first that breaks a promise:
//!
//!     for bus in redis sentinel cluster; do for seed in {1..10}; do
//!       cargo bench --bench lossless -- faults --bus $bus --seed $seed --seconds 60 || break 2; done; done
//!
//! The runs: `faults` breaks everything at random; `jitter` has thousands of clients that come and go; `resume` has a
//! thousand that come back at once; `cost` publishes with history and without.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and spawns")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

mod cost;
mod faults;
mod jitter;
mod people;
mod plan;
mod resume;
mod store;
mod world;

/// Proves that nothing is lost, and measures what that costs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    run: Run,
    /// The server to run; the one that was built beside this program when not given.
    #[arg(long, global = true, default_value = env!("CARGO_BIN_EXE_tidings-server"))]
    server: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Nodes, Redis, the network between them and the clients' own connections break at random.
    Faults(faults::Args),
    /// Thousands of clients, each of which is cut off about every 15 seconds for 2 seconds.
    Jitter(jitter::Args),
    /// A thousand clients whose node is killed come back at once and have missed 100 messages each.
    Resume(resume::Args),
    /// What a publication costs a node and Redis, with history and without.
    Cost(cost::Args),
}

/// What joins the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bus {
    Memory,
    /// One Redis.
    Redis,
    /// A primary, its replica and three Sentinels.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { run, server, .. } = Cli::parse();
    let kept = match run {
        Run::Faults(args) => faults::run(&args, &server).await,
        Run::Jitter(args) => jitter::run(&args, &server).await,
        Run::Resume(args) => resume::run(&args, &server).await,
        Run::Cost(args) => cost::run(&args, &server).await,
    };
    match kept {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("lossless: the run could not be carried out: {failure}");
            ExitCode::FAILURE
        }
    }
}
