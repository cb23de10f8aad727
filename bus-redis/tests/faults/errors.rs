//! What Redis refuses, told apart and counted, and survived.

use tidings_bus_redis::{ConnectError, PublishErrors, RedisBus};
use tidings_core::BusError;
use tidings_redis_testing::{Options, Redis, Reply, in_time, until};
use tokio::time::sleep;

use crate::buses::{config, nodes, shared, two};
use crate::scene::Scene;
use crate::twins::Trial;

/// What Redis refuses everything with, for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    Busy,
    OutOfMemory,
    NoPermission,
    Loading,
    WrongPassword,
}

impl Refusal {
    async fn start(self) -> Redis {
        let options = Options::default();
        let redis = Redis::start(match self {
            Self::Busy => options.set("busy-reply-threshold", "100"),
            Self::Loading => options.set("rdbcompression", "no"),
            Self::WrongPassword => options.password("right"),
            _ => options,
        });
        let mut redis = redis.await;
        match self {
            Self::NoPermission => {
                redis
                    .cli(&[&USER[..], &["on", ">secret", "~*", "&*", "+@all"]].concat())
                    .await
                    .ok();
            }
            Self::Loading => {
                for n in 0..300 {
                    redis.cli(&["SET", &format!("key {n}"), &"x".repeat(1000)]).await.ok();
                }
                redis.cli(&["SAVE"]).await.ok();
                // It reads a key in 30 ms, and answers between them.
                redis.set("key-load-delay", "30000");
                redis.set("loading-process-events-interval-bytes", "1024");
            }
            _ => {}
        }
        redis
    }

    fn url(self, redis: &Redis) -> String {
        match self {
            Self::NoPermission => redis.url().replace("redis://", "redis://bus:secret@"),
            _ => redis.url(),
        }
    }

    fn count(self, errors: PublishErrors) -> u64 {
        match self {
            Self::Busy => errors.busy,
            Self::OutOfMemory => errors.out_of_memory,
            Self::NoPermission => errors.no_permission,
            Self::Loading => errors.loading,
            Self::WrongPassword => errors.no_auth,
        }
    }

    /// Refuses until something is done. Loading ends by itself.
    async fn lasts(self, redis: &mut Redis, something: impl Future<Output = ()>) {
        match self {
            Self::Busy => {
                let script = redis.try_cli(&["EVAL", "while true do end", "0"]);
                let ended = async {
                    something.await;
                    redis.cli(&["SCRIPT", "KILL"]).await.ok();
                };
                let (answer, ()) = tokio::join!(script, ended);
                assert!(matches!(answer, Ok(Reply::Error(_))), "{answer:?}");
            }
            Self::OutOfMemory => {
                redis.config_set("maxmemory", "1").await;
                something.await;
                redis.config_set("maxmemory", "0").await;
            }
            Self::NoPermission => {
                let publishing = ["-evalsha", "-eval", "-fcall", "-publish", "-spublish"];
                redis.cli(&[&USER[..], &publishing].concat()).await.ok();
                something.await;
                redis.cli(&[&USER[..], &["+@all"]].concat()).await.ok();
            }
            Self::Loading => {
                redis.kill9();
                redis.launch();
                something.await;
            }
            Self::WrongPassword => {
                changes_its_password(redis).await;
                something.await;
                redis.set_password("right").await;
            }
        }
    }
}

/// Whether a refusal is told apart and counted by both nodes, which then serve again.
pub(crate) async fn is_told(trial: Trial, refusal: Refusal) -> bool {
    let mut redis = refusal.start().await;
    let buses = two(&refusal.url(&redis), trial.config.clone()).await;
    // A Redis that loses what it kept answers for no kept message.
    let keeps = !matches!(refusal, Refusal::Loading | Refusal::WrongPassword);
    let buses_of_hubs = shared(buses.clone());
    let mut scene = match keeps {
        true => Scene::start_kept(buses_of_hubs).await,
        false => Scene::start(buses_of_hubs).await,
    };
    let counted = || buses.iter().all(|bus| refusal.count(bus.stats().publish_errors) > 0);
    let mut told = false;
    let telling = async {
        told = trial.reached(until("it to be counted", async || counted())).await;
    };
    scene.during(refusal.lasts(&mut redis, telling)).await;
    if told {
        scene.serves_again().await;
    }
    told
}

#[tokio::test]
async fn out_of_memory_ends_no_link() {
    let redis = Redis::start(Options::default()).await;
    let mut scene = Scene::start_kept(nodes(&redis.url()).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            redis.config_set("maxmemory", "1").await;
            // It still fans out, so the nodes stay.
            sleep(2 * 3 * config().probe_interval).await;
            watch.say_ready().await;
            redis.config_set("maxmemory", "0").await;
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn out_of_memory_stops_no_message_without_history() {
    let redis = Redis::start(Options::default()).await;
    let mut scene = Scene::start(nodes(&redis.url()).await).await;
    redis.config_set("maxmemory", "1").await;
    scene.goes_well().await;
    sleep(2 * 3 * config().probe_interval).await;
    scene.goes_well().await;
    scene.serves_again().await;
}

#[tokio::test]
async fn a_wrong_password_at_the_start() {
    let redis = Redis::start(Options::default().password("right")).await;
    let wrong = redis.url().replace("right", "wrong");
    let none = redis.url().replace(":right@", "");
    for (url, code) in [(wrong, "WRONGPASS"), (none, "NOAUTH")] {
        let error = in_time("a clear error", RedisBus::connect(&url, config())).await;
        let Err(ConnectError::Bus(BusError::Refused(text))) = error else { panic!("{error:?}") };
        assert!(text.contains(code) && text.contains("password in the URL"), "{text}");
        assert!(!text.contains("wrong"), "{text}");
    }
}

/// The password changes while Redis is down, and nodes come back only when it is theirs again.
async fn changes_its_password(redis: &mut Redis) {
    redis.set_password("other").await;
    redis.kill9();
    redis.restart().await;
}

/// Nodes that were refused once ask again.
pub(crate) async fn another_password(trial: Trial) -> bool {
    let mut redis = Redis::start(Options::default().password("right")).await;
    let mut scene = trial.scene(&redis.url()).await;
    changes_its_password(&mut redis).await;
    scene.during(sleep(config().probe_interval)).await;
    redis.set_password("right").await;
    trial.survived_by(scene).await
}

#[tokio::test]
async fn a_wrong_password_at_a_reconnect() {
    let mut redis = Redis::start(Options::default().password("right")).await;
    let mut scene = Scene::start(nodes(&redis.url()).await).await;
    let watch = scene.nodes();
    scene
        .during(async {
            changes_its_password(&mut redis).await;
            watch.say_away().await;
            redis.set_password("right").await;
        })
        .await;
    scene.serves_again().await;
}

const USER: [&str; 3] = ["ACL", "SETUSER", "bus"];
