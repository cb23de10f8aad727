//! Every protection is needed: a fault is survived with it and not without, all else being equal. Where the probe would
//! find the same fault, it comes so rarely that only the protection can.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream;
use tidings_bus_redis::{Protection, RedisBus, RedisConfig};
use tidings_core::Bus;
use tidings_redis_testing::{Cluster, Options, PATIENCE, Redis, SentinelTrio, Traffic, until};
use tokio::time::{sleep, timeout};

use crate::buses::{config, nodes, shared, two};
use crate::errors::{Refusal, another_password, is_told};
use crate::failover::{busiest, cluster_url, moves_slots, sentinel_url, sentinels_url};
use crate::many::ten_thousand_topics;
use crate::network::{behind_a_proxy, moves_to_the_replica, with_a_replica};
use crate::restart::overflow;
use crate::scene::{ROOMS, Scene, publication};

/// A bus to try a fault on, and for how long.
pub(crate) struct Trial {
    pub(crate) config: RedisConfig,
    bound: Duration,
}

impl Trial {
    pub(crate) async fn scene(&self, url: &str) -> Scene {
        Scene::start(shared(two(url, self.config.clone()).await)).await
    }

    /// Whether every node serves again; if nothing is taken away, then as every fault test ends.
    pub(crate) async fn survived_by(&self, mut scene: Scene) -> bool {
        let survived = self.reached(scene.round_trips()).await;
        if survived && self.config.without.is_none() {
            scene.serves_again().await;
        }
        survived
    }

    /// Whether it comes to this.
    pub(crate) async fn reached(&self, good: impl Future<Output = ()>) -> bool {
        timeout(self.bound, good).await.is_ok()
    }
}

/// Whether the fault was survived.
type Fault = fn(Trial) -> LocalBoxFuture<'static, bool>;

macro_rules! twins {
    ($($test:ident { $($fault:expr, without $protection:ident, $probes:expr;)+ })*) => {$(
        #[tokio::test]
        async fn $test() {
            let pairs: Vec<(&str, Fault, Protection, Duration)> = vec![$((
                stringify!($fault), |trial| Box::pin(($fault)(trial)), Protection::$protection, $probes,
            )),+];
            stream::iter(pairs).for_each_concurrent(AT_A_TIME, twins).await;
        }
    )*};
}

async fn twins((name, fault, protection, probes): (&str, Fault, Protection, Duration)) {
    let mut config = config();
    config.probe_interval = probes;
    let with = Trial { config: config.clone(), bound: PATIENCE };
    config.without = Some(protection);
    let without = Trial { config, bound: BOUND };
    let (with, without) = tokio::join!(fault(with), fault(without));
    assert!(with, "{name} was not survived, with all protections");
    assert!(
        !without,
        "{name} was survived without {protection:?}: nothing proves that it is needed"
    );
}

twins! {
    of_one_redis {
        killed, without Ending, RARELY;
        killed, without Persistence, OFTEN;
        listeners_are_cut, without Ending, RARELY;
        a_buffer_is_full, without Ending, RARELY;
        connections_are_reset, without Ending, RARELY;
        half_open, without Suspicion, OFTEN;
        demoted, without Suspicion, OFTEN;
        full, without FullRedis, OFTEN;
        nobody_is_there, without FirstAnswer, OFTEN;
    }

    of_many_topics {
        ten_thousand_topics, without Ending, RARELY;
    }

    of_what_redis_refuses {
        |t| is_told(t, Refusal::Busy), without ToldApart, OFTEN;
        |t| is_told(t, Refusal::OutOfMemory), without ToldApart, OFTEN;
        |t| is_told(t, Refusal::NoPermission), without ToldApart, OFTEN;
        |t| is_told(t, Refusal::Loading), without ToldApart, OFTEN;
        |t| is_told(t, Refusal::WrongPassword), without ToldApart, OFTEN;
        another_password, without Persistence, OFTEN;
    }

    of_sentinels {
        a_primary_is_killed, without Persistence, RARELY;
        a_primary_hangs, without Left, RARELY;
        another_is_named, without Replaced, OFTEN;
        sentinels_name_a_replica, without Role, OFTEN;
        sentinels_name_a_replica, without OtherAnswers, OFTEN;
        a_sentinel_hangs, without Late, OFTEN;
    }

    of_a_cluster {
        slots_move, without Unsubscribed, RARELY;
        slots_refuse, without MovedRetry, OFTEN;
        a_node_is_killed, without Ending, RARELY;
        a_node_is_killed, without Refresh, OFTEN;
    }
}

async fn killed(trial: Trial) -> bool {
    let mut redis = Redis::start(Options::default()).await;
    let mut scene = trial.scene(&redis.url()).await;
    redis.kill9();
    // So that an attempt has failed.
    scene.during(sleep(Duration::from_secs(1))).await;
    redis.restart().await;
    trial.survived_by(scene).await
}

async fn listeners_are_cut(trial: Trial) -> bool {
    let redis = Redis::start(Options::default()).await;
    let scene = trial.scene(&redis.url()).await;
    assert!(redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.int() >= 2);
    trial.survived_by(scene).await
}

async fn a_buffer_is_full(trial: Trial) -> bool {
    let redis = Redis::start(Options::default()).await;
    let mut scene = trial.scene(&redis.url()).await;
    scene.during(overflow(&redis)).await;
    trial.survived_by(scene).await
}

async fn connections_are_reset(trial: Trial) -> bool {
    let (_redis, proxy, url) = behind_a_proxy().await;
    let scene = trial.scene(&url).await;
    proxy.reset();
    trial.survived_by(scene).await
}

