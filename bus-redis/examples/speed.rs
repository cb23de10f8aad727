//! How fast one node publishes through one Redis, beside `redis-benchmark` on the same machine, and how long it takes
//! to subscribe to 10,000 topics.
//!
//! Run with: cargo run --release -p tidings-bus-redis --example speed
//!
//! It starts a Redis of its own; `redis-server` and `redis-benchmark` must be installed. Compare the ratios only.

#![expect(clippy::disallowed_methods, reason = "it measures time, with many callers at once")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{Bus, Message, Publication, Retention, RoomId, TenantId, Topic};
use tidings_redis_testing::{Options, Redis};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let redis = Redis::start(Options::default()).await;
    let bus = Arc::new(RedisBus::connect(&redis.url(), RedisConfig::default()).await?);

    let kept = Some(Retention { count: 256, age: Duration::from_secs(600) });
    for round in 1..=ROUNDS {
        println!(
            "round {round}                    messages/s  ratio   µs of CPU per message: Redis, node"
        );
        let meter = Meter::start(&redis).await?;
        let floor = benchmark(&redis)?;
        println!(
            "redis-benchmark -P 50 PUBLISH {floor:>9.0}   1.00   {}",
            meter.read(&redis).await?
        );
        for (name, retention) in [("", None), (" kept", kept)] {
            for (callers, batch) in [(CALLERS, BATCH), (CALLERS * BATCH, 1)] {
                let meter = Meter::start(&redis).await?;
                let rate = rate(&bus, callers, batch, retention).await?;
                let name = format!("{callers} callers of {batch}{name}");
                let (ratio, cpu) = (rate / floor, meter.read(&redis).await?);
                println!("{name:<29} {rate:>9.0}   {ratio:.2}   {cpu}");
            }
        }
    }

    let topics: Vec<_> =
        (0..10_000).map(|n| room(&format!("room {n}"))).collect::<Result<_, _>>()?;
    let mut link = bus.connect(0).await?;
    let start = Instant::now();
    for topics in topics.chunks(512) {
        link.interest.subscribe(topics).await?;
    }
    println!("10,000 topics subscribed in {:?}", start.elapsed());
    Ok(())
}

/// Publications per second, by so many callers, each waiting for its batch before the next.
async fn rate(
    bus: &Arc<RedisBus>,
    callers: usize,
    batch: usize,
    retention: Option<Retention>,
) -> Result<f64, Box<dyn std::error::Error>> {
    let message = Message::json("news", format!("\"{}\"", "x".repeat(PAYLOAD - 2)))?;
    let start = Instant::now();
    let each = PUBLICATIONS / callers / batch;
    let callers: Vec<_> = (0..callers)
        .map(|n| {
            let (bus, message) = (bus.clone(), message.clone());
            tokio::spawn(async move {
                let topic = room(&format!("room {}", n % 100)).expect("it is a name");
                let mut publication = Publication::new(topic, message);
                publication.retention = retention;
                for _ in 0..each {
                    for answer in bus.publish(vec![publication.clone(); batch]).await {
                        answer.expect("Redis is there");
                    }
                }
                each * batch
            })
        })
        .collect();
    let mut published = 0;
    for caller in callers {
        published += caller.await?;
    }
    Ok(published as f64 / start.elapsed().as_secs_f64())
}

/// What the C client of Redis reaches with 50 commands under way on each of its connections.
fn benchmark(redis: &Redis) -> Result<f64, Box<dyn std::error::Error>> {
    let port = redis.address().port().to_string();
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-P", "50", "-n", &PUBLICATIONS.to_string(), "--csv", "PUBLISH"])
        .args(["tidings:{0}:r::room", &"x".repeat(PAYLOAD)])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().ok_or("redis-benchmark printed nothing")?;
    let rate = line.split(',').nth(1).ok_or("redis-benchmark printed no rate")?;
    Ok(rate.trim_matches('"').parse()?)
}

/// What Redis and this process have worked.
struct Meter {
    redis: f64,
    own: f64,
}

impl Meter {
    async fn start(redis: &Redis) -> Result<Self, Box<dyn std::error::Error>> {
        let info = redis.info("cpu").await;
        let of = |name: &str| info.get(name).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        let own = std::fs::read_to_string("/proc/self/stat")?;
        let ticks = own.split(' ').skip(13).take(2).filter_map(|n| n.parse::<f64>().ok());
        let own = ticks.sum::<f64>() / TICKS;
        Ok(Self { redis: of("used_cpu_user_main_thread") + of("used_cpu_sys_main_thread"), own })
    }

    /// Microseconds per message since the start.
    async fn read(&self, redis: &Redis) -> Result<String, Box<dyn std::error::Error>> {
        let now = Self::start(redis).await?;
        let each = |seconds: f64| seconds * 1e6 / PUBLICATIONS as f64;
        Ok(format!("{:.2}, {:.2}", each(now.redis - self.redis), each(now.own - self.own)))
    }
}

fn room(name: &str) -> Result<Topic, tidings_core::NameError> {
    Ok(Topic::room(TenantId::default(), RoomId::new(name)?))
}

/// Of Linux, per second.
const TICKS: f64 = 100.0;
/// Bytes of a payload.
const PAYLOAD: usize = 128;
const PUBLICATIONS: usize = 400_000;
const CALLERS: usize = 16;
const BATCH: usize = 64;
const ROUNDS: usize = 3;
