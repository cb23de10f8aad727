//! What every [`History`](crate::History) promises, and every bus that has one, one function per law.

use std::time::Duration;

use super::bus_laws::BusFixture;
use super::bus_node::{Node, answered, publish, room, say};
use super::history_node::{Keeper, all_at_once, check, history, keep, kept, position};
use super::script::{HOSTILE, hostile_topics, in_background, payloads, user};
use crate::{
    Bus, ClientId, Delivery, Except, Message, MessageType, Publication, Retention, Top, Topic,
};

/// The bus has history and presence on each node, or on none, as its fixture says; without history no message
/// has a position.
pub async fn the_bus_has_what_its_fixture_says<F: BusFixture>() {
    let fixture = F::start().await;
    let publication = kept(&room("any"), "kept if the bus can", 10);
    let mut node = Node::join(fixture.bus()).await;
    node.subscribe(std::slice::from_ref(&publication.topic)).await;
    for _ in 0..3 {
        let bus = fixture.bus();
        assert_eq!(bus.history().is_some(), F::HISTORY, "history");
        assert_eq!(bus.presence().is_some(), F::PRESENCE, "presence");
        let receipt = publish(&bus, vec![publication.clone()]).await.remove(0);
        assert_eq!(receipt.position.is_some(), F::HISTORY);
        assert_eq!(node.hears(&publication).await.position, receipt.position);
    }
}

/// Offsets rise by one in each topic and clocks over all topics of a partition, in the order of the link;
/// the receipt says the same.
pub async fn positions_follow_the_link<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let first = room("first");
    let topics = [first.clone(), node.beside(&first, "second"), node.beside(&first, "third")];
    node.subscribe(&topics).await;
    let mut tops = [None; 3];
    let (mut clock, mut epoch) = (0, None);
    for n in 0..200_usize {
        let which = n * n % 7 % 3;
        let publication = kept(&topics[which], &n.to_string(), 10);
        let receipt = publish(&keeper.bus, vec![publication.clone()]).await.remove(0);
        let heard = node.hears(&publication).await;
        let place = position(&heard);
        assert_eq!(receipt.position, Some(place), "the receipt says what the link says");
        assert_eq!(*epoch.get_or_insert(place.epoch), place.epoch, "the epoch stays");
        assert!(place.clock > clock, "clocks rise");
        clock = place.clock;
        let offset = tops[which].map_or(place.offset, |offset: u64| offset + 1);
        assert!(offset > 0 && place.offset == offset, "{} instead of {offset}", place.offset);
        tops[which] = Some(offset);
    }
}

/// What history gives is what the link delivered, with position, exclusion and conflation key.
pub async fn history_is_what_the_link_delivered<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let topic = room("kept");
    node.subscribe(std::slice::from_ref(&topic)).await;
    let mut heard = Vec::new();
    let users = HOSTILE.map(|name| Some(Except::User(user(name))));
    let clients = [0, u128::MAX].map(|bits| Some(Except::Client(ClientId::from_bits(bits))));
    for except in users.into_iter().chain(clients).chain([None]) {
        for key in [None, Some(""), Some("stock:17"), Some("\0\r\n")] {
            let mut publication = kept(&topic, "hello", 1000);
            publication.except.clone_from(&except);
            publication.conflation_key = key.map(str::to_owned);
            node.publish(publication.clone()).await;
            heard.push(node.hears(&publication).await);
        }
    }
    keeper.keeps(&topic, &heard, 0).await;
}

/// Pages of any length follow one another without a hole, and the last says that it is.
pub async fn history_pages_go_on_where_they_ended<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let topic = room("long");
    let all = keeper.keep((0..60).map(|n| kept(&topic, &n.to_string(), 100)).collect()).await;
    for limit in [1, 7, 20, 59, 60, 61, u32::MAX] {
        let (mut clock, mut read) = (0, Vec::new());
        loop {
            let page = keeper.after(&topic, clock, limit).await;
            check(&page, &all, 0, clock, limit);
            read.extend(page.deliveries);
            if !page.more {
                break;
            }
            clock = position(&read[read.len() - 1]).clock;
        }
        assert_eq!(read, all, "in pages of {limit}");
    }
}

