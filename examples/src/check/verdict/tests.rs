//! The checker on histories made by hand: good ones pass, and each kind of bad one is named.

use std::time::Duration;

use super::*;

const TOPIC: TopicId = TopicId(0);

fn id(publisher: u16, sequence: u32) -> MessageId {
    MessageId { topic: TOPIC, publisher, sequence }
}

/// A message of publisher 1, begun and acknowledged `n` seconds after the start.
fn published(n: u32) -> Published {
    let at = Duration::from_secs(u64::from(n));
    Published { id: id(1, n), except: None, begun: at, acknowledged: at, fate: Fate::Done }
}

fn ten() -> Vec<Published> {
    (1..=10).map(published).collect()
}

fn joined() -> Seen {
    Seen::Joined { topic: TOPIC, at: Duration::ZERO }
}

fn message(sequence: u32) -> Seen {
    Seen::Message(id(1, sequence), 0)
}

fn gap() -> Seen {
    Seen::Gap(TOPIC, "outage".into(), 0)
}

/// A client that saw this, a list for each connection.
fn client(connections: &[&[Seen]]) -> ClientRecord {
    let connections = connections.iter().map(|seen| ConnectionRecord {
        seen: [&[joined()], *seen].concat(),
        ..ConnectionRecord::default()
    });
    ClientRecord {
        name: "c".into(),
        user: "u".into(),
        connections: connections.collect(),
        left: false,
    }
}

fn messages(sequences: impl IntoIterator<Item = u32>) -> Vec<Seen> {
    sequences.into_iter().map(message).collect()
}

fn judge(published: &[Published], client: ClientRecord) -> Vec<Violation> {
    verdict(published, &[client], Rules::default()).violations
}

fn lost(connection: usize, first: u32, count: usize, next: Option<u32>) -> Violation {
    let next = next.map(|next| id(1, next));
    Violation::Lost { client: "c".into(), connection, first: id(1, first), count, next }
}

#[test]
fn all_in_order_passes() {
    let report =
        verdict(&ten(), &[client(&[&messages(1..=10)])], Rules { no_gap: true, forks: None });
    assert_eq!(report.violations, []);
    assert_eq!((report.published, report.delivered, report.repeated), (10, 10, 0));
}

#[test]
fn repeats_around_a_reconnect_pass() {
    let report =
        verdict(&ten(), &[client(&[&messages(1..=6), &messages(4..=10)])], Rules::default());
    assert_eq!(report.violations, []);
    assert_eq!(report.repeated, 3);
}

#[test]
fn a_connection_without_news_changes_nothing() {
    let seen = [&messages(1..=6)[..], &[], &messages(7..=10)];
    assert_eq!(judge(&ten(), client(&seen)), []);
}

#[test]
fn a_lost_message_is_found() {
    let seen = messages((1..=10).filter(|n| *n != 5));
    assert_eq!(judge(&ten(), client(&[&seen])), [lost(0, 5, 1, Some(6))]);
}

#[test]
fn a_lost_end_is_found() {
    assert_eq!(judge(&ten(), client(&[&messages(1..=8)])), [lost(0, 9, 2, None)]);
}

#[test]
fn a_lost_beginning_is_found() {
    assert_eq!(judge(&ten(), client(&[&messages(3..=10)])), [lost(0, 1, 2, Some(3))]);
}

#[test]
fn a_client_that_got_nothing_is_found() {
    assert_eq!(judge(&ten(), client(&[&[]])), [lost(0, 1, 10, None)]);
}

#[test]
fn a_loss_around_a_reconnect_is_found() {
    let seen = [&messages(1..=4)[..], &messages(6..=10)];
    assert_eq!(judge(&ten(), client(&seen)), [lost(1, 5, 1, Some(6))]);
}

#[test]
fn a_hole_within_a_replay_is_found() {
    let seen = [&messages(1..=6)[..], &messages([3, 5, 6, 7, 8, 9, 10])];
    assert_eq!(judge(&ten(), client(&seen)), [lost(1, 4, 1, Some(5))]);
}

#[test]
fn what_was_begun_before_the_join_is_not_due() {
    let mut late = client(&[&messages(5..=10)]);
    let at = Duration::from_millis(4500);
    late.connections[0].seen[0] = Seen::Joined { topic: TOPIC, at };
    assert_eq!(judge(&ten(), late.clone()), []);
    late.connections[0].seen.remove(1);
    assert_eq!(judge(&ten(), late), [lost(0, 5, 1, Some(6))]);
}

