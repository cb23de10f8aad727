use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::machines::Floors;
use crate::runtime::outbox::Outbox;
use crate::runtime::pass::CHUNK;
use crate::runtime::routed::{NumberedFraming, Receiver};
use crate::runtime::spawn::{client_id, spawn, supervise};
use crate::testing::MemoryPipe;
use crate::{Delivery, GapReason, Mark, Message, Publication, SlowPolicy, UserId};

fn everyone() -> Topic {
    Topic::everyone(TenantId::default())
}

/// A shard with so many connections, whose outboxes nobody empties.
fn shard(connections: usize) -> (Shard, Vec<Arc<Outbox>>) {
    shard_of(connections, usize::MAX)
}

/// A user who is one connection.
fn user(n: usize) -> Topic {
    Topic::user(TenantId::default(), UserId::new(format!("u{n}")).expect("it is a name"))
}

fn slot(outbox: &Arc<Outbox>) -> Slot {
    let who = Receiver {
        tenant: TenantId::default(),
        user: UserId::new("u").expect("it is a name"),
        client: client_id(),
        previous: None,
    };
    Slot::new(outbox.clone(), who, &MemoryPipe::info(), 0, Observing::default())
}

/// The same, where so many bytes may wait for each.
fn shard_of(connections: usize, outbox_bytes: usize) -> (Shard, Vec<Arc<Outbox>>) {
    let (wishes, _) = mpsc::unbounded_channel();
    let second = Duration::from_secs(1);
    let mut shard = Shard::new(
        0,
        wishes,
        second,
        second,
        Arc::default(),
        Observing::default(),
        None,
        None,
        Arc::new(|_| 0),
    );
    let outboxes = (0..connections).map(|n| {
        let outbox = Arc::new(Outbox::new(outbox_bytes, Duration::ZERO, Arc::default()));
        let key = shard.members.router.attach(slot(&outbox));
        shard.members.router.join(key, &everyone());
        shard.members.router.join(key, &user(n));
        outbox
    });
    let outboxes = outboxes.collect();
    (shard, outboxes)
}

fn news(n: usize) -> Arc<Routed> {
    news_under(SlowPolicy::Disconnect, n)
}

fn news_under(policy: SlowPolicy, n: usize) -> Arc<Routed> {
    let message = Message::of("news", &n).expect("a number is JSON");
    let delivery = Delivery::of(&Publication::new(everyone(), message));
    Arc::new(Routed::new(delivery, None, None, policy))
}

/// What is wished for by a connection that comes.
fn wished() -> Wished {
    Wished { topics: Vec::new(), shard: 0, before: 0, wishes: mpsc::unbounded_channel().0 }
}

/// The most connections that are given something between two turns of another task, until all have it.
async fn most_at_once(shard: Shard, outboxes: &[Arc<Outbox>]) -> usize {
    let handle = shard.handle();
    let running = supervised(shard);
    let mut had = 0;
    let mut most = 0;
    while had < outboxes.len() {
        tokio::task::yield_now().await;
        let has = outboxes.iter().filter(|outbox| outbox.queued_bytes() > 0).count();
        most = most.max(has - had);
        had = has;
    }
    handle.end();
    running.notified().await;
    most
}

/// What becomes of each connection before something is delivered.
type Prepare = fn(&mut Flow<Arc<Routed>>);

const LIVE: Prepare = |_| {};
/// It has read a topic up to a mark that is not passed yet.
const PAST: Prepare = |flow| {
    flow.pull();
    let floors = Floors::from([(user(0), Mark::new(1, 9))]);
    flow.go_live(floors, &[], &mut Vec::new()).expect("nothing waits");
    assert!(!flow.is_live() && !flow.is_held());
};
/// It reads, and what is dispatched waits, up to the limit.
const HELD: Prepare = |flow| flow.pull();

#[tokio::test]
async fn a_pass_is_bounded_under_every_policy_and_in_every_state() {
    let policies = [SlowPolicy::Disconnect, SlowPolicy::DropOldest, SlowPolicy::KeepLatest];
    let states = [(LIVE, usize::MAX), (PAST, usize::MAX), (HELD, 100)];
    for (policy, (prepare, outbox_bytes), messages) in policies
        .into_iter()
        .flat_map(|policy| states.map(|state| (policy, state)))
        .flat_map(|(policy, state)| [1, 3].map(|messages| (policy, state, messages)))
    {
        let (mut shard, outboxes) = shard_of(MANY, outbox_bytes);
        for number in 0..MANY as u32 {
            prepare(&mut shard.members.router.at_mut(number).expect("it is there").flow);
        }
        (0..messages).for_each(|n| shard.handle().deliver(news_under(policy, n)));
        let most = most_at_once(shard, &outboxes).await;
        assert!(most <= CHUNK, "{most} at once: {policy:?}, {outbox_bytes}, {messages} messages");
    }
}

#[tokio::test]
async fn gaps_are_bounded_of_one_topic_and_of_many() {
    let (shard, outboxes) = shard(MANY);
    shard.handle().gap(everyone(), GapReason::Outage, None);
    let most = most_at_once(shard, &outboxes).await;
    assert!(most <= CHUNK, "{most} at once are told of a gap of one topic");
    let (shard, outboxes) = shard_of(MANY, usize::MAX);
    (0..MANY).for_each(|n| shard.handle().gap(user(n), GapReason::Outage, None));
    let most = most_at_once(shard, &outboxes).await;
    assert!(most <= CHUNK, "{most} at once are told of gaps of their own");
}