/// A page is of one moment, whose clock it says: whoever goes on from that clock misses nothing, also while others
/// publish, in this topic and beside it.
pub async fn a_page_is_one_reading<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let node = Node::join(keeper.fixture.bus()).await;
    let topic = room("read");
    let beside = node.beside(&topic, "beside");
    let publishers = [&topic, &beside, &topic].map(|to| {
        let (bus, to) = (keeper.fixture.bus(), to.clone());
        in_background(async move {
            for n in 0..EACH {
                keep(&bus, vec![kept(&to, &n.to_string(), u32::MAX)]).await;
            }
        })
    });
    let (mut clock, mut read, mut done) = (0, Vec::new(), false);
    while !done {
        done = publishers.iter().all(tokio::task::JoinHandle::is_finished);
        let page = keeper.after(&topic, clock, u32::MAX).await;
        assert!(page.whole && !page.more && page.clock >= clock);
        assert!(
            page.deliveries.iter().all(|d| (clock + 1..=page.clock).contains(&position(d).clock))
        );
        read.extend(page.deliveries);
        clock = page.clock;
    }
    for publisher in publishers {
        publisher.await.expect("the publisher does not fail");
    }
    assert_eq!(read.len(), 2 * EACH, "nothing was published behind a reading");
    in_order(&read);
}

/// Only the newest messages are kept; cursors from before the last that was trimmed learn it, and no others.
pub async fn history_is_trimmed_by_count_and_says_so<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let topics = [(room("one"), 1), (room("three"), 3), (room("ten"), 10)];
    let mut all = [const { Vec::new() }; 3];
    for n in 0..15 {
        for ((topic, count), all) in topics.iter().zip(&mut all) {
            all.extend(keeper.keep(vec![kept(topic, &n.to_string(), *count)]).await);
            keeper.keeps(topic, all, all.len().saturating_sub(*count as usize)).await;
        }
    }
}

/// What is too old is gone, whether or not the topic takes another message, and is said to be gone. The
/// position goes on, and a cursor that saw the last message has missed nothing.
pub async fn history_is_trimmed_by_age_and_says_so<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let (short, long) = (room("short"), room("long"));
    let brief =
        |n: usize| say(&short, &n.to_string()).retention(Retention { count: 9, age: BRIEF });
    let stays = keeper.keep(vec![kept(&long, "stays", 10)]).await;
    let mut all = Vec::new();
    for n in 0..3 {
        all.extend(keeper.keep(vec![brief(n)]).await);
        tokio::time::sleep(BRIEF / 4).await;
    }
    for _ in 0..2 {
        keeper.is_emptied(&short, &all).await;
        keeper.keeps(&short, &all, all.len()).await;
        let last = position(&all[all.len() - 1]);
        let top = keeper.tops(std::slice::from_ref(&short)).await.tops[0];
        assert_eq!(top, Top { offset: last.offset, clock: last.clock });
        all.extend(keeper.keep(vec![brief(all.len())]).await);
        assert_eq!(position(&all[all.len() - 1]).offset, last.offset + 1, "offsets go on");
    }
    keeper.keeps(&long, &stays, 0).await;
}

/// A topic without messages has nothing to miss, however much is published in others.
pub async fn a_quiet_topic_stays_whole<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let busy = room("busy");
    for n in 0..50 {
        keeper.keep(vec![kept(&busy, &n.to_string(), 2)]).await;
        let now = keeper.tops(std::slice::from_ref(&busy)).await.clock;
        for topic in [room("quiet"), room("quieter")] {
            for clock in [0, now / 2, now] {
                check(&keeper.after(&topic, clock, 10).await, &[], 0, clock, 10);
            }
        }
    }
}

/// Any bytes are kept as they were, also none.
pub async fn history_keeps_any_payload<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let topic = room("bytes");
    let mut all = Vec::new();
    for payload in payloads() {
        for kind in ["a", "ä b:*?{}", &"k".repeat(128)] {
            let kind = MessageType::new(kind).expect("it is a type");
            let message = Message { kind, payload: payload.clone() };
            let publication = Publication { message, ..kept(&topic, "", 100) };
            all.extend(keeper.keep(vec![publication]).await);
        }
    }
    check(&keeper.after(&topic, 0, 100).await, &all, 0, 0, 100);
}

