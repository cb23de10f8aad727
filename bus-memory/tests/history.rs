//! What the in-process bus does beyond the laws of history: ages to the tick, what it forgets, and its bounds.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::collections::HashMap;

use tidings_bus_memory::{Config, MemoryBus};
use tidings_core::{
    Bus, Delivery, HistoryPage, IDEMPOTENCY_WINDOW, Position, Publication, Receipt, Retention, Top,
};

mod common;
use common::{Clock, HOUR, MINUTE, SECOND, now, room, say};

struct Keeper {
    bus: MemoryBus,
    clock: Clock,
}

impl Keeper {
    fn new() -> Self {
        Self::with_bytes(Config::default().history_bytes)
    }

    fn with_bytes(bytes: usize) -> Self {
        let clock = Clock::default();
        let mut config = Config::default();
        config.history_bytes = bytes;
        config.clock = clock.reader();
        Self { bus: MemoryBus::new(config), clock }
    }

    fn receipt(&self, publication: Publication) -> Receipt {
        now(self.bus.publish(vec![publication])).remove(0).unwrap()
    }

    /// Keeps a message for ten minutes.
    fn keep(&self, name: &str) -> Position {
        let retention = Retention { count: 1000, age: 10 * MINUTE };
        self.receipt(say(name, "kept").retention(retention)).position.unwrap()
    }

    fn after(&self, name: &str, clock: u64) -> HistoryPage {
        now(self.bus.history().unwrap().after(&room(name), clock, u32::MAX)).unwrap()
    }

    /// How many messages are kept after a clock, and whether these are all.
    fn kept(&self, name: &str, clock: u64) -> (usize, bool) {
        let page = self.after(name, clock);
        (page.deliveries.len(), page.whole)
    }

    fn top(&self, name: &str) -> Top {
        now(self.bus.history().unwrap().tops(0, &[room(name)])).unwrap().tops[0]
    }
}

#[test]
fn a_message_is_kept_up_to_its_age_to_the_tick() {
    let keeper = Keeper::new();
    let first = keeper.keep("a");
    keeper.clock.pass(MINUTE);
    let second = keeper.keep("a");
    keeper.clock.pass(9 * MINUTE - common::TICK);
    assert_eq!(keeper.kept("a", 0), (2, true));
    keeper.clock.pass(common::TICK);
    assert_eq!(keeper.kept("a", 0), (1, false));
    assert_eq!(keeper.kept("a", first.clock), (1, true));
    keeper.clock.pass(MINUTE);
    assert_eq!(keeper.kept("a", first.clock), (0, false));
    assert_eq!(keeper.kept("a", second.clock), (0, true));
}

#[test]
fn however_many_expire_at_once_none_is_read() {
    let keeper = Keeper::new();
    let names: Vec<_> = (0..100).map(|n| format!("room {n}")).collect();
    let tops: Vec<_> = names.iter().map(|name| keeper.keep(name).clock).collect();
    keeper.clock.pass(10 * MINUTE);
    for (name, clock) in names.iter().zip(tops).rev() {
        assert_eq!(keeper.kept(name, 0), (0, false));
        assert_eq!(keeper.kept(name, clock), (0, true));
    }
}

#[test]
fn the_latest_retention_counts() {
    let keeper = Keeper::new();
    let with = |count, age| keeper.receipt(say("a", "x").retention(Retention { count, age }));
    for _ in 0..10 {
        with(10, HOUR);
    }
    with(3, HOUR);
    assert_eq!(keeper.kept("a", 0), (3, false));
    keeper.clock.pass(MINUTE);
    let last = with(3, SECOND).position.unwrap();
    assert_eq!(keeper.kept("a", 0), (1, false));
    let none = with(0, HOUR).position.unwrap();
    assert_eq!(none.offset, last.offset + 1, "what is not kept has a position all the same");
    assert_eq!(keeper.kept("a", last.clock), (0, false));
    assert_eq!(keeper.kept("a", none.clock), (0, true));
}

