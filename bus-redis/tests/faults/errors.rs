//! What Redis refuses, told apart and counted, and survived.

use tidings_bus_redis::{ConnectError, PublishErrors, RedisBus};
use tidings_core::BusError;
use tidings_redis_testing::{Options, Redis, Reply, in_time, until};
use tokio::time::sleep;

use crate::buses::{config, deaf, nodes, shared, two};
use crate::scene::Scene;

/// Waits until both buses have counted an error.
async fn counts(buses: &[RedisBus; 2], name: &str, count: impl Fn(PublishErrors) -> u64) {
    let counted = || buses.iter().all(|bus| count(bus.stats().publish_errors) > 0);
    until(&format!("{name} to be counted"), async || counted()).await;
}

#[tokio::test]
async fn busy() {
    let redis = Redis::start(Options::default().set("busy-reply-threshold", "100")).await;
    let buses = two(&redis.url(), config()).await;
    let mut scene = Scene::start_kept(shared(buses.clone())).await;
    scene
        .during(async {
            let script = redis.try_cli(&["EVAL", "while true do end", "0"]);
            let ended = async {
                counts(&buses, "BUSY", |errors| errors.busy).await;
                redis.cli(&["SCRIPT", "KILL"]).await.ok();
            };
            let (answer, ()) = tokio::join!(script, ended);
            assert!(matches!(answer, Ok(Reply::Error(_))), "{answer:?}");
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn out_of_memory() {
    let redis = Redis::start(Options::default()).await;
    let buses = two(&redis.url(), config()).await;
    let mut scene = Scene::start_kept(shared(buses.clone())).await;
    let watch = scene.nodes();
    scene
        .during(async {
            redis.config_set("maxmemory", "1").await;
            counts(&buses, "OOM", |errors| errors.out_of_memory).await;
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
async fn no_permission() {
    let redis = Redis::start(Options::default()).await;
    let user = ["ACL", "SETUSER", "bus"];
    redis.cli(&[&user[..], &["on", ">secret", "~*", "&*", "+@all"]].concat()).await.ok();
    let buses = two(&redis.url().replace("redis://", "redis://bus:secret@"), config()).await;
    let mut scene = Scene::start_kept(shared(buses.clone())).await;
    let publishing = ["evalsha", "eval", "fcall", "publish", "spublish"];
    let taken: Vec<_> = publishing.iter().map(|command| format!("-{command}")).collect();
    let taken: Vec<_> = taken.iter().map(String::as_str).collect();
    scene
        .during(async {
            redis.cli(&[&user[..], &taken].concat()).await.ok();
            counts(&buses, "NOPERM", |errors| errors.no_permission).await;
            redis.cli(&[&user[..], &["+@all"]].concat()).await.ok();
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn loading() {
    let mut redis = Redis::start(Options::default().set("rdbcompression", "no")).await;
    for n in 0..300 {
        redis.cli(&["SET", &format!("key {n}"), &"x".repeat(1000)]).await.ok();
    }
    redis.cli(&["SAVE"]).await.ok();
    let buses = two(&redis.url(), config()).await;
    let mut scene = Scene::start(shared(buses.clone())).await;
    // It reads a key in 30 ms, and answers between them.
    redis.set("key-load-delay", "30000");
    redis.set("loading-process-events-interval-bytes", "1024");
    scene
        .during(async {
            redis.kill9();
            redis.launch();
            counts(&buses, "LOADING", |errors| errors.loading).await;
        })
        .await;
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

#[tokio::test]
async fn a_wrong_password_at_a_reconnect() {
    let mut redis = Redis::start(Options::default().password("right")).await;
    let buses = two(&redis.url(), config()).await;
    let mut scene = Scene::start(shared(buses.clone())).await;
    let watch = scene.nodes();
    scene
        .during(async {
            changes_its_password(&mut redis).await;
            watch.say_away().await;
            counts(&buses, "WRONGPASS", |errors| errors.no_auth).await;
            redis.set_password("right").await;
        })
        .await;
    scene.serves_again().await;
}

#[tokio::test]
async fn a_wrong_password_at_a_reconnect_while_nobody_watches() {
    let mut redis = Redis::start(Options::default().password("right")).await;
    let scene = Scene::start(deaf(&redis.url()).await).await;
    changes_its_password(&mut redis).await;
    redis.set_password("right").await;
    scene.stays_broken().await;
}