/// A message without retention has no position, is not in history and moves no clock.
pub async fn what_is_not_kept_takes_no_position<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let topic = room("mixed");
    node.subscribe(std::slice::from_ref(&topic)).await;
    let mut all = Vec::new();
    for n in 0..20 {
        let publication = kept(&topic, &format!("kept {n}"), 100);
        node.publish(publication.clone()).await;
        all.push(node.hears(&publication).await);
        let publication = say(&topic, &format!("passing {n}"));
        let receipt = publish(&keeper.bus, vec![publication.clone()]).await.remove(0);
        assert_eq!(receipt.position, None);
        assert_eq!(node.hears(&publication).await.position, None);
        let (tops, last) =
            (keeper.tops(std::slice::from_ref(&topic)).await, position(&all[all.len() - 1]));
        assert_eq!((tops.clock, tops.tops[0].offset), (last.clock, last.offset));
    }
    keeper.keeps(&topic, &all, 0).await;
    let offsets: Vec<_> = all.iter().map(|delivery| position(delivery).offset).collect();
    assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 1), "{offsets:?}");
}

/// A batch is kept as its publications one by one would be.
pub async fn a_kept_batch_equals_its_singles<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let first = room("first");
    let topics = [first.clone(), node.beside(&first, "second"), node.beside(&first, "third")];
    node.subscribe(&topics).await;
    let script: Vec<_> =
        (0..200).map(|n| kept(&topics[n * n % 7 % 3], &n.to_string(), 500)).collect();
    let mut all = keeper.keep(script.clone()).await;
    for publication in script {
        all.extend(keeper.keep(vec![publication]).await);
    }
    for delivery in &all {
        assert_eq!(node.next(&first).await, *delivery, "the link's order is the batch's");
    }
    in_order(&all);
    for topic in &topics {
        let of_topic: Vec<_> = all.iter().filter(|d| d.topic == *topic).cloned().collect();
        check(&keeper.after(topic, 0, 1000).await, &of_topic, 0, 0, 1000);
    }
}

/// Tops are those of one moment, for topics with messages and without, in the order of the question.
pub async fn tops_are_one_reading<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let node = Node::join(keeper.fixture.bus()).await;
    let first = room("first");
    let second = node.beside(&first, "second");
    let topics = [first.clone(), node.beside(&first, "never"), second.clone(), first.clone()];
    let empty = keeper.tops(&topics).await;
    assert_eq!((empty.clock, empty.tops), (0, vec![Top::default(); 4]), "nothing was published");
    let publishers = [&first, &second].map(|to| {
        let (bus, to) = (keeper.fixture.bus(), to.clone());
        in_background(async move {
            for n in 0..300 {
                keep(&bus, vec![kept(&to, &n.to_string(), 1000)]).await;
            }
        })
    });
    while !publishers.iter().all(tokio::task::JoinHandle::is_finished) {
        let reading = keeper.tops(&topics).await;
        let [first, never, second, again] = reading.tops[..] else { panic!("four topics") };
        assert_eq!((never, again), (Top::default(), first));
        assert_eq!(first.clock.max(second.clock), reading.clock, "nobody else publishes");
        assert_eq!(reading.epoch, empty.epoch);
        for (topic, top) in topics.iter().zip(&reading.tops) {
            let page = keeper.after(topic, top.clock, 1000).await;
            let late = page.deliveries.iter().all(|d| position(d).clock > reading.clock);
            assert!(late && page.whole, "what is published after the reading has a later clock");
            assert!(page.clock >= reading.clock, "a later reading is no older");
        }
    }
    for publisher in publishers {
        publisher.await.expect("the publisher does not fail");
    }
    let pages = [keeper.after(&topics[0], 0, 1000).await, keeper.after(&topics[2], 0, 1000).await];
    let reading = keeper.tops(&topics).await;
    for (page, top) in pages.iter().zip([reading.tops[0], reading.tops[2]]) {
        let last = position(page.deliveries.last().expect("each took messages"));
        assert_eq!(top, Top { offset: last.offset, clock: last.clock });
    }
    assert!(keeper.tops(&[]).await.tops.is_empty());
}

