//! What every [`Bus`] promises, one function per law.
//!
//! Silence is proven by a message that is published afterwards and arrives first, never by waiting.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{join, join_all};

use super::bus_node::{Node, answered, in_time, publish, room, say};
use super::script::{Dice, HOSTILE, hostile_topics, in_background, payloads, user};
use crate::{Bus, ClientId, Delivery, Except, Message, MessageType, Publication, Topic};

/// How the laws get a bus.
///
/// ```
/// # use std::sync::Arc;
/// # use tidings_bus_memory::MemoryBus;
/// # use tidings_core::{Bus, testing::bus_laws::BusFixture};
/// struct Fixture(MemoryBus);
///
/// impl BusFixture for Fixture {
///     const HISTORY: bool = true;
///     const PRESENCE: bool = true;
///
///     async fn start() -> Self {
///         Self(MemoryBus::default())
///     }
///     fn bus(&self) -> Arc<dyn Bus> {
///         Arc::new(self.0.clone())
///     }
///     async fn break_links(&self) {
///         self.0.cut_links();
///     }
///     async fn lose_store(&self) {
///         self.0.flush();
///     }
///     async fn set_available(&self, available: bool) {
///         self.0.set_available(available);
///     }
/// }
///
/// tidings_core::bus_laws!(Fixture);
/// ```
pub trait BusFixture: Sized {
    /// Whether the bus has [`history`](Bus::history). The laws of history hold it to that: where this is `false`
    /// they prove only that it has none.
    const HISTORY: bool;

    /// Whether the bus has [`presence`](Bus::presence), likewise.
    const PRESENCE: bool;

    /// Makes a bus on which nobody else publishes or claims, and which has kept nothing.
    fn start() -> impl Future<Output = Self>;

    /// The bus as one node sees it; each call may be another node's.
    fn bus(&self) -> Arc<dyn Bus>;

    /// Breaks every link of every node. The bus may be away for some seconds afterwards.
    fn break_links(&self) -> impl Future<Output = ()>;

    /// Empties the store under all nodes, as a flush does: history and presence are lost. Links may break, and the
    /// bus may be away for some seconds afterwards. Never called where the bus has neither.
    fn lose_store(&self) -> impl Future<Output = ()>;

    /// Takes the bus away from all nodes, or brings it back: links end, calls fail and nothing is lost of what is kept.
    fn set_available(&self, available: bool) -> impl Future<Output = ()>;
}

/// Makes one `#[test]` of each law of a [`Bus`](crate::Bus) and of what it keeps, for a
/// [`BusFixture`](crate::testing::bus_laws::BusFixture).
#[macro_export]
macro_rules! bus_laws {
    ($fixture:ty) => {
        $crate::bus_laws! { $fixture: bus_laws:
            delivers_once_subscribe_returned
            echoes_to_the_publishers_node
            each_node_once
            keeps_a_publishers_order
            a_batch_equals_its_singles
            silent_after_unsubscribe
            twice_subscribed_delivers_once
            topics_never_leak
            payloads_are_opaque
            a_broken_link_ends
            publishing_is_answered_whatever_happens
            a_new_link_starts_empty
            concurrent_publishers_lose_nothing
            an_exclusion_survives_the_bus
            a_random_script_agrees_with_the_model
        }
        $crate::bus_laws! { $fixture: history_laws:
            the_bus_has_what_its_fixture_says
            positions_follow_the_link
            history_is_what_the_link_delivered
            history_pages_go_on_where_they_ended
            a_page_is_one_reading
            history_is_trimmed_by_count_and_says_so
            history_is_trimmed_by_age_and_says_so
            a_quiet_topic_stays_whole
            history_keeps_any_payload
            what_is_not_kept_takes_no_position
            a_kept_batch_equals_its_singles
            tops_are_one_reading
            concurrent_publishers_leave_no_hole
            hostile_topics_share_no_history
            the_cursor_key_is_one_secret
            a_lost_store_shows_in_the_epoch
        }
        $crate::bus_laws! { $fixture: idempotency_laws:
            a_repeat_gets_the_first_receipt
            idempotency_keys_never_leak
            concurrent_repeats_deliver_once
        }
        $crate::bus_laws! { $fixture: history_model:
            a_random_history_agrees_with_the_model
        }
        $crate::bus_laws! { $fixture: presence_laws:
            presence_counts_over_all_nodes
            presence_is_level_triggered
            a_batch_of_claims_equals_its_singles
            concurrent_claims_see_one_come_and_one_go
            members_are_sorted
            presence_never_leaks
            an_ended_lease_is_answered_once
            an_end_and_a_claim_agree
            a_renewed_lease_lives
            a_loss_is_told_however_soon_a_claim_follows
            a_late_node_begins_anew
            presence_is_claimed_again_after_a_loss
            a_random_presence_agrees_with_the_model
        }
    };
    ($fixture:ty: $laws:ident: $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                $crate::testing::bus_laws::run($crate::testing::$laws::$law::<$fixture>());
            }
        )*
    };
}

