//! What every [`Presence`] promises, one function per law.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::bus_laws::BusFixture;
use super::bus_node::{Node, PAUSE, answered, in_time, room};
use super::history_node::{LONG, all_at_once};
use super::script::{Dice, HOSTILE, hostile_topics, in_background, user};
use crate::{Bus, Claim, NodeId, Presence, Tally, Topic, UserId};

/// Over several nodes a user comes with its first connection and goes with its last, and each claim says what it
/// changed.
pub async fn presence_counts_over_all_nodes<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let (topic, ann) = (room("lobby"), user("ann"));
    let script = [
        ("n1", 1, 0, 1),
        ("n2", 2, 1, 3),
        ("n1", 3, 3, 5),
        ("n1", 0, 5, 2),
        ("n1", 0, 2, 2),
        ("n2", 1, 2, 1),
        ("n2", 0, 1, 0),
        ("n2", 0, 0, 0),
        ("n3", u32::MAX, 0, u64::from(u32::MAX)),
        ("n1", u32::MAX, u64::from(u32::MAX), 2 * u64::from(u32::MAX)),
        ("n3", 0, 2 * u64::from(u32::MAX), u64::from(u32::MAX)),
        ("n1", 0, u64::from(u32::MAX), 0),
    ];
    for (node, connections, before, after) in script {
        let tally = door.claim(node, &topic, &ann, connections).await;
        assert_eq!(tally, Tally { before, after }, "{node} has {connections}");
        let members = if after > 0 { vec![ann.clone()] } else { Vec::new() };
        door.has(&topic, &members).await;
    }
    assert!(door.expire().await.is_empty(), "nobody is gone whose claim was ended");
}

/// Repeating a claim changes nothing.
pub async fn presence_is_level_triggered<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    for connections in [1, 7, 2, 0] {
        let before = door.claim("n1", &topic, &user("ann"), connections).await;
        for _ in 0..3 {
            let after = door.claim("n1", &topic, &user("ann"), connections).await;
            assert_eq!(after, Tally { before: before.after, after: before.after });
        }
    }
}

/// A batch has one answer per claim, in order, as its claims one by one would.
pub async fn a_batch_of_claims_equals_its_singles<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let (one, other) = (room("one"), room("other"));
    let claim = |topic: &Topic, name, connections| claim_of(topic, &user(name), connections);
    let batch = [
        claim(&one, "ann", 1),
        claim(&other, "ann", 2),
        claim(&one, "ann", 3),
        claim(&one, "bob", 1),
        claim(&one, "bob", 0),
        claim(&other, "bob", 0),
    ];
    let tallies = door.claims("n1", LONG, &batch).await;
    let expected = [(0, 1), (0, 2), (1, 3), (0, 1), (1, 0), (0, 0)];
    assert_eq!(tallies, expected.map(|(before, after)| Tally { before, after }));
    assert!(door.claims("n1", LONG, &[]).await.is_empty());
    door.has(&one, &[user("ann")]).await;
}

/// However many nodes claim at once, one of them sees the user come and one sees it go.
pub async fn concurrent_claims_see_one_come_and_one_go<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let (topic, users) = (room("lobby"), ["ann", "bob", "cat"].map(user));
    for round in 0..10_u32 {
        for connections in [1 + round % 3, 0] {
            let nodes = (0..8).map(|node| {
                let (bus, topic, users) = (door.fixture.bus(), topic.clone(), users.clone());
                async move {
                    let claims = users.map(|user| claim_of(&topic, &user, connections));
                    claim(&bus, &format!("n{node}"), LONG, &claims).await
                }
            });
            let tallies = all_at_once(nodes).await;
            for n in 0..users.len() {
                let of_user = || tallies.iter().map(|tallies| tallies[n]);
                let came = of_user().filter(|tally| tally.before == 0).count();
                let went = of_user().filter(|tally| tally.after == 0).count();
                let expected = if connections > 0 { (1, 0) } else { (0, 1) };
                assert_eq!((came, went), expected, "{:?}", of_user().collect::<Vec<_>>());
                let mut steps: Vec<_> = of_user().map(|t| (t.before, t.after)).collect();
                steps.sort_by_key(|step| if connections > 0 { step.0 } else { step.1 });
                let each = u64::from(1 + round % 3);
                let ladder = (0..8).map(|step| (step * each, (step + 1) * each));
                let ladder = ladder.map(|(low, high)| match connections {
                    0 => (high, low),
                    _ => (low, high),
                });
                assert_eq!(steps, ladder.collect::<Vec<_>>(), "one claim after another");
            }
        }
    }
    door.has(&topic, &[]).await;
}

