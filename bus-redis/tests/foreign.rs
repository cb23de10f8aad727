//! A program in another language publishes as the README says.

use std::process::Command;

use futures_util::StreamExt;
use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{Bus, Delivery, History, RoomId, TenantId, Topic};
use tidings_redis_testing::{Options, Redis, in_time};

const README: &str = include_str!("../README.md");

/// The lines of the README between a fence of this language and its end, the `n`th.
fn fenced(language: &str, n: usize) -> String {
    let open = format!("```{language}\n");
    let block = README.split(&open).nth(n + 1).expect("the README has it");
    block.split("```").next().expect("it ends").to_owned()
}

/// Runs it beside a node that listens to the room; what the node hears.
async fn hears(redis: &Redis, bus: &RedisBus, program: &str) -> Delivery {
    let acme = TenantId::new("acme").expect("a name");
    let topic = Topic::room(acme, RoomId::new("the lobby").expect("a name"));
    let mut link = in_time("a link", bus.connect(0)).await.expect("Redis is there");
    link.interest.subscribe(std::slice::from_ref(&topic)).await.expect("Redis is there");
    let program = program.replace("6379", &redis.address().port().to_string());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new("sh").args(["-c", &program]).current_dir(root).output();
    let output = output.expect("there is a shell");
    assert!(output.status.success(), "{output:?}");
    let heard = in_time("the message", link.deliveries.next()).await.expect("no end");
    heard.expect("no error")
}

#[tokio::test]
async fn a_shell_publishes() {
    let redis = Redis::start(Options::default()).await;
    let bus = RedisBus::connect(&redis.url(), RedisConfig::default()).await.expect("it is there");
    let heard = hears(&redis, &bus, &fenced("sh", 0)).await;
    let payload = heard.message.payload.expect("it has one");
    assert_eq!(
        (heard.message.kind.as_str(), payload.bytes().as_ref()),
        ("news", &b"{\"text\":\"hello\"}"[..])
    );
    assert_eq!(heard.position, None);
}

#[tokio::test]
async fn a_shell_that_is_first_costs_no_epoch() {
    let redis = Redis::start(Options::default()).await;
    let bus = RedisBus::connect(&redis.url(), RedisConfig::default()).await.expect("it is there");
    let heard = hears(&redis, &bus, &fenced("sh", 1)).await;
    let [clock, field] = ["tidings:{0}:clock", "server"];
    redis.cli(&["HSET", clock, field, ""]).await.int();
    let tops = bus.tops(0, &[]).await.expect("Redis is there");
    assert_eq!(Some(tops.epoch), heard.position.map(|position| position.epoch));
    assert_ne!(redis.cli(&["HGET", clock, field]).await.text(), "", "it is adopted");
}

#[tokio::test]
async fn a_shell_publishes_what_is_kept() {
    let redis = Redis::start(Options::default()).await;
    let bus = RedisBus::connect(&redis.url(), RedisConfig::default()).await.expect("it is there");
    let heard = hears(&redis, &bus, &fenced("sh", 1)).await;
    assert!(heard.position.is_some());
    let page = bus.after(&heard.topic, 0, 10).await.expect("Redis is there");
    assert_eq!((page.deliveries, page.whole), (vec![heard], true));
}