#[test]
fn a_topic_is_forgotten_an_hour_after_its_last_message_expired() {
    let keeper = Keeper::new();
    let (first, last) = (keeper.keep("a"), keeper.keep("a"));
    keeper.clock.pass(10 * MINUTE);
    assert_eq!(keeper.kept("a", last.clock), (0, true));
    keeper.clock.pass(HOUR - common::TICK);
    assert_eq!(keeper.top("a"), Top { offset: last.offset, clock: last.clock });
    keeper.clock.pass(common::TICK);
    assert_eq!(keeper.top("a"), Top::default());
    for name in ["a", "never published"] {
        assert_eq!(keeper.kept(name, first.clock), (0, false), "{name}: it cannot know");
        assert_eq!(keeper.kept(name, last.clock), (0, true), "{name}: nothing came since");
    }
}

#[test]
fn offsets_rise_also_when_the_topic_was_forgotten() {
    let keeper = Keeper::new();
    for _ in 0..100 {
        keeper.keep("a");
    }
    let before = keeper.keep("a");
    keeper.keep("b");
    keeper.clock.pass(2 * HOUR);
    assert_eq!((keeper.top("a"), keeper.top("b")), (Top::default(), Top::default()));
    let after = keeper.keep("a");
    assert!(after.offset > before.offset, "{after:?} after {before:?}");
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(keeper.kept("a", before.clock - 1), (1, false));
    assert_eq!(keeper.keep("a").offset, after.offset + 1);
}

#[test]
fn forgetting_one_topic_costs_recent_cursors_nothing() {
    let keeper = Keeper::new();
    keeper.keep("old");
    keeper.clock.pass(HOUR);
    let recent = keeper.keep("recent");
    keeper.clock.pass(15 * MINUTE);
    assert_eq!(keeper.top("old"), Top::default(), "it is forgotten");
    assert_eq!(keeper.kept("old", recent.clock), (0, true));
    assert_eq!(keeper.kept("never published", recent.clock), (0, true));
    assert_eq!(keeper.top("recent").clock, recent.clock, "it is not");
}

#[test]
fn a_key_is_known_for_its_window_to_the_tick() {
    let keeper = Keeper::new();
    let retention = Retention { count: 10, age: HOUR };
    let publication = say("a", "once").retention(retention).idempotency_key("key");
    let first = keeper.receipt(publication.clone());
    keeper.clock.pass(IDEMPOTENCY_WINDOW - common::TICK);
    assert_eq!(keeper.receipt(publication.clone()), first);
    keeper.clock.pass(common::TICK);
    let second = keeper.receipt(publication.clone());
    assert_ne!(second, first, "a repeat does not prolong the window");
    assert_eq!(keeper.receipt(publication), second);
    assert_eq!(keeper.kept("a", 0), (2, true));
}

#[test]
fn history_keeps_to_its_bytes_and_lets_the_oldest_go() {
    let keeper = Keeper::with_bytes(1 << 20);
    let payload = "x".repeat(1000);
    let retention = Retention { count: u32::MAX, age: HOUR };
    let mut positions = Vec::new();
    for n in 0..4000 {
        let publication = say(&format!("room {}", n % 7), &payload).retention(retention);
        positions.push(keeper.receipt(publication).position.unwrap());
        keeper.clock.pass(SECOND / 10);
    }
    let pages = (0..7).map(|n| keeper.after(&format!("room {n}"), 0));
    let kept: Vec<u64> = pages
        .flat_map(|page| {
            assert!(!page.whole);
            page.deliveries.into_iter().map(|delivery| delivery.position.unwrap().clock)
        })
        .collect();
    let bytes = kept.len() * (1000 + size_of::<Delivery>());
    assert!(bytes > 1 << 19 && bytes < 1 << 20, "{} messages are kept", kept.len());
    let oldest = *kept.iter().min().unwrap();
    let newest = positions.iter().filter(|position| position.clock >= oldest).count();
    assert!(newest - kept.len() < 7, "over all topics the oldest go first");
}

#[test]
fn topics_and_keys_without_number_keep_to_the_bytes() {
    let keeper = Keeper::with_bytes(1 << 20);
    let first = keeper.keep("room 0");
    let topics = 20_000;
    for n in 1..topics {
        let retention = Retention { count: 1, age: SECOND };
        let key = format!("{n} {}", "k".repeat(100));
        let publication = say(&format!("room {n}"), "x").retention(retention);
        keeper.receipt(publication.idempotency_key(key));
        keeper.clock.pass(SECOND / 50);
    }
    let known = (1..topics).filter(|n| keeper.top(&format!("room {n}")) != Top::default()).count();
    assert!((500..5000).contains(&known), "{known} topics are remembered");
    assert_eq!(keeper.top("room 0").clock, first.clock, "what is kept outlives what is past");
    assert_eq!(keeper.kept("never published", first.clock), (0, false));
    let text = format!("{:?}", keeper.bus);
    assert!(text.len() < 4 << 20, "nothing else grows: {} bytes of debug output", text.len());
}