/// Members are listed once and sorted, from whichever nodes they come, and counted.
pub async fn members_are_sorted<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    let mut members = BTreeSet::new();
    for n in 0..200_usize {
        let name = format!("user {}", n * 7919 % 150);
        door.claim(&format!("n{}", n % 3), &topic, &user(&name), 1).await;
        members.insert(user(&name));
    }
    for name in HOSTILE.into_iter().rev().chain(["Z", "z", "é", "10", "9"]) {
        door.claim("n1", &topic, &user(name), 1).await;
        members.insert(user(name));
    }
    door.has(&topic, &members.into_iter().collect::<Vec<_>>()).await;
    door.has(&room("nobody"), &[]).await;
}

/// Who is in one topic is in no other, however topics, users and nodes are called.
pub async fn presence_never_leaks<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topics = hostile_topics();
    let guest = |n: usize| [user(HOSTILE[n % 14]), user(&format!("guest {n}"))];
    for (n, topic) in topics.iter().enumerate() {
        let claims = guest(n).map(|user| claim_of(topic, &user, 1));
        let tallies = door.claims(HOSTILE[n % 13], LONG, &claims).await;
        assert_eq!(tallies, [Tally { before: 0, after: 1 }; 2], "{topic:?}");
    }
    for (n, topic) in topics.iter().enumerate() {
        let mut members = guest(n);
        members.sort();
        door.has(topic, &members).await;
    }
    for (n, topic) in topics.iter().enumerate() {
        let other = door.claim(HOSTILE[(n + 1) % 13], topic, &guest(n)[0], 0).await;
        assert_eq!(other, Tally { before: 1, after: 1 }, "a node ends its own claims only");
        for user in guest(n) {
            let own = door.claim(HOSTILE[n % 13], topic, &user, 0).await;
            assert_eq!(own, Tally { before: 1, after: 0 }, "{topic:?}");
        }
        door.has(topic, &[]).await;
    }
}

/// A lease that ran out ends the claims of its node: each user that is gone is answered once over all that ask, and
/// one that another node still has is not.
pub async fn an_ended_lease_is_answered_once<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topics = [room("one"), room("two")];
    let names: Vec<_> = (0..20).map(|n| format!("user {n}")).collect();
    let everyone = |topic| names.iter().map(move |name| claim_of(topic, &user(name), 2));
    let claims: Vec<_> = topics.iter().flat_map(everyone).collect();
    door.claims("stays", LONG, &[claim_of(&topics[0], &user("user 7"), 1)]).await;
    door.claims("dies", BRIEF, &claims).await;
    let mut expected: BTreeSet<_> =
        claims.iter().map(|c| (c.topic.clone(), c.user.clone())).collect();
    expected.remove(&(topics[0].clone(), user("user 7")));
    let gone = door.gone(expected.len()).await;
    assert_eq!(gone.len(), expected.len(), "each once");
    assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), expected);
    door.has(&topics[0], &[user("user 7")]).await;
    door.has(&topics[1], &[]).await;
    assert!(!door.renew("dies", LONG).await, "a node that is gone claims all again");
    let tally = door.claim("dies", &topics[0], &user("user 7"), 1).await;
    assert_eq!(tally, Tally { before: 1, after: 2 });
}

/// When the last lease of users ends while they come elsewhere, each is either answered as gone and seen to come, or
/// neither.
pub async fn an_end_and_a_claim_agree<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    let users: Vec<_> = (0..50).map(|n| user(&format!("user {n}"))).collect();
    let claims = |n| users.iter().map(|user| claim_of(&topic, user, n)).collect::<Vec<_>>();
    for _ in 0..10 {
        door.claims("dies", TINY, &claims(2)).await;
        tokio::time::sleep(TINY + PAUSE).await;
        let (bus, one_by_one) = (door.fixture.bus(), claims(1));
        let comes = in_background(async move {
            let mut tallies = Vec::new();
            for one in one_by_one {
                tallies.extend(claim(&bus, "lives", LONG, &[one]).await);
            }
            tallies
        });
        let gone = door.gone(0).await;
        let came = comes.await.expect("the claims do not fail");
        assert!(door.expire().await.is_empty(), "the lease was ended before");
        for (user, tally) in users.iter().zip(came) {
            let gone = gone.iter().filter(|(_, gone)| gone == user).count();
            assert_eq!(gone, usize::from(tally.before == 0), "{user:?}: {tally:?}");
        }
        let went = door.claims("lives", LONG, &claims(0)).await;
        assert_eq!(went, vec![Tally { before: 1, after: 0 }; users.len()]);
    }
}

