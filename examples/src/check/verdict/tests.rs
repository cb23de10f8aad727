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
    Published { id: id(1, n), except: None, begun: at, acknowledged: at }
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
    Seen::Gap(TOPIC, "outage".into())
}

/// A client that saw this, a list for each connection.
fn client(connections: &[&[Seen]]) -> ClientRecord {
    let connections = connections.iter().map(|seen| ConnectionRecord {
        seen: [&[joined()], *seen].concat(),
        ..ConnectionRecord::default()
    });
    ClientRecord { name: "c".into(), user: "u".into(), connections: connections.collect() }
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
    let report = verdict(&ten(), &[client(&[&messages(1..=10)])], Rules { no_gap: true });
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
    let other = Seen::Gap(TopicId(1), "outage".into());
    let seen = [messages(1..=4), vec![other], messages(6..=10)].concat();
    assert_eq!(judge(&ten(), client(&[&seen])), [lost(0, 5, 1, Some(6))]);
}

#[test]
fn a_gap_where_none_may_be_is_found() {
    let seen = [messages(1..=4), vec![gap()], messages(5..=10)].concat();
    let report = verdict(&ten(), &[client(&[&seen])], Rules { no_gap: true });
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
        })
        .into();
    let seen = [Seen::Message(id(1, 1), 1000), gap(), Seen::Message(id(3, 1), 6000)];
    assert_eq!(judge(&published, client(&[&seen])), []);
}
