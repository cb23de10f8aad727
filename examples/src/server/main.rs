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
mod environment;
mod files;
mod front;
mod listen;
mod log;
mod metrics;
mod page;
mod peer;
mod publish;
mod redis;
mod routes;

use std::fmt::Display;
use std::io::Write as _;
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
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use app::{App, RoomMessages};
use cli::Cli;
use files::Spare;
use listen::Door;
use log::{Told, say};
use metrics::Metrics;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let checked = environment::check().map_err(Failure::from);
    let outcome = checked.and_then(|()| {
        let cli = Cli::parse();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(workers) = cli.workers {
            runtime.worker_threads(workers.into());
        }
        runtime.enable_all().build()?.block_on(run(cli))
    });
    if let Err(error) = &outcome {
        say(format_args!("tidings-server: {error}"));
    }
    log::end();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    // Before anybody is told that the server runs: from then on a signal ends it in order.
    let ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    // A terminal that closes, or "reload": there is nothing to be read again, and clients stay.
    let _ignored = signal(SignalKind::hangup())?;
    let files = files::raise_limit();
    let app = start(cli).await?;
    warn(&app);
    let listener = listen::bind(app.cli.listen)?;
    let admin = listen::bind(app.cli.admin_listen)?;
    print(format_args!("page:        http://{}/", listener.local_addr()?));
    print(format_args!("admin:       http://{}/", admin.local_addr()?));
    if app.cli.publish_key.is_none() {
        print(format_args!("publish key: {}", app.publish_key));
    }
    print(format_args!("files:       {files}, and a few less connections"));

    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ended = async { drop(ended.await) };
    let layered = |router: Router| {
        let router = router.layer(from_fn(front::one_host));
        if app.cli.log { router.layer(from_fn(log::line)) } else { router }
    };
    let door = Door {
        first_head: app.hub.limits().handshake_deadline,
        next_head: app.cli.keep_alive_seconds,
        proxies: app.cli.proxy.clone(),
        spare: Spare::of(files),
        metrics: app.metrics.clone(),
    };
    let for_admins = Door { spare: Spare::NOTHING, ..door.clone() };
    let clients = layered(routes::router(app.clone()));
    let admins = layered(admin::router(app.clone()));
    let serving = tokio::spawn(listen::serve(listener, clients, door, ended));
    tokio::spawn(listen::serve(admin, admins, for_admins, std::future::pending()));

    drain(&app, ends).await;
    drop(end);
    let _ = serving.await;
    Ok(())
}

/// The hub, and what the routes need besides it.
async fn start(cli: Cli) -> Result<Arc<App>, Failure> {
    let limits = cli.limits()?;
    let demo_secret = (cli.jwt_hs256_secret.is_none() && cli.jwt_jwks.is_none()).then(random_key);
    if demo_secret.is_some() && !cli.listen.ip().is_loopback() {
        return Err("without a key the server is in demo mode, which is on loopback only: give --jwt-hs256-secret or --jwt-jwks".into());
    }
    let secret = cli.jwt_hs256_secret.as_deref().or(demo_secret.as_deref());
    let (authenticator, keys) = auth::authenticator(&cli, secret, limits.token_leeway).await?;
    let metrics = Arc::new(Metrics::default());
    let authorizer = RoomPatterns { open: cli.open_rooms };
    let (bus, redis) = bus(&cli.bus).await?;
    let mut hub = Hub::builder(bus, Arc::new(authenticator), Arc::new(authorizer))
        .handler(Arc::new(RoomMessages))
        .limits(limits)
        .observer(Arc::new(Told { metrics: metrics.clone(), log: cli.log }))
        .topics(cli.topics())
        .shards(tokio::runtime::Handle::current().metrics().num_workers());
    if let Some(name) = &cli.node_id {
        hub = hub.node(NodeId::new(name).map_err(|e| format!("--node-id: {e}"))?);
    }
    let (ws, sse) = app::transports(&cli);
    Ok(Arc::new(App {
        hub: hub.start().await?,
        ws,
        sse,
        publish_key: cli.publish_key.clone().unwrap_or_else(random_key),
        demo_secret,
        metrics,
        redis,
        keys,
        started: tokio::time::Instant::now(),
        cli,
    }))
}

/// Says what of the settings opens a door.
fn warn(app: &App) {
    if app.demo_secret.is_some() {
        say(
            "tidings-server: DEMO MODE: no key is set, so everybody on this machine gets a token of any user and any room; give --jwt-hs256-secret or --jwt-jwks for anything else",
        );
    }
    if !app.cli.admin_listen.ip().is_loopback() {
        say(format_args!(
            "tidings-server: warning: --admin-listen {} is not on loopback: whoever reaches it can list and disconnect users, for it asks for no key; let a firewall or a proxy guard it",
            app.cli.admin_listen
        ));
    }
}

/// Waits until the end is asked for and lets the clients go; at once, when it is asked for again.
async fn drain(app: &App, [mut term, mut int]: [Signal; 2]) {
    let mut asked = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
    asked().await;
    tokio::select! {
        () = app.hub.drain(app.cli.drain_seconds) => {}
        () = asked() => {
            let _ = timeout(AT_ONCE, app.hub.shutdown(CloseReason::GOING_AWAY)).await;
        }
    }
}

/// Prints a line to stdout; that nobody reads it is no reason not to serve.
fn print(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
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
