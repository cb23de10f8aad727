//! Rules of [`Positions`] that need no accident.

use tidings_core::machines::{Ask, Positions, Question, Step};
use tidings_core::{
    Delivery, GapReason, HistoryPage, Mark, Message, Position, Publication, RoomId, TenantId, Top,
    Topic, Tops,
};

fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("a name"))
}

fn delivery(topic: &Topic, offset: u64, clock: u64) -> Delivery {
    delivery_in(1, topic, offset, clock)
}

fn delivery_in(epoch: u64, topic: &Topic, offset: u64, clock: u64) -> Delivery {
    let message = Message::of("news", &clock).expect("a number is JSON");
    let mut delivery = Delivery::of(&Publication::new(topic.clone(), message));
    delivery.position = Some(Position { epoch, offset, clock });
    delivery
}

/// Answers a look: the topic has its last message at `top`, and the partition's clock is `clock`.
fn look(positions: &mut Positions, top: Top, clock: u64) -> Vec<Step> {
    look_in(1, positions, top, clock)
}

/// The same in an epoch.
fn look_in(epoch: u64, positions: &mut Positions, top: Top, clock: u64) -> Vec<Step> {
    let ask = positions.poll().expect("it is to be looked at");
    let mut steps = Vec::new();
    positions.tops(&ask, &Tops { epoch, clock, tops: vec![top] }, &mut steps);
    steps
}

#[test]
fn a_topic_that_the_store_has_forgotten_is_read_after_what_a_look_proved() {
    let (mut positions, quiet) = (Positions::new([(1, 0)]), room("quiet"));
    positions.want(&quiet, 0);
    positions.subscribed(&quiet);
    look(&mut positions, Top { offset: 3, clock: 10 }, 10);
    positions.look_at_all();
    // The store has forgotten the topic, and others went on until 90.
    look(&mut positions, Top::default(), 90);
    let mut steps = Vec::new();
    positions.delivered(0, delivery(&quiet, 91, 91), &mut steps);
    let asked = positions.poll().map(|Ask { question, .. }| question);
    assert_eq!((asked, steps), (Some(Question::After(quiet, 90)), Vec::new()));
}

#[test]
fn a_topic_that_was_entered_while_its_link_was_away_holds_the_cursor_until_it_is_told() {
    let (mut positions, near, far) = (Positions::new([(1, 0)]), room("near"), room("far"));
    positions.want(&near, 0);
    positions.subscribed(&near);
    look(&mut positions, Top { offset: 1, clock: 1 }, 1);
    positions.lost(0);
    positions.want(&far, 0);
    positions.enter_absent(&far);
    // The new link confirms one of them earlier than the other, in which something has been published.
    positions.subscribed(&near);
    look(&mut positions, Top { offset: 1, clock: 1 }, 5);
    let mut steps = Vec::new();
    positions.delivered(0, delivery(&near, 2, 6), &mut steps);
    assert_eq!(steps, [Step::Deliver(delivery(&near, 2, 6), Box::new([Mark::new(1, 1)]))]);
    positions.subscribed(&far);
    let steps = look(&mut positions, Top { offset: 9, clock: 4 }, 6);
    let gap = Step::Gap(far.clone(), GapReason::Outage, Mark::new(1, 4));
    assert_eq!(steps, [gap, Step::Ready(far)]);
    assert_eq!(*positions.marks(), [Mark::new(1, 6)]);
}

#[test]
fn a_new_epoch_frees_no_cursor_of_a_gap_that_is_owed() {
    let (mut positions, near, far) = (Positions::new([(1, 0)]), room("near"), room("far"));
    positions.want(&near, 0);
    positions.subscribed(&near);
    look(&mut positions, Top { offset: 1, clock: 1 }, 1);
    positions.lost(0);
    positions.want(&far, 0);
    positions.enter_absent(&far);
    // The new link confirms one of them earlier than the other, and the store has lost what it had.
    positions.subscribed(&near);
    let again = Top { offset: 1, clock: 1 };
    assert_eq!(look_in(2, &mut positions, again, 20), []);
    let told = look_in(2, &mut positions, again, 20);
    assert_eq!(told[0], Step::Gap(near.clone(), GapReason::Epoch, Mark::new(2, 1)));
    let mut steps = Vec::new();
    positions.delivered(0, delivery_in(2, &near, 2, 21), &mut steps);
    // A client that is cut here comes back with a cursor of the epoch that ended, and is told of both.
    let before = Box::new([Mark::new(1, 1)]);
    assert_eq!(steps, [Step::Deliver(delivery_in(2, &near, 2, 21), before)]);
    positions.subscribed(&far);
    let told = look_in(2, &mut positions, Top { offset: 9, clock: 4 }, 21);
    let gap = Step::Gap(far.clone(), GapReason::Outage, Mark::new(2, 4));
    assert_eq!(told, [gap, Step::Ready(far)]);
    assert_eq!(*positions.marks(), [Mark::new(2, 21)]);
}

#[test]
fn the_clock_of_an_epoch_that_ended_is_no_place_in_the_next() {
    let (mut positions, busy) = (Positions::new([(1, 100)]), room("busy"));
    positions.lost(0);
    positions.want(&busy, 0);
    positions.enter_absent(&busy);
    positions.subscribed(&busy);
    // Its first message comes before the answer to the look.
    let late = positions.poll().expect("it is to be looked at");
    let mut steps = Vec::new();
    let first = delivery_in(2, &busy, 3, 6);
    positions.delivered(0, first.clone(), &mut steps);
    let tops = Tops { epoch: 2, clock: 6, tops: vec![Top { offset: 3, clock: 6 }] };
    positions.tops(&late, &tops, &mut steps);
    assert_eq!(steps, []);
    look_in(2, &mut positions, Top { offset: 3, clock: 6 }, 6);
    let ask = positions.poll().expect("it is to be read");
    let page =
        HistoryPage { epoch: 2, clock: 6, deliveries: vec![first], whole: true, more: false };
    positions.page(&ask, page, &mut steps);
    let Some(Step::Deliver(_, marks)) = steps.first() else { panic!("{steps:?}") };
    assert!(marks[0].is_of(2) && marks[0].clock <= 6, "{marks:?}");
}