#[test]
fn a_swap_is_found() {
    let seen = messages([1, 2, 4, 3, 5, 6, 7, 8, 9, 10]);
    let swapped =
        Violation::Swapped { client: "c".into(), connection: 0, late: id(1, 3), after: id(1, 4) };
    assert_eq!(judge(&ten(), client(&[&seen])), [lost(0, 3, 1, Some(4)), swapped]);
}

#[test]
fn a_double_on_one_connection_is_found() {
    let doubled = Violation::Doubled { client: "c".into(), connection: 0, message: id(1, 3) };
    let seen = messages([1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(judge(&ten(), client(&[&seen])), std::slice::from_ref(&doubled));
    let seen = messages([1, 2, 3, 4, 5, 3, 6, 7, 8, 9, 10]);
    assert_eq!(judge(&ten(), client(&[&seen])), [doubled]);
}

#[test]
fn a_gap_covers_what_is_missing_there() {
    let seen = [messages(1..=4), vec![gap()], messages(7..=10)].concat();
    let report = verdict(&ten(), &[client(&[&seen])], Rules::default());
    assert_eq!(report.violations, []);
    assert_eq!((report.covered, report.gaps["outage"]), (2, 1));
}

#[test]
fn a_gap_at_the_end_and_one_before_a_reconnect_cover() {
    let seen = [messages(1..=8), vec![gap()]].concat();
    assert_eq!(judge(&ten(), client(&[&seen])), []);
    let seen = [&seen[..5], &[gap()][..], &messages(7..=10)].concat();
    assert_eq!(judge(&ten(), client(&[&seen[..6], &seen[6..]])), []);
}

#[test]
fn a_gap_that_comes_too_late_covers_nothing() {
    let seen = [messages([1, 2, 3, 4, 7]), vec![gap()], messages(8..=10)].concat();
    assert_eq!(judge(&ten(), client(&[&seen])), [lost(0, 5, 2, Some(7))]);
}

#[test]
fn a_gap_covers_only_until_the_next_message() {
    let seen = [messages(1..=2), vec![gap()], messages([4, 5, 7, 8, 9, 10])].concat();
    assert_eq!(judge(&ten(), client(&[&seen])), [lost(0, 6, 1, Some(7))]);
}

#[test]
fn a_gap_of_another_topic_covers_nothing() {
    let other = Seen::Gap(TopicId(1), "outage".into(), 0);
    let seen = [messages(1..=4), vec![other], messages(6..=10)].concat();
    assert_eq!(judge(&ten(), client(&[&seen])), [lost(0, 5, 1, Some(6))]);
}

#[test]
fn a_gap_where_none_may_be_is_found() {
    let seen = [messages(1..=4), vec![gap()], messages(5..=10)].concat();
    let report = verdict(&ten(), &[client(&[&seen])], Rules { no_gap: true, forks: None });
    let gap =
        Violation::Gap { client: "c".into(), connection: 0, topic: TOPIC, reason: "outage".into() };
    assert_eq!(report.violations, [gap]);
}

#[test]
fn who_is_excepted_misses_nothing_and_may_get_nothing() {
    let mut some = ten();
    some[4].except = Some("u".into());
    assert_eq!(judge(&some, client(&[&messages((1..=10).filter(|n| *n != 5))])), []);
    let excepted = Violation::Excepted { client: "c".into(), message: id(1, 5) };
    assert_eq!(judge(&some, client(&[&messages(1..=10)])), [excepted]);
    some[4].except = Some("another".into());
    assert_eq!(judge(&some, client(&[&messages(1..=10)])), []);
}

#[test]
fn what_nobody_published_is_found() {
    let seen = [messages(1..=10), vec![message(11)]].concat();
    let unknown = Violation::Unknown { client: "c".into(), message: id(1, 11) };
    assert_eq!(judge(&ten(), client(&[&seen])), [unknown]);
}

/// Two publishers, five messages each, all under way at the same time.
fn two_publishers() -> Vec<Published> {
    let at = |sequence| Duration::from_millis(u64::from(sequence));
    let one = |publisher, sequence| Published {
        id: id(publisher, sequence),
        except: None,
        begun: at(sequence),
        acknowledged: at(sequence + 10),
        fate: Fate::Done,
    };
    (1..=2).flat_map(|publisher| (1..=5).map(move |sequence| one(publisher, sequence))).collect()
}

fn interleaved(pairs: &[(u16, u32)]) -> Vec<Seen> {
    pairs.iter().map(|&(publisher, sequence)| Seen::Message(id(publisher, sequence), 0)).collect()
}

const ONE_WAY: [(u16, u32); 10] =
    [(2, 1), (1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (2, 4), (1, 4), (1, 5), (2, 5)];

#[test]
fn publishers_may_be_interleaved_in_any_one_way() {
    let clients = [client(&[&interleaved(&ONE_WAY)]), client(&[&interleaved(&ONE_WAY)])];
    assert_eq!(verdict(&two_publishers(), &clients, Rules::default()).violations, []);
}

#[test]
fn clients_that_disagree_are_found() {
    let mut other_way = ONE_WAY;
    other_way.swap(3, 4);
    let clients = [client(&[&interleaved(&ONE_WAY)]), client(&[&interleaved(&other_way)])];
    let found = verdict(&two_publishers(), &clients, Rules::default()).violations;
    let [Violation::Disagreement(one, other), ..] = &found[..] else { panic!("{found:?}") };
    let mut pair = [*one, *other];
    pair.sort();
    assert_eq!(pair, [id(1, 3), id(2, 2)]);
}

#[test]
fn one_publisher_lost_between_another_is_found() {
    let clients = [
        client(&[&interleaved(&ONE_WAY)]),
        client(&[&interleaved(&[&ONE_WAY[..5], &ONE_WAY[6..]].concat())]),
    ];
    let found = verdict(&two_publishers(), &clients, Rules::default()).violations;
    let (first, next) = (id(2, 3), Some(id(2, 4)));
    assert_eq!(
        found,
        [Violation::Lost { client: "c".into(), connection: 0, first, count: 1, next }]
    );
}

#[test]
fn what_came_before_something_older_is_found() {
    let mut both = two_publishers();
    // All of the second publisher's was begun after all of the first's was acknowledged.
    both[5..].iter_mut().for_each(|message| {
        message.begun += Duration::from_secs(1);
        message.acknowledged += Duration::from_secs(1);
    });
    let found = judge(&both, client(&[&interleaved(&ONE_WAY)]));
    assert_eq!(found, [Violation::Overtaken { earlier: id(1, 1), later: id(2, 1) }]);
}

#[test]
fn what_nobody_saw_stands_where_it_was_acknowledged() {
    let seconds = |n| Duration::from_secs(n);
    // The third was tried from early on and got through late; the second, in between, is covered by the gap.
    let published: Vec<_> = [(1, 1, 1, 1), (2, 1, 5, 5), (3, 1, 4, 6)]
        .map(|(publisher, sequence, begun, acknowledged)| Published {
            id: id(publisher, sequence),
            except: None,
            begun: seconds(begun),
            acknowledged: seconds(acknowledged),
            fate: Fate::Done,
        })
        .into();
    let seen = [Seen::Message(id(1, 1), 1000), gap(), Seen::Message(id(3, 1), 6000)];
    assert_eq!(judge(&published, client(&[&seen])), []);
}

#[test]
fn who_left_for_good_misses_only_what_came_before() {
    let mut client = client(&[&messages(1..=6)]);
    client.left = true;
    assert_eq!(judge(&ten(), client.clone()), []);
    client.connections[0].seen.remove(3);
    assert_eq!(judge(&ten(), client), [lost(0, 3, 1, Some(4))]);
}

#[test]
fn what_was_not_done_must_not_come() {
    let mut some = ten();
    some[4].fate = Fate::NotDone;
    assert_eq!(judge(&some, client(&[&messages((1..=10).filter(|n| *n != 5))])), []);
    let came = Violation::NotDone { client: "c".into(), message: id(1, 5) };
    assert_eq!(judge(&some, client(&[&messages(1..=10)])), [came]);
}

#[test]
fn what_nobody_was_told_of_may_come_or_not() {
    let mut some = ten();
    some[4].fate = Fate::Unknown;
    for seen in [messages((1..=10).filter(|n| *n != 5)), messages(1..=10)] {
        let report = verdict(&some, &[client(&[&seen])], Rules::default());
        assert_eq!((report.violations, report.refused), (vec![], (0, 1)));
    }
}

#[test]
fn what_comes_again_after_a_gap_ends_before_the_hole() {
    // The fifth and sixth are lost; what was kept before them comes again on the next connection.
    let seen = [vec![gap()], messages([3, 4, 7, 8, 9, 10])].concat();
    assert_eq!(judge(&ten(), client(&[&messages(1..=4), &seen])), []);
    let seen = [vec![gap()], messages([3, 4, 7, 9, 10])].concat();
    assert_eq!(judge(&ten(), client(&[&messages(1..=4), &seen])), [lost(1, 8, 1, Some(9))]);
}

/// What a client saw where the store may have been two for five seconds: each message with its second.
fn forked(published: &[Published], connections: &[&[Seen]]) -> Vec<Violation> {
    let rules = Rules { no_gap: false, forks: Some(Duration::from_secs(5)) };
    verdict(published, &[client(connections)], rules).violations
}

fn at(sequence: u32, second: u32) -> Seen {
    Seen::Message(id(1, sequence), second * 1000)
}

fn gap_at(second: u32) -> Seen {
    Seen::Gap(TOPIC, "epoch".into(), second * 1000)
}

#[test]
fn a_gap_may_tell_later_what_went_into_a_replaced_primary() {
    let five: Vec<_> = (1..=5).map(published).collect();
    let seen = [at(1, 1), at(3, 3), at(4, 4), gap_at(8), at(5, 9)];
    assert_eq!(forked(&five, &[&seen]), []);
    let too_late = [at(1, 1), at(3, 3), at(4, 4), gap_at(9), at(5, 9)];
    assert_eq!(forked(&five, &[&too_late]), [lost(0, 2, 1, Some(3))]);
    let never = [at(1, 1), at(3, 3), at(4, 4), at(5, 9)];
    assert_eq!(forked(&five, &[&never]), [lost(0, 2, 1, Some(3))]);
    let before = [at(1, 1), gap_at(1), at(2, 2), at(4, 4), at(5, 9)];
    assert_eq!(forked(&five, &[&before]), [lost(0, 3, 1, Some(4))]);
}

#[test]
fn who_was_away_is_told_first_when_it_is_back() {
    let five: Vec<_> = (1..=5).map(published).collect();
    assert_eq!(forked(&five, &[&[at(1, 1), at(3, 3)], &[gap_at(20), at(4, 20), at(5, 20)]]), []);
    let after_all = [at(4, 20), gap_at(20), at(5, 20)];
    assert_eq!(forked(&five, &[&[at(1, 1), at(3, 3)], &after_all]), [lost(0, 2, 1, Some(3))]);
}

#[test]
fn what_was_tried_twice_may_be_in_both_stores() {
    let mut five: Vec<_> = (1..=5).map(published).collect();
    five[1].fate = Fate::Repeated;
    let both = [at(1, 1), at(2, 1), gap_at(2), at(3, 3), at(2, 4), at(4, 4), at(5, 5)];
    assert_eq!(forked(&five, &[&both]), []);
    let neither = [at(1, 1), at(3, 3), at(4, 4), at(5, 5)];
    assert_eq!(forked(&five, &[&neither]), [lost(0, 2, 1, Some(3))]);
}

#[test]
fn a_gap_tells_of_all_that_was_published_before_it_came() {
    // On its return the client gets what is kept from before and after two losses.
    let ten: Vec<_> = (1..=10).map(published).collect();
    let seen = [gap_at(8), at(4, 8), at(7, 8), at(9, 9), at(10, 10)];
    assert_eq!(forked(&ten, &[&[at(1, 1), at(2, 2)], &seen]), []);
    let seen = [gap_at(8), at(4, 8), at(7, 8), at(8, 9), at(10, 10)];
    assert_eq!(forked(&ten, &[&[at(1, 1), at(2, 2)], &seen]), [lost(1, 9, 1, Some(10))]);
}

#[test]
fn what_came_after_a_gap_and_was_begun_before_is_not_lost() {
    let five: Vec<_> = (1..=5).map(published).collect();
    let seen = [at(1, 1), at(3, 2), gap_at(3), at(2, 3), at(4, 4), at(5, 5)];
    assert_eq!(forked(&five, &[&seen]), []);
}

#[test]
fn who_leaves_before_it_had_to_be_told_is_not_judged() {
    let five: Vec<_> = (1..=5).map(published).collect();
    let rules = Rules { no_gap: false, forks: Some(Duration::from_secs(5)) };
    let mut left = client(&[&[at(1, 1), at(3, 3)]]);
    left.left = true;
    left.connections[0].ended = Duration::from_secs(7);
    assert_eq!(verdict(&five, std::slice::from_ref(&left), rules).violations, []);
    left.connections[0].ended = Duration::from_secs(8);
    assert_eq!(verdict(&five, &[left], rules).violations, [lost(0, 2, 1, Some(3))]);
}