/// Runs a law on a runtime of its own.
pub fn run(law: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build();
    runtime.expect("a runtime can be made").block_on(law);
}

/// What is published after `subscribe` returned arrives, whoever publishes it.
pub async fn delivers_once_subscribe_returned<F: BusFixture>() {
    let fixture = F::start().await;
    let (mut node, other) = (Node::join(fixture.bus()).await, fixture.bus());
    for n in 0..100 {
        let publication = say(&room(&format!("room {n}")), "hello");
        node.subscribe(std::slice::from_ref(&publication.topic)).await;
        publish(&other, vec![publication.clone()]).await;
        node.hears(&publication).await;
    }
    node.hears_nothing_more().await;
}

/// A node hears through its link what it published itself.
pub async fn echoes_to_the_publishers_node<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let publication = say(&room("mine"), "echo");
    node.subscribe(std::slice::from_ref(&publication.topic)).await;
    node.publish(publication.clone()).await;
    node.hears(&publication).await;
    node.hears_nothing_more().await;
}

/// Every subscribed node hears a publication, and hears it once.
pub async fn each_node_once<F: BusFixture>() {
    let fixture = F::start().await;
    let publication = say(&room("all"), "once");
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let mut node = Node::join(fixture.bus()).await;
        node.subscribe(std::slice::from_ref(&publication.topic)).await;
        nodes.push(node);
    }
    nodes[0].publish(publication.clone()).await;
    for node in &mut nodes {
        node.hears(&publication).await;
        node.hears_nothing_more().await;
    }
}

/// What a caller awaits in turn arrives in that order, also over topics of one partition.
pub async fn keeps_a_publishers_order<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let first = room("first");
    let topics = [first.clone(), node.beside(&first, "second")];
    node.subscribe(&topics).await;
    let script: Vec<_> = (0..500).map(|n| say(&topics[n % 3 % 2], &n.to_string())).collect();
    for publication in &script {
        node.publish(publication.clone()).await;
    }
    for publication in &script {
        node.hears(publication).await;
    }
}

/// A batch has an answer for each publication and delivers what the publications one by one would.
pub async fn a_batch_equals_its_singles<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let topics: Vec<_> = (0..5).map(|n| room(&format!("room {n}"))).collect();
    node.subscribe(&topics[..4]).await;
    let script: Vec<_> = (0..200).map(|n| say(&topics[n * n % 5], &n.to_string())).collect();
    let bus = fixture.bus();
    publish(&bus, Vec::new()).await;
    publish(&bus, script.clone()).await;
    for publication in &script {
        publish(&bus, vec![publication.clone()]).await;
    }
    let partition = |p: &&Publication| bus.partition(&p.topic);
    for unit in 0..bus.partitions() {
        for _ in 0..2 {
            for publication in script.iter().filter(|p| partition(p) == unit) {
                if publication.topic != topics[4] {
                    node.hears(publication).await;
                }
            }
        }
    }
    node.hears_nothing_more().await;
}

