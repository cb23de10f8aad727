//! Rules of [`Positions`] that need no accident.

use tidings_core::machines::{Ask, Positions, Question, Step};
use tidings_core::{
    Delivery, GapReason, Mark, Message, Position, Publication, RoomId, TenantId, Top, Topic, Tops,
};

fn room(name: &str) -> Topic {
    Topic::room(TenantId::default(), RoomId::new(name).expect("a name"))
}

fn delivery(topic: &Topic, offset: u64, clock: u64) -> Delivery {
    let message = Message::of("news", &clock).expect("a number is JSON");
    let mut delivery = Delivery::of(&Publication::new(topic.clone(), message));
    delivery.position = Some(Position { epoch: 1, offset, clock });
    delivery
}

/// Answers a look: the topic has its last message at `top`, and the partition's clock is `clock`.
fn look(positions: &mut Positions, top: Top, clock: u64) -> Vec<Step> {
    let ask = positions.poll().expect("it is to be looked at");
    let mut steps = Vec::new();
    positions.tops(&ask, &Tops { epoch: 1, clock, tops: vec![top] }, &mut steps);
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