/// However many publish at once: no offset is left out or given twice, and the order of the link, of the clocks
/// and of history is one.
pub async fn concurrent_publishers_leave_no_hole<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let mut node = Node::join(keeper.fixture.bus()).await;
    let first = room("first");
    let topics = [first.clone(), node.beside(&first, "second")];
    node.subscribe(&topics).await;
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (bus, topics) = (keeper.fixture.bus(), topics.clone());
        async move {
            let mut mine = Vec::new();
            for n in 0..EACH {
                let publication = kept(&topics[n % 2], &format!("{publisher} {n}"), u32::MAX);
                mine.extend(keep(&bus, vec![publication]).await);
            }
            mine
        }
    });
    let published = all_at_once(publishers).await;
    let mut heard = Vec::new();
    for _ in 0..PUBLISHERS * EACH {
        heard.push(node.next(&first).await);
    }
    node.hears_nothing_more().await;
    in_order(&heard);
    for mine in published {
        let mut order = heard.iter();
        assert!(mine.iter().all(|delivery| order.any(|heard| heard == delivery)), "{mine:?}");
    }
    for topic in &topics {
        let of_topic: Vec<_> = heard.iter().filter(|d| d.topic == *topic).cloned().collect();
        check(&keeper.after(topic, 0, u32::MAX).await, &of_topic, 0, 0, u32::MAX);
    }
}

/// Each topic has its own history, however it is called.
pub async fn hostile_topics_share_no_history<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let topics = hostile_topics();
    let mut all = vec![Vec::new(); topics.len()];
    for round in 0..3 {
        let say = |topic| kept(topic, &format!("{topic:?} {round}"), 2);
        let published = keeper.keep(topics.iter().map(say).collect()).await;
        all.iter_mut().zip(published).for_each(|(all, delivery)| all.push(delivery));
    }
    for (topic, all) in topics.iter().zip(&all) {
        check(&keeper.after(topic, 0, 10).await, all, 1, 0, 10);
        in_order(all);
        let last = position(&all[2]);
        let top = keeper.tops(std::slice::from_ref(topic)).await.tops[0];
        assert_eq!(top, Top { offset: last.offset, clock: last.clock }, "{topic:?}");
    }
}

/// All nodes have one key to sign cursors with, and no other bus has it.
pub async fn the_cursor_key_is_one_secret<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let ask = async |bus: &std::sync::Arc<dyn Bus>| {
        answered("cursor_key", || history(bus).cursor_key()).await
    };
    let keys = all_at_once((0..8).map(|_| {
        let bus = keeper.fixture.bus();
        async move { answered("cursor_key", || history(&bus).cursor_key()).await }
    }));
    let keys = keys.await;
    assert!(keys.iter().all(|key| *key == keys[0]), "all nodes have the same key");
    keeper.keep(vec![kept(&room("any"), "changes nothing", 1)]).await;
    assert_eq!(ask(&keeper.fixture.bus()).await, keys[0]);
    let other = F::start().await;
    assert_ne!(ask(&other.bus()).await, keys[0], "another bus has another key");
}

/// After a loss everything that is read is of a new epoch, of which also the next message is.
pub async fn a_lost_store_shows_in_the_epoch<F: BusFixture>() {
    let Some(keeper) = Keeper::<F>::start().await else { return };
    let topic = room("lost");
    let mut epochs = vec![keeper.tops(std::slice::from_ref(&topic)).await.epoch];
    for round in 0..3 {
        let batch = (0..5).map(|n| kept(&topic, &format!("{round} {n}"), 10)).collect();
        let all = keeper.keep(batch).await;
        in_order(&all);
        assert_eq!(position(&all[0]).epoch, epochs[round], "the epoch that was read before");
        keeper.keeps(&topic, &all, 0).await;
        keeper.fixture.lose_store().await;
        Node::join(keeper.fixture.bus()).await;
        let tops = keeper.tops(std::slice::from_ref(&topic)).await;
        assert!(!epochs.contains(&tops.epoch), "a new epoch");
        assert_eq!((tops.clock, tops.tops[0]), (0, Top::default()), "nothing is left");
        let page = keeper.after(&topic, 0, 10).await;
        assert_eq!((page.epoch, page.deliveries.len()), (tops.epoch, 0));
        epochs.push(tops.epoch);
    }
}

/// Offsets of each topic rise by one and clocks rise.
pub(super) fn in_order(deliveries: &[Delivery]) {
    let mut tops = std::collections::HashMap::<&Topic, u64>::new();
    let mut clock = 0;
    for delivery in deliveries {
        let place = position(delivery);
        assert!(place.clock > clock, "clock {} after {clock}", place.clock);
        clock = place.clock;
        if let Some(top) = tops.insert(&delivery.topic, place.offset) {
            assert_eq!(place.offset, top + 1, "the next offset of {:?}", delivery.topic);
        }
    }
}

const BRIEF: Duration = Duration::from_millis(800);
const PUBLISHERS: usize = 8;
const EACH: usize = 60;