/// A lease is kept by renewing it and by claiming.
pub async fn a_renewed_lease_lives<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    assert!(!door.renew("unknown", LONG).await, "an unknown node has nothing to renew");
    assert!(door.renew("unknown", LONG).await, "its lease has begun");
    let attempts = async {
        loop {
            door.claims("n1", HALF, &[claim_of(&topic, &user("ann"), 1)]).await;
            door.claims("n2", HALF, &[claim_of(&topic, &user("bob"), 1)]).await;
            door.claims("n2", LONG, &[claim_of(&topic, &user("cat"), 1)]).await;
            if door.renew("n1", LONG).await {
                break;
            }
        }
    };
    in_time("a lease to be renewed before it ends", attempts).await;
    tokio::time::sleep(HALF + HALF / 4).await;
    assert!(door.expire().await.is_empty(), "the lease counts from its renewal");
    door.has(&topic, &["ann", "bob", "cat"].map(user)).await;
    assert!(!door.renew("n2", LONG).await, "its lease began with a claim");
    assert!(door.renew("n1", LONG).await && door.renew("n2", LONG).await);
    assert!(!door.renew("n3", LONG).await);
}

/// That a lease began anew is told once, by the next renewal, although claims came before it.
pub async fn a_loss_is_told_however_soon_a_claim_follows<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    let known = async || {
        assert!(!door.renew("n1", LONG).await, "the lease began with a claim");
        assert!(door.renew("n1", LONG).await, "it was told");
    };
    door.claim("n1", &topic, &user("ann"), 1).await;
    known().await;
    door.fixture.lose_store().await;
    Node::join(door.fixture.bus()).await;
    door.claim("n1", &topic, &user("bob"), 1).await;
    door.claim("n1", &topic, &user("bob"), 2).await;
    known().await;
    door.claims("n1", TINY, &[claim_of(&topic, &user("bob"), 1)]).await;
    assert_eq!(door.gone(1).await, [(topic.clone(), user("bob"))]);
    door.claim("n1", &topic, &user("cat"), 1).await;
    known().await;
}

/// A node that claims again after its lease had run out has what it claimed again, and nothing from before: what it
/// did not is answered as gone, what it did is not.
pub async fn a_late_node_begins_anew<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    let claims = ["ann", "bob", "cat"].map(|name| claim_of(&topic, &user(name), 1));
    door.claims("late", BRIEF, &claims).await;
    tokio::time::sleep(BRIEF + BRIEF / 4).await;
    assert!(!door.renew("late", LONG).await, "its lease had run out");
    door.claims("late", LONG, &claims[..1]).await;
    let mut gone = door.gone(2).await;
    gone.sort();
    assert_eq!(gone, ["bob", "cat"].map(|name| (topic.clone(), user(name))));
    door.has(&topic, &[user("ann")]).await;
    assert!(door.renew("late", LONG).await);
    let tally = door.claim("late", &topic, &user("ann"), 0).await;
    assert_eq!(tally.after, 0, "nothing from before counts: {tally:?}");
}

/// After a loss nobody is there and no node is known; who claims again is seen to come.
pub async fn presence_is_claimed_again_after_a_loss<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    for _ in 0..3 {
        let tallies = [door.claim("n1", &topic, &user("ann"), 2).await];
        assert_eq!(tallies, [Tally { before: 0, after: 2 }]);
        door.claim("n2", &topic, &user("ann"), 1).await;
        door.fixture.lose_store().await;
        Node::join(door.fixture.bus()).await;
        assert!(!door.renew("n1", LONG).await && !door.renew("n2", LONG).await);
        door.has(&topic, &[]).await;
        assert!(door.expire().await.is_empty(), "what was lost is not answered");
    }
}

