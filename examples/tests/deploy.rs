//! Nodes behind nginx on one Redis that leave in order, or all at once: clients lose nothing and come back by
//! themselves. `benches/deploy.rs` is the same with thousands of clients, and judges the times too.

use std::path::Path;

use tidings_examples::front::{Kind, Load, Outcome, Site};
use tidings_redis_testing::{Options, Redis};

const CLIENTS: usize = 300;

async fn site(redis: &Redis) -> Site {
    let flags = ["--bus", &redis.url(), "--drain-seconds", "5", "--workers", "2"];
    let flags = flags.map(str::to_owned).to_vec();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidings-server"));
    let site = Site::start(Kind::Nginx, binary, flags).await;
    site.expect("the nodes start")
}

/// Everything came, and whoever came back with a cursor was told that nothing is missing.
fn check(outcome: &Outcome, returns: usize) {
    let report = &outcome.report;
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(outcome.lacking, 0, "{report}");
    let (with_cursor, recovered) = report.resumed;
    let let_in = outcome.records.iter().flat_map(|record| &record.connections);
    let let_in = let_in.filter(|c| c.resumed && c.recovered.is_some()).count();
    assert_eq!(recovered, let_in, "of {with_cursor} with a cursor: {report}");
    assert!(recovered >= returns, "{report}");
    assert!(outcome.waits.len() >= returns, "{} came back", outcome.waits.len());
    let last = outcome.waits.last().expect("some came back");
    println!("{report}{} times away, at most {last:?}", outcome.waits.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_loses_nothing() {
    let redis = Redis::start(Options::default()).await;
    let mut site = site(&redis).await;
    let load = Load::start(&site, CLIENTS, 20).await.expect("all come in");
    for node in [0, 1] {
        site.restart(node).await.expect("it ends in order and starts again");
        load.all_are_back(&site).await.expect("all come back");
    }
    let outcome = load.end().await.expect("all is published");
    // The second node had all of them.
    check(&outcome, CLIENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_costs_its_clients_nothing() {
    let redis = Redis::start(Options::default()).await;
    let mut site = site(&redis).await;
    let load = Load::start(&site, CLIENTS, 20).await.expect("all come in");
    let held = site.kill(0).await.expect("it ran");
    assert!(held > 0, "it had no clients");
    load.all_are_back(&site).await.expect("all come back");
    let outcome = load.end().await.expect("all is published");
    check(&outcome, held as usize);
}
