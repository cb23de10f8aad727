//! What every [`Presence`] promises, one function per law.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::bus_laws::BusFixture;
use super::bus_node::{Node, PAUSE, answered, in_time, room};
use super::history_node::{LONG, all_at_once};
use super::script::{Dice, HOSTILE, hostile_topics, in_background, user};
use crate::{Bus, Claim, LeaseId, Presence, Tally, Topic, UserId};

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
    let tallies = door.claims("n1", &batch).await;
    let expected = [(0, 1), (0, 2), (1, 3), (0, 1), (1, 0), (0, 0)];
    assert_eq!(tallies, expected.map(|(before, after)| Tally { before, after }));
    assert!(door.claims("n1", &[]).await.is_empty());
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
                    claim(&bus, &format!("n{node}"), &claims).await
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
        let tallies = door.claims(HOSTILE[n % 13], &claims).await;
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
    door.claims("stays", &[claim_of(&topics[0], &user("user 7"), 1)]).await;
    door.claims("dies", &claims).await;
    for topic in &topics {
        assert!(door.renew("dies", topic, BRIEF).await);
    }
    let mut expected: BTreeSet<_> =
        claims.iter().map(|c| (c.topic.clone(), c.user.clone())).collect();
    expected.remove(&(topics[0].clone(), user("user 7")));
    let gone = door.gone(expected.len()).await;
    assert_eq!(gone.len(), expected.len(), "each once");
    assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), expected);
    door.has(&topics[0], &[user("user 7")]).await;
    door.has(&topics[1], &[]).await;
    assert!(!door.renew("dies", &topics[0], LONG).await, "it never lives again");
    let tally = door.claim("lives again", &topics[0], &user("user 7"), 1).await;
    assert_eq!(tally, Tally { before: 1, after: 2 });
}

/// When the last lease of users ends while they come elsewhere, each is either answered as gone and seen to come, or
/// neither.
pub async fn an_end_and_a_claim_agree<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    let users: Vec<_> = (0..50).map(|n| user(&format!("user {n}"))).collect();
    let claims = |n| users.iter().map(|user| claim_of(&topic, user, n)).collect::<Vec<_>>();
    for round in 0..10 {
        let dies = format!("dies {round}");
        door.claims(&dies, &claims(2)).await;
        assert!(door.renew(&dies, &topic, TINY).await);
        tokio::time::sleep(TINY + PAUSE).await;
        let (bus, one_by_one) = (door.fixture.bus(), claims(1));
        let comes = in_background(async move {
            let mut tallies = Vec::new();
            for one in one_by_one {
                tallies.extend(claim(&bus, "lives", &[one]).await);
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
        let went = door.claims("lives", &claims(0)).await;
        assert_eq!(went, vec![Tally { before: 1, after: 0 }; users.len()]);
    }
}

/// A lease is kept by renewing it, and only one that was begun.
pub async fn a_renewed_lease_lives<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    for _ in 0..3 {
        assert!(!door.renew("unknown", &topic, LONG).await, "there is nothing to renew");
        assert_eq!(door.try_claim("unknown", &claim_of(&topic, &user("eve"), 1)).await, None);
    }
    let attempts = async {
        for n in 0.. {
            let lease = format!("n{n}");
            door.claims(&lease, &["ann", "bob"].map(|name| claim_of(&topic, &user(name), 1))).await;
            assert!(door.renew(&lease, &topic, HALF).await);
            if door.renew(&lease, &topic, LONG).await {
                return lease;
            }
        }
        unreachable!("there are numbers without end")
    };
    let lease = in_time("a lease to be renewed before it ends", attempts).await;
    tokio::time::sleep(HALF + HALF / 4).await;
    door.expire().await;
    door.has(&topic, &["ann", "bob"].map(user)).await;
    assert!(door.renew(&lease, &topic, LONG).await, "it counts from its renewal");
}

/// A lease that the store lost does not live, however often it is asked for, and nothing is claimed under it.
pub async fn a_loss_is_told_however_soon_a_claim_follows<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    for round in 0..2 {
        let lease = format!("n{round}");
        assert_eq!(door.claim(&lease, &topic, &user("ann"), 1).await.before, 0);
        assert!(door.renew(&lease, &topic, LONG).await);
        door.fixture.lose_store().await;
        Node::join(door.fixture.bus()).await;
        for _ in 0..2 {
            let claim = claim_of(&topic, &user("bob"), 1);
            assert_eq!(door.try_claim(&lease, &claim).await, None);
            assert!(!door.renew(&lease, &topic, LONG).await);
        }
        door.has(&topic, &[]).await;
    }
}