/// What was sent for a second is lost, and its connections with it.
async fn half_open(trial: Trial) -> bool {
    let (_redis, proxy, url) = behind_a_proxy().await;
    let mut scene = trial.scene(&url).await;
    proxy.set(Traffic::Drop);
    scene.during(sleep(Duration::from_secs(1))).await;
    proxy.set(Traffic::Pass);
    trial.survived_by(scene).await
}

/// The node keeps its connections to what has become a replica.
async fn demoted(trial: Trial) -> bool {
    let (old, new, proxy, url) = with_a_replica().await;
    let scene = trial.scene(&url).await;
    moves_to_the_replica(&proxy, &old, &new).await;
    trial.survived_by(scene).await
}

/// Nothing here is kept, so a full Redis can pass it on.
async fn full(trial: Trial) -> bool {
    let redis = Redis::start(Options::default()).await;
    let scene = trial.scene(&redis.url()).await;
    redis.config_set("maxmemory", "1").await;
    trial.survived_by(scene).await
}

/// Whoever asks for a bus is told that there is no Redis.
async fn nobody_is_there(trial: Trial) -> bool {
    RedisBus::connect("redis://127.0.0.1:1", trial.config).await.is_err()
}

async fn a_primary_is_killed(trial: Trial) -> bool {
    let mut trio = SentinelTrio::start(Options::default()).await;
    let scene = trial.scene(&sentinel_url(&trio)).await;
    trio.servers[0].kill9();
    trio.promoted(1).await;
    trial.survived_by(scene).await
}

async fn a_primary_hangs(trial: Trial) -> bool {
    let trio = SentinelTrio::start(Options::default()).await;
    let mut scene = trial.scene(&sentinel_url(&trio)).await;
    trio.servers[0].sigstop();
    scene.during(trio.promoted(1)).await;
    trial.survived_by(scene).await
}

/// An operator names another primary, and the old one goes on. Nodes that stay there find nothing wrong with it.
async fn another_is_named(trial: Trial) -> bool {
    let (old, new) =
        (Redis::start(Options::default()).await, Redis::start(Options::default()).await);
    let sentinel = Redis::sentinel_of(&old).await;
    let _scene = trial.scene(&sentinels_url(&[&sentinel])).await;
    sentinel.take_for_primary(&new).await;
    let followed = until("listeners there", async || {
        let channels = new.cli(&["PUBSUB", "CHANNELS", "tidings:*"]).await.list();
        !channels.is_empty()
    });
    trial.reached(followed).await
}

/// Most Sentinels take a replica for the primary, one knows better.
async fn sentinels_name_a_replica(trial: Trial) -> bool {
    let (primary, replica, ..) = with_a_replica().await;
    let wrong = [Redis::sentinel_of(&replica).await, Redis::sentinel_of(&replica).await];
    let right = Redis::sentinel_of(&primary).await;
    let url = sentinels_url(&[&wrong[0], &wrong[1], &right]);
    match RedisBus::connect(&url, trial.config).await {
        Ok(bus) => bus.publish(vec![publication(0, 0)]).await[0].is_ok(),
        Err(_) => false,
    }
}

async fn a_sentinel_hangs(mut trial: Trial) -> bool {
    let redis = Redis::start(Options::default()).await;
    let (hung, sentinel) = (Redis::sentinel_of(&redis).await, Redis::sentinel_of(&redis).await);
    hung.sigstop();
    // Nor does its network say that it is gone.
    trial.config.connect_timeout = Duration::from_secs(60);
    let bus = RedisBus::connect(&sentinels_url(&[&hung, &sentinel]), trial.config).await;
    bus.is_ok()
}

async fn slots_move(trial: Trial) -> bool {
    let cluster = Cluster::start(Options::default()).await;
    let scene = trial.scene(&cluster_url(&cluster)).await;
    moves_slots(&cluster).await;
    trial.survived_by(scene).await
}

/// No publication is refused because its slot has moved, also by a node that knows nothing of it yet.
async fn slots_refuse(mut trial: Trial) -> bool {
    let cluster = Cluster::start(Options::default()).await;
    let url = cluster_url(&cluster);
    let scene = Scene::start(nodes(&url).await).await;
    trial.config.deadline = Duration::from_secs(20);
    let bus = RedisBus::connect(&url, trial.config).await.expect("the cluster is there");
    let publish = async || {
        let answers =
            bus.publish((0..ROOMS).map(|room| publication(room, UNHEARD)).collect()).await;
        answers.iter().all(Result::is_ok)
    };
    assert!(publish().await, "all is well");
    moves_slots(&cluster).await;
    let published = publish().await;
    scene.serves_again().await;
    published
}

async fn a_node_is_killed(trial: Trial) -> bool {
    let mut cluster = Cluster::start(Options::default()).await;
    let scene = trial.scene(&cluster_url(&cluster)).await;
    let (busiest, slot) = busiest(&cluster).await;
    cluster.nodes[busiest].kill9();
    until("the promotion", async || cluster.owner(slot).await == busiest + 3).await;
    trial.survived_by(scene).await
}

/// No number of a scene.
const UNHEARD: u64 = 1 << 40;
/// Far longer than a trial.
const RARELY: Duration = Duration::from_secs(3600);
/// As in the other tests.
const OFTEN: Duration = Duration::from_secs(1);
/// How long a bus that lacks something may try; far longer than the protection takes.
const BOUND: Duration = Duration::from_secs(12);
/// Pairs at a time.
const AT_A_TIME: usize = 3;