/// What is published after `unsubscribe` returned does not arrive; other topics do, and so does the
/// topic once it is subscribed again.
pub async fn silent_after_unsubscribe<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let (gone, kept) = (room("gone"), room("kept"));
    node.subscribe(&[gone.clone(), kept.clone()]).await;
    for n in 0..50 {
        node.unsubscribe(std::slice::from_ref(&gone)).await;
        node.publish(say(&gone, "unheard")).await;
        let publication = say(&kept, &n.to_string());
        node.publish(publication.clone()).await;
        node.hears(&publication).await;
        node.hears_nothing_more().await;
        node.subscribe(std::slice::from_ref(&gone)).await;
        let publication = say(&gone, &n.to_string());
        node.publish(publication.clone()).await;
        node.hears(&publication).await;
    }
    node.unsubscribe(&[room("never subscribed")]).await;
    node.hears_nothing_more().await;
}

/// Subscribing twice, in one call or in two, delivers once and is undone by one `unsubscribe`.
pub async fn twice_subscribed_delivers_once<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let topic = room("twice");
    node.subscribe(&[topic.clone(), topic.clone()]).await;
    node.subscribe(std::slice::from_ref(&topic)).await;
    let publication = say(&topic, "once");
    node.publish(publication.clone()).await;
    node.hears(&publication).await;
    node.hears_nothing_more().await;
    node.unsubscribe(std::slice::from_ref(&topic)).await;
    node.publish(publication).await;
    node.hears_nothing_more().await;
}

/// A node that listens to one topic hears none of the others, however they are called.
pub async fn topics_never_leak<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let topics = hostile_topics();
    let script: Vec<_> = topics.iter().map(|topic| say(topic, &format!("{topic:?}"))).collect();
    let bus = fixture.bus();
    for publication in &script {
        node.subscribe(std::slice::from_ref(&publication.topic)).await;
        publish(&bus, script.clone()).await;
        node.hears(publication).await;
        node.hears_nothing_more().await;
        node.unsubscribe(std::slice::from_ref(&publication.topic)).await;
    }
}

/// Any bytes arrive as they were, also none, and no payload differs from an empty one.
pub async fn payloads_are_opaque<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let topic = room("bytes");
    node.subscribe(std::slice::from_ref(&topic)).await;
    for payload in payloads() {
        for kind in ["a", "ä b:*?{}", &"k".repeat(128)] {
            let kind = MessageType::new(kind).expect("it is a type");
            let message = Message { kind, payload: payload.clone() };
            let publication = Publication::new(topic.clone(), message);
            node.publish(publication.clone()).await;
            node.hears(&publication).await;
        }
    }
}

/// A link that breaks says so by ending, and the node can connect again.
pub async fn a_broken_link_ends<F: BusFixture>() {
    let fixture = F::start().await;
    let mut nodes = [Node::join(fixture.bus()).await, Node::join(fixture.bus()).await];
    let publication = say(&room("again"), "hello");
    nodes[0].subscribe(std::slice::from_ref(&publication.topic)).await;
    in_time("break_links", fixture.break_links()).await;
    for node in &mut nodes {
        node.ends().await;
        *node = Node::join(fixture.bus()).await;
        node.subscribe(std::slice::from_ref(&publication.topic)).await;
        node.publish(publication.clone()).await;
        node.hears(&publication).await;
        node.hears_nothing_more().await;
        node.unsubscribe(std::slice::from_ref(&publication.topic)).await;
    }
}

/// While links break and the bus may be away, each publication has an answer in bounded time, good or not; and one that
/// is good again comes.
pub async fn publishing_is_answered_whatever_happens<F: BusFixture>() {
    let fixture = F::start().await;
    let bus = fixture.bus();
    let batch = |n: usize| vec![say(&room("answered"), &n.to_string()); n % 3 + 1];
    for _ in 0..BREAKS {
        let publishing = async {
            for n in 0..EACH {
                let answers = in_time("an answer to a publish", bus.publish(batch(n))).await;
                assert_eq!(answers.len(), n % 3 + 1);
            }
        };
        join(in_time("break_links", fixture.break_links()), publishing).await;
    }
    let good = async || bus.publish(batch(0)).await.pop().expect("an answer");
    answered("publish", good).await;
}