/// A node whose lease had run out has what it claims under another one, and nothing from before: what it does not
/// claim again is answered as gone, what it does is not.
pub async fn a_late_node_begins_anew<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    let claims = ["ann", "bob", "cat"].map(|name| claim_of(&topic, &user(name), 1));
    door.claims("late", &claims).await;
    assert!(door.renew("late", &topic, TINY).await);
    tokio::time::sleep(TINY + PAUSE).await;
    assert!(!door.renew("late", &topic, LONG).await, "it had run out");
    assert_eq!(door.try_claim("late", &claims[0]).await, None, "it never lives again");
    door.claims("late again", &claims[..1]).await;
    let mut gone = door.gone(2).await;
    gone.sort();
    assert_eq!(gone, ["bob", "cat"].map(|name| (topic.clone(), user(name))));
    door.has(&topic, &[user("ann")]).await;
    assert!(door.renew("late again", &topic, LONG).await);
    let tally = door.claim("late again", &topic, &user("ann"), 0).await;
    assert_eq!(tally.after, 0, "nothing from before counts: {tally:?}");
}

/// After a loss nobody is there and no lease lives; who is claimed again is seen to come.
pub async fn presence_is_claimed_again_after_a_loss<F: BusFixture>() {
    let Some(door) = Door::<F>::open().await else { return };
    let topic = room("lobby");
    for round in 0..3 {
        let leases = [1, 2].map(|n| format!("n{n}, {round}"));
        let tallies = [door.claim(&leases[0], &topic, &user("ann"), 2).await];
        assert_eq!(tallies, [Tally { before: 0, after: 2 }]);
        door.claim(&leases[1], &topic, &user("ann"), 1).await;
        door.fixture.lose_store().await;
        Node::join(door.fixture.bus()).await;
        for lease in &leases {
            assert!(!door.renew(lease, &topic, LONG).await);
        }
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
            let tallies = door.claims(&format!("n{node}"), &claims).await;
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

    async fn claim(&self, lease: &str, topic: &Topic, user: &UserId, connections: u32) -> Tally {
        let claim = claim_of(topic, user, connections);
        self.claims(lease, &[claim]).await[0]
    }

    async fn claims(&self, lease: &str, claims: &[Claim]) -> Vec<Tally> {
        claim(&self.bus, lease, claims).await
    }

    /// Claims under a lease that may not live.
    async fn try_claim(&self, lease: &str, claim: &Claim) -> Option<Vec<Tally>> {
        let (lease, partition) = (named(lease), self.bus.partition(&claim.topic));
        let presence = presence(&self.bus);
        answered("claim", || presence.claim(partition, &lease, std::slice::from_ref(claim))).await
    }

    /// Renews a lease in the partition of a topic.
    async fn renew(&self, lease: &str, topic: &Topic, time: Duration) -> bool {
        let (lease, partition) = (named(lease), self.bus.partition(topic));
        answered("renew", || presence(&self.bus).renew(partition, &lease, time)).await
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

/// Claims under a lease of this name, which is begun or renewed, in each partition.
async fn claim(bus: &Arc<dyn Bus>, lease: &str, claims: &[Claim]) -> Vec<Tally> {
    let lease = named(lease);
    let mut tallies = vec![Tally::default(); claims.len()];
    for partition in 0..bus.partitions() {
        let is_here = |place: &usize| bus.partition(&claims[*place].topic) == partition;
        let places: Vec<_> = (0..claims.len()).filter(is_here).collect();
        if places.is_empty() {
            continue;
        }
        let part: Vec<_> = places.iter().map(|place| claims[*place].clone()).collect();
        answered("begin", || presence(bus).begin(partition, &lease, LONG)).await;
        let answer = in_time("claim", presence(bus).claim(partition, &lease, &part)).await;
        let answer = answer.expect("a live bus takes claims").expect("the lease lives");
        assert_eq!(answer.len(), part.len(), "one answer per claim");
        for (place, tally) in places.into_iter().zip(answer) {
            tallies[place] = tally;
        }
    }
    tallies
}

async fn expire(bus: &Arc<dyn Bus>) -> Vec<(Topic, UserId)> {
    let mut gone = Vec::new();
    for partition in 0..bus.partitions() {
        gone.extend(answered("expire", || presence(bus).expire(partition)).await);
    }
    gone
}

fn presence(bus: &Arc<dyn Bus>) -> &dyn Presence {
    bus.presence().expect("every handle of the bus knows presence")
}

fn claim_of(topic: &Topic, user: &UserId, connections: u32) -> Claim {
    Claim { topic: topic.clone(), user: user.clone(), connections }
}

fn named(lease: &str) -> LeaseId {
    LeaseId::new(lease).expect("a name of a law is a name")
}

/// A lease that a law waits for.
const BRIEF: Duration = Duration::from_millis(800);
/// A lease that has ended when a law has slept for a moment.
const TINY: Duration = Duration::from_millis(5);
/// A lease that a law must renew in time.
const HALF: Duration = Duration::from_secs(2);
const SCRIPTS: u64 = 12;
const STEPS: usize = 80;
