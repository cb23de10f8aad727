//! The reference server: composed as a user of the crates would compose one.
//!
//! Run with: cargo run --release
#![expect(
    clippy::disallowed_methods,
    reason = "a program may spawn and read the clock where it likes"
)]

mod admin;
mod app;
mod auth;
mod body;
mod cli;
mod front;
mod listen;
mod log;
mod metrics;
mod page;
mod publish;
mod redis;
mod routes;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use clap::Parser;
use tidings_auth_jwt::RoomPatterns;
use tidings_bus_memory::MemoryBus;
use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{Bus, CloseReason, Hub, NodeId};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use app::{App, RoomMessages};
use cli::Cli;
use log::Told;
use metrics::Metrics;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let workers = cli.workers.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    let runtime = runtime.worker_threads(workers.unwrap_or(1).max(1)).enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(cli)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let limits = cli.limits()?;
    // Before anybody is told that the server runs: from then on a signal ends it in order.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let demo_secret = (cli.jwt_hs256_secret.is_none() && cli.jwt_jwks.is_none()).then(random_key);
    if demo_secret.is_some() && !cli.listen.ip().is_loopback() {
        return Err("without a key the server is in demo mode, which is on loopback only: give --jwt-hs256-secret or --jwt-jwks".into());
    }
    let secret = cli.jwt_hs256_secret.as_deref().or(demo_secret.as_deref());
    let authenticator = auth::authenticator(&cli, secret, limits.token_leeway).await?;
    let metrics = Arc::new(Metrics::default());
    let authorizer = RoomPatterns { open: cli.open_rooms };
    let (bus, redis) = bus(&cli.bus).await?;
    let mut hub = Hub::builder(bus, Arc::new(authenticator), Arc::new(authorizer))
        .handler(Arc::new(RoomMessages))
        .limits(limits.clone())
        .observer(Arc::new(Told { metrics: metrics.clone(), log: cli.log }))
        .topics(cli.topics())
        .shards(tokio::runtime::Handle::current().metrics().num_workers());
    if let Some(name) = &cli.node_id {
        hub = hub.node(NodeId::new(name).map_err(|e| format!("--node-id: {e}"))?);
    }
    let hub = hub.start().await?;

    let print_key = cli.publish_key.is_none();
    let (ws, sse) = app::transports(&cli);
    let app = Arc::new(App {
        hub: hub.clone(),
        ws,
        sse,
        publish_key: cli.publish_key.clone().unwrap_or_else(random_key),
        demo_secret,
        metrics,
        redis,
        started: tokio::time::Instant::now(),
        cli,
    });
    let listener = TcpListener::bind(app.cli.listen)
        .await
        .map_err(|e| format!("cannot listen on {}: {e}", app.cli.listen))?;
    if !app.cli.admin_listen.ip().is_loopback() {
        eprintln!(
            "tidings-server: warning: --admin-listen {} is not on loopback: whoever reaches it can list and disconnect users, for it asks for no key; let a firewall or a proxy guard it",
            app.cli.admin_listen
        );
    }
    let admin = TcpListener::bind(app.cli.admin_listen)
        .await
        .map_err(|e| format!("cannot listen on {}: {e}", app.cli.admin_listen))?;
    println!("page:        http://{}/", listener.local_addr()?);
    println!("admin:       http://{}/", admin.local_addr()?);
    if print_key {
        println!("publish key: {}", app.publish_key);
    }
    let (window, deadline) = (app.cli.drain_seconds, limits.handshake_deadline);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ended = async { drop(ended.await) };
    let logged =
        |router: Router| if app.cli.log { router.layer(from_fn(log::line)) } else { router };
    let (clients, admins) =
        (logged(routes::router(app.clone())), logged(admin::router(app.clone())));
    let serving = tokio::spawn(listen::serve(listener, clients, deadline, ended));
    tokio::spawn(listen::serve(admin, admins, deadline, std::future::pending()));

    let mut asked = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
    asked().await;
    tokio::select! {
        () = hub.drain(window) => {}
        () = asked() => {
            let _ = timeout(AT_ONCE, hub.shutdown(CloseReason::GOING_AWAY)).await;
        }
    }
    drop(end);
    let _ = serving.await;
    Ok(())
}

/// What joins the nodes, and the same again when it counts what it does.
async fn bus(url: &str) -> Result<(Arc<dyn Bus>, Option<RedisBus>), Failure> {
    if url == "memory" {
        return Ok((Arc::new(MemoryBus::default()), None));
    }
    let bus = RedisBus::connect(url, RedisConfig::default()).await;
    let bus = bus.map_err(|e| format!("--bus: {e}"))?;
    Ok((Arc::new(bus.clone()), Some(bus)))
}

/// How long a close that was asked for twice may take.
const AT_ONCE: Duration = Duration::from_secs(1);

/// 128 random bits in hexadecimal.
fn random_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    format!("{:032x}", u128::from_be_bytes(bytes))
}