/// Nodes that claim at random are where a map says they are.
pub async fn a_random_presence_agrees_with_the_model<F: BusFixture>() {
    for seed in 1..=SCRIPTS {
        let Some(door) = Door::<F>::open().await else { return };
        println!("script {seed}");
        let mut dice = Dice(seed);
        let topics: Vec<_> = hostile_topics().into_iter().step_by(9).take(4).collect();
        let mut model = BTreeMap::new();
        for _ in 0..STEPS {
            let node = dice.below(3);
            let draw = |_| (dice.below(4), dice.below(5), dice.below(3) as u32);
            let script: Vec<_> = (0..1 + seed as usize % 4).map(draw).collect();
            let claims: Vec<_> = script
                .iter()
                .map(|&(topic, name, n)| claim_of(&topics[topic], &user(HOSTILE[name]), n))
                .collect();
            let tallies = door.claims(&format!("n{node}"), LONG, &claims).await;
            for ((topic, name, connections), tally) in script.into_iter().zip(tallies) {
                let before = total(&model, topic, name);
                model.insert((topic, name, node), u64::from(connections));
                let after = total(&model, topic, name);
                assert_eq!(tally, Tally { before, after });
            }
        }
        for (n, topic) in topics.iter().enumerate() {
            let present = (0..5).filter(|&name| total(&model, n, name) > 0);
            let mut members: Vec<_> = present.map(|name| user(HOSTILE[name])).collect();
            members.sort();
            door.has(topic, &members).await;
        }
    }
}

fn total(model: &BTreeMap<(usize, usize, usize), u64>, topic: usize, name: usize) -> u64 {
    (0..3).filter_map(|node| model.get(&(topic, name, node))).sum()
}

/// A bus that knows presence.
struct Door<F> {
    fixture: F,
    bus: Arc<dyn Bus>,
}

impl<F: BusFixture> Door<F> {
    /// `None` when the fixture says that there is no presence, and it is true.
    async fn open() -> Option<Self> {
        let fixture = F::start().await;
        let bus = fixture.bus();
        assert_eq!(bus.presence().is_some(), F::PRESENCE, "the fixture's word is the bus's deed");
        F::PRESENCE.then_some(Self { fixture, bus })
    }

    async fn claim(&self, node: &str, topic: &Topic, user: &UserId, connections: u32) -> Tally {
        let claim = claim_of(topic, user, connections);
        self.claims(node, LONG, &[claim]).await[0]
    }

    async fn claims(&self, node: &str, lease: Duration, claims: &[Claim]) -> Vec<Tally> {
        claim(&self.bus, node, lease, claims).await
    }

    async fn renew(&self, node: &str, lease: Duration) -> bool {
        let node = named(node);
        answered("renew", || presence(&self.bus).renew(&node, lease)).await
    }

    async fn expire(&self) -> Vec<(Topic, UserId)> {
        expire(&self.bus).await
    }

    /// Several ask at once who is gone, once and until so many are.
    async fn gone(&self, users: usize) -> Vec<(Topic, UserId)> {
        let mut gone = Vec::new();
        let all = async {
            loop {
                let askers = (0..4).map(|_| {
                    let bus = self.fixture.bus();
                    async move { expire(&bus).await }
                });
                gone.extend(all_at_once(askers).await.into_iter().flatten());
                if gone.len() >= users {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        in_time("the end of a lease", all).await;
        gone
    }

    /// Exactly these are in a topic, as every node sees it.
    async fn has(&self, topic: &Topic, members: &[UserId]) {
        for bus in [&self.bus, &self.fixture.bus()] {
            let listed = answered("members", || presence(bus).members(topic)).await;
            assert_eq!(listed, members, "in {topic:?}");
            let count = answered("count", || presence(bus).count(topic)).await;
            assert_eq!(count, members.len() as u64, "in {topic:?}");
        }
    }
}

async fn claim(bus: &Arc<dyn Bus>, node: &str, lease: Duration, claims: &[Claim]) -> Vec<Tally> {
    let node = named(node);
    let answers = in_time("claim", presence(bus).claim(&node, lease, claims)).await;
    assert_eq!(answers.len(), claims.len(), "one answer per claim");
    answers.into_iter().map(|answer| answer.expect("a live bus takes a claim")).collect()
}

async fn expire(bus: &Arc<dyn Bus>) -> Vec<(Topic, UserId)> {
    answered("expire", || presence(bus).expire()).await
}

fn presence(bus: &Arc<dyn Bus>) -> &dyn Presence {
    bus.presence().expect("every handle of the bus knows presence")
}

fn claim_of(topic: &Topic, user: &UserId, connections: u32) -> Claim {
    Claim { topic: topic.clone(), user: user.clone(), connections }
}

fn named(node: &str) -> NodeId {
    NodeId::new(node).expect("a name of a law is a name")
}

/// A lease that a law waits for.
const BRIEF: Duration = Duration::from_millis(800);
/// A lease that has ended when a law has slept for a moment.
const TINY: Duration = Duration::from_millis(5);
/// A lease that a law must renew in time.
const HALF: Duration = Duration::from_secs(2);
const SCRIPTS: u64 = 12;
const STEPS: usize = 80;