/// A new link has no interest: neither that of other links nor that of the one before it.
pub async fn a_new_link_starts_empty<F: BusFixture>() {
    let fixture = F::start().await;
    let mut old = Node::join(fixture.bus()).await;
    let publication = say(&room("old"), "not for the new");
    old.subscribe(std::slice::from_ref(&publication.topic)).await;
    let mut new = Node::join(fixture.bus()).await;
    old.publish(publication.clone()).await;
    old.hears(&publication).await;
    new.hears_nothing_more().await;
    in_time("break_links", fixture.break_links()).await;
    old.ends().await;
    let mut successor = Node::join(fixture.bus()).await;
    successor.publish(publication).await;
    successor.hears_nothing_more().await;
}

/// Whatever is published at the same time arrives, each publisher's in its order.
pub async fn concurrent_publishers_lose_nothing<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let topic = room("busy");
    node.subscribe(std::slice::from_ref(&topic)).await;
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (bus, topic) = (fixture.bus(), topic.clone());
        in_background(async move {
            for n in 0..EACH {
                publish(&bus, vec![say(&topic, &format!("{publisher} {n}"))]).await;
            }
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let mut expected = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * EACH {
        let (publisher, n) = numbers(&node.next(&topic).await);
        assert_eq!(n, expected[publisher], "the next of publisher {publisher}");
        expected[publisher] += 1;
    }
    for result in join_all(publishers).await {
        result.expect("no publisher fails");
    }
    node.hears_nothing_more().await;
}

/// Whom a publication leaves out arrives with it.
pub async fn an_exclusion_survives_the_bus<F: BusFixture>() {
    let fixture = F::start().await;
    let mut node = Node::join(fixture.bus()).await;
    let topic = room("but one");
    node.subscribe(std::slice::from_ref(&topic)).await;
    let users = HOSTILE.map(|name| Except::User(user(name)));
    let clients = [0, 1, u128::MAX].map(|bits| Except::Client(ClientId::from_bits(bits)));
    for except in users.into_iter().chain(clients) {
        let publication = say(&topic, "not for you").except(except);
        node.publish(publication.clone()).await;
        node.hears(&publication).await;
    }
}

/// Nodes that subscribe, unsubscribe and publish at random hear what sets and queues say they hear.
pub async fn a_random_script_agrees_with_the_model<F: BusFixture>() {
    for seed in 1..=SCRIPTS {
        let fixture = F::start().await;
        println!("script {seed}");
        random_script(&fixture, Dice(seed)).await;
    }
}

async fn random_script(fixture: &impl BusFixture, mut dice: Dice) {
    let topics: Vec<_> = hostile_topics().into_iter().step_by(7).take(6).collect();
    let bus = fixture.bus();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let wishes: BTreeSet<Topic> = BTreeSet::new();
        nodes.push((Node::join(fixture.bus()).await, wishes, VecDeque::new()));
    }
    for step in 0..STEPS {
        let some: Vec<_> = (0..dice.below(4)).map(|_| topics[dice.below(6)].clone()).collect();
        let (node, wishes, _) = &mut nodes[dice.below(3)];
        match dice.below(4) {
            0 => {
                node.subscribe(&some).await;
                wishes.extend(some);
            }
            1 => {
                node.unsubscribe(&some).await;
                wishes.retain(|topic| !some.contains(topic));
            }
            _ => {
                let text = |n| format!("step {step}, {n}");
                let batch: Vec<_> =
                    some.iter().enumerate().map(|(n, topic)| say(topic, &text(n))).collect();
                publish(&bus, batch.clone()).await;
                for (_, wishes, heard) in &mut nodes {
                    heard.extend(batch.iter().filter(|p| wishes.contains(&p.topic)).cloned());
                }
            }
        }
    }
    for (node, _, heard) in &mut nodes {
        for publication in heard {
            node.hears(publication).await;
        }
        node.hears_nothing_more().await;
    }
}

/// The two numbers that a concurrent publisher wrote.
fn numbers(delivery: &Delivery) -> (usize, usize) {
    let json = delivery.message.payload.as_ref().map(|p| p.bytes().clone()).unwrap_or_default();
    let text: String = serde_json::from_slice(&json).expect("the law published a text");
    let (publisher, n) = text.split_once(' ').expect("the law published two numbers");
    (publisher.parse().expect("a number"), n.parse().expect("a number"))
}

const PUBLISHERS: usize = 8;
const EACH: usize = 100;
const BREAKS: usize = 3;
const SCRIPTS: u64 = 20;
const STEPS: usize = 100;