#[test]
fn a_message_over_the_bound_is_delivered_and_not_kept() {
    let keeper = Keeper::with_bytes(10_000);
    let big = say("a", &"x".repeat(20_000)).retention(Retention { count: 10, age: HOUR });
    let position = keeper.receipt(big).position.unwrap();
    assert_eq!(keeper.kept("a", 0), (0, false));
    assert_eq!(keeper.kept("a", position.clock), (0, true));
    assert!(keeper.keep("a").offset > position.offset);
    assert_eq!(keeper.kept("a", position.clock), (1, true));
}

#[test]
fn what_is_kept_does_not_hold_the_buffer_it_was_cut_from() {
    let keeper = Keeper::new();
    let buffer = bytes::Bytes::from(vec![b' '; 1 << 16]);
    let mut publication = say("a", "x").retention(Retention { count: 1, age: HOUR });
    publication.message.payload = Some(tidings_core::Payload::Binary(buffer.slice(..10)));
    keeper.receipt(publication);
    assert_eq!(keeper.kept("a", 0), (1, true));
    assert!(buffer.is_unique(), "nobody else has the buffer");
}

#[test]
fn dropped_publications_are_kept_and_heard_by_nobody() {
    let keeper = Keeper::new();
    let mut link = now(keeper.bus.connect(0)).unwrap();
    now(link.interest.subscribe(&[room("a")])).unwrap();
    keeper.bus.drop_next(2);
    let retention = Retention { count: 10, age: HOUR };
    let links = |publication: Publication| keeper.receipt(publication).links.unwrap();
    assert_eq!(links(say("a", "passing")), 1, "only what is kept is dropped");
    assert_eq!([0; 2].map(|_| links(say("a", "lost").retention(retention))), [0, 0]);
    assert_eq!(links(say("a", "heard").retention(retention)), 1);
    assert_eq!(keeper.kept("a", 0), (3, true));
}

/// At random, with little room and long pauses: what is said to be whole is, and offsets never go back.
#[test]
fn whole_is_never_a_lie() {
    let mut lies_avoided = 0;
    for seed in 1..=30 {
        let mut dice = common::Dice(seed);
        let keeper = Keeper::with_bytes([4 << 10, 64 << 10, 1 << 20][dice.below(3)]);
        let mut all = HashMap::<String, Vec<Position>>::new();
        for _ in 0..1500 {
            let name = format!("room {}", dice.below(12));
            let published = all.entry(name.clone()).or_default();
            if dice.below(2) == 0 {
                let count = [0, 1, 5, 100][dice.below(4)];
                let age = [SECOND, MINUTE, HOUR][dice.below(3)];
                let text = "x".repeat(dice.below(500));
                let publication = say(&name, &text).retention(Retention { count, age });
                let position = keeper.receipt(publication).position.unwrap();
                let last = published.last().map_or(0, |last| last.offset);
                assert!(position.offset > last && position.offset <= position.clock);
                published.push(position);
            } else {
                let now = keeper.after(&name, 0).clock;
                let clock = dice.below(now as usize + 1) as u64;
                let page = keeper.after(&name, clock);
                let kept: Vec<_> = page.deliveries.iter().map(|d| d.position.unwrap()).collect();
                let after = |position: &&Position| position.clock > clock;
                let expected: Vec<_> = published.iter().filter(after).copied().collect();
                assert!(expected.ends_with(&kept), "what is kept is the newest");
                if page.whole {
                    assert_eq!(kept, expected, "{name} after {clock}");
                } else {
                    lies_avoided += 1;
                }
                let top = keeper.top(&name);
                let last =
                    published.last().map(|last| Top { offset: last.offset, clock: last.clock });
                assert!(top == Top::default() || Some(top) == last);
            }
            if dice.below(4) == 0 {
                keeper.clock.pass([SECOND / 4, 10 * SECOND, 10 * MINUTE, HOUR][dice.below(4)]);
            }
        }
    }
    assert!(lies_avoided > 1000, "the scripts trim and forget: {lies_avoided}");
}