#[tokio::test]
async fn who_comes_and_who_joins_lets_others_go_between() {
    let (shard, _) = shard(0);
    let outboxes: Vec<_> = (0..MANY)
        .map(|_| Arc::new(Outbox::new(usize::MAX, Duration::ZERO, Arc::default())))
        .collect();
    for outbox in &outboxes {
        let slot = slot(outbox);
        shard.handle().run(move |members| {
            let said = Outgoing::draining(1);
            let wished = wished();
            members.attach(slot, &[everyone()], wished, Some(said));
        });
    }
    let most = most_at_once(shard, &outboxes).await;
    assert!(most <= CHUNK, "{most} came at once");

    let (shard, outboxes) = self::shard(MANY);
    let keys: Vec<_> = shard.members.router.iter().map(|(key, _)| key).collect();
    for key in keys {
        shard.handle().run(move |members| {
            let said = Outgoing::draining(1);
            members.join_room(key, &user(0), wished(), 0, Some(said));
        });
    }
    let most = most_at_once(shard, &outboxes).await;
    assert!(most <= CHUNK, "{most} joined at once");
}

#[tokio::test]
async fn questions_let_others_go_between() {
    let (shard, _) = shard(0);
    let handle = shard.handle();
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..MANY {
        let (handle, answered) = (handle.clone(), answered.clone());
        spawn(async move {
            handle.look(move |_| answered.fetch_add(1, Ordering::Relaxed)).await;
        });
    }
    let running = supervised(shard);
    let mut had = 0;
    while had < MANY {
        tokio::task::yield_now().await;
        let has = answered.load(Ordering::Relaxed);
        assert!(has - had <= CHUNK, "{} at once are answered", has - had);
        had = has;
    }
    handle.end();
    running.notified().await;
}

#[tokio::test]
async fn a_pass_over_a_flood_is_bounded_and_keeps_the_order() {
    let (shard, outboxes) = shard(50);
    let handle = shard.handle();
    for n in 0..FLOOD {
        handle.deliver(news(n));
    }
    let (most, all) = (Arc::new(AtomicUsize::new(0)), (0..FLOOD).map(|n| frame(n).len()).sum());
    let running = supervised(shard);
    let looking = async {
        while outboxes.iter().any(|outbox| outbox.queued_bytes() < all) {
            let most = most.clone();
            let noted = |members: &Members| {
                members.router.iter().map(|(_, slot)| slot.pending.len()).sum::<usize>()
            };
            let seen = handle.look(move |m| most.fetch_max(noted(m), Ordering::Relaxed)).await;
            assert!(seen.is_some());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("all is handed out");
    let most = most.load(Ordering::Relaxed);
    assert!((1..=50 * 512).contains(&most), "{most} notes at once");
    handle.end();
    running.notified().await;
    for outbox in outboxes {
        for n in 0..FLOOD {
            assert_eq!(outbox.hold_front(), Some(frame(n)));
            assert!(outbox.taken(frame(n).len()));
        }
    }
}

#[tokio::test]
async fn whoever_asks_a_shard_that_panicked_is_answered_and_its_connections_end() {
    let (shard, outboxes) = shard(3);
    let handle = shard.handle();
    let running = supervised(shard);
    assert_eq!(handle.ask(|members| members.router.len()).await, Some(3));
    let panics = |_: &mut Members| panic!("the test asked for it");
    assert_eq!(handle.ask::<()>(panics).await, None);
    running.notified().await;
    assert_eq!(handle.ask(|members| members.router.len()).await, None);
    assert_eq!(handle.look(|members| members.router.len()).await, None);
    for n in 0..10 {
        handle.deliver(news(n));
    }
    handle.below(0).await;
    assert!(outboxes.iter().all(|outbox| outbox.ended() == Some(CloseReason::INTERNAL)));
}

#[test]
fn a_sweep_looks_at_a_few_connections_in_one_go() {
    let (mut shard, outboxes) = shard(SWEPT as usize + 1);
    for n in 0..=SWEPT {
        shard.members.router.at_mut(n).expect("it is there").next_ping = Duration::ZERO;
    }
    let pinged = || outboxes.iter().filter(|outbox| outbox.queued_bytes() > 0).count();
    let mut sweep = Sweep::default();
    assert!(!shard.members.sweep(&mut sweep));
    assert_eq!(pinged(), SWEPT as usize);
    assert!(shard.members.sweep(&mut sweep));
    assert_eq!(pinged(), SWEPT as usize + 1);
}

#[test]
fn a_list_looks_at_a_few_connections_in_one_go() {
    let (shard, _) = shard(MANY);
    let mut next = Some(0);
    let mut seen = 0;
    while let Some(first) = next {
        let before = shard.members.router.looked_at();
        let (some, later) = shard.members.see(first);
        // One look at the connection, one at its topics.
        assert!(shard.members.router.looked_at() - before <= 2 * CHUNK);
        (seen, next) = (seen + some.len(), later);
    }
    assert_eq!(seen, MANY);
}

/// Runs a shard; told once when it has ended, in whatever way.
fn supervised(shard: Shard) -> Arc<Notify> {
    let ended = Arc::new(Notify::new());
    let (by_itself, by_panic) = (ended.clone(), ended.clone());
    let run = async move {
        shard.run().await;
        by_itself.notify_one();
    };
    supervise(run, move || by_panic.notify_one());
    ended
}

fn frame(n: usize) -> bytes::Bytes {
    let framing = NumberedFraming { framing: MemoryPipe::info().framing, number: 0 };
    news(n).frame(framing, &Observing::default()).expect("it can be framed")
}

const FLOOD: usize = 5000;
/// Far more connections than are looked after in one go.
const MANY: usize = 1000;
