//! What waits is bounded in bytes, on the way out and on the way in, whatever Redis or a reader does.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::{Bus, BusError, BusLink, History, Presence, Publication, Receipt, Topic};
use tidings_redis_testing::{Options, Redis, in_time, until};
use tokio::sync::watch;

use crate::buses::{config, shared, two};
use crate::scene::{Scene, publication};

/// Publishes a few thousand at once while Redis hangs; all are answered. The most bytes that waited, and how many were
/// refused because too many did.
async fn publishers_while_redis_hangs(config: RedisConfig) -> (u64, usize) {
    let redis = Redis::start(Options::default()).await;
    let buses = two(&redis.url(), config).await;
    let scene = Scene::start(shared(buses.clone())).await;
    redis.sigstop();
    let bus = &buses[0];
    let most = Mutex::new(0);
    let publishers = (0..PUBLISHERS).map(async |n| {
        let answers = bus.publish(vec![publication(n % 8, UNHEARD + n)]);
        let looks = async {
            let waiting = bus.stats().publish_bytes;
            let mut most = most.lock().unwrap_or_else(PoisonError::into_inner);
            *most = waiting.max(*most);
        };
        tokio::join!(answers, looks).0.remove(0)
    });
    let answers = in_time("every publisher to be answered", join_all(publishers)).await;
    let full = |answer: &Result<Receipt, BusError>| match answer {
        Err(BusError::Unavailable(text)) => text.contains("waiting already"),
        Err(_) => false,
        Ok(_) => panic!("published while Redis hangs"),
    };
    let refused = answers.iter().filter(|answer| full(answer)).count();
    redis.sigcont();
    until("nothing to wait", async || bus.stats().publish_bytes == 0).await;
    scene.serves_again().await;
    (most.into_inner().unwrap_or_else(PoisonError::into_inner), refused)
}

#[tokio::test]
async fn publishers_wait_in_bounded_memory() {
    let bound = 64 << 10;
    let mut config = config();
    config.publish_bytes = usize::MAX;
    let unbounded = publishers_while_redis_hangs(config.clone());
    config.publish_bytes = bound;
    let ((most, refused), (unbounded, none)) =
        tokio::join!(publishers_while_redis_hangs(config), unbounded);
    let bound = bound as u64;
    assert!(most <= bound && refused > 0, "{most} bytes waited, {refused} were refused");
    assert!(unbounded > bound && none == 0, "the bound was never met: {unbounded} bytes waited");
}

/// A bus whose links are read while its gate is open.
#[derive(Debug)]
struct Gated(RedisBus, watch::Receiver<bool>);

#[async_trait]
impl Bus for Gated {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.0.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        self.0.partitions()
    }

    fn partition(&self, topic: &Topic) -> u16 {
        self.0.partition(topic)
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        let BusLink { interest, deliveries } = self.0.connect(partition).await?;
        let gate = self.1.clone();
        let gated = deliveries.then(move |delivery| {
            let mut gate = gate.clone();
            async move {
                // A gate that is gone stays as it was.
                let _ = gate.wait_for(|open| *open).await;
                delivery
            }
        });
        Ok(BusLink { interest, deliveries: gated.boxed() })
    }

    fn history(&self) -> Option<&dyn History> {
        self.0.history()
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.0.presence()
    }
}

#[tokio::test]
async fn a_slow_reader_is_cut_and_misses_nothing_that_is_kept() {
    let redis = Redis::start(Options::default()).await;
    let bound: usize = 16 << 10;
    let mut config = config();
    config.queue_bytes = bound;
    let [slow, other] = two(&redis.url(), config).await;
    let (gate, open) = watch::channel(true);
    let gated: Arc<dyn Bus> = Arc::new(Gated(slow.clone(), open));
    let mut scene = Scene::start_kept([gated, Arc::new(other)]).await;
    let (bus, mut most) = (slow, 0);
    scene
        .during(async {
            gate.send_replace(false);
            until("the link to end", async || {
                most = bus.stats().queue_bytes.max(most);
                bus.stats().links_ended > 0
            })
            .await;
            gate.send_replace(true);
        })
        .await;
    assert!(most > 0 && most <= bound as u64, "{most} bytes waited");
    scene.serves_again().await;
}

#[tokio::test]
async fn a_link_that_is_not_read_ends_as_lagged() {
    let redis = Redis::start(Options::default()).await;
    let mut config = config();
    config.queue_bytes = 16 << 10;
    let [bounded, publisher] = two(&redis.url(), config.clone()).await;
    // The twin's bound is never met.
    config.queue_bytes = usize::MAX;
    let [unbounded, _] = two(&redis.url(), config).await;
    let topic = publication(0, 0).topic;
    let mut links = Vec::new();
    for bus in [&bounded, &unbounded] {
        let mut link = in_time("a link", bus.connect(0)).await.expect("Redis is there");
        let subscribe = link.interest.subscribe(std::slice::from_ref(&topic));
        in_time("a subscribe", subscribe).await.expect("Redis is there");
        links.push(link);
    }
    let batch = (0..MESSAGES).map(|n| publication(0, n)).collect();
    for answer in in_time("publishing", publisher.publish(batch)).await {
        answer.expect("Redis is there");
    }
    let mut read = async |link: usize| {
        let mut heard = 0;
        while heard < MESSAGES {
            match in_time("a delivery", links[link].deliveries.next()).await {
                Some(Ok(_)) => heard += 1,
                end => return (heard, end.map(|end| end.expect_err("it is no delivery"))),
            }
        }
        (heard, None)
    };
    let (heard, end) = read(0).await;
    assert!(heard > 0 && heard < MESSAGES, "{heard} were heard");
    assert!(matches!(end, Some(BusError::Lagged(_))), "{end:?}");
    assert!(matches!(read(1).await, (MESSAGES, None)));
}

const PUBLISHERS: u64 = 4000;
const MESSAGES: u64 = 1000;
/// No number of a scene.
const UNHEARD: u64 = 1 << 40;
