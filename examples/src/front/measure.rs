//! What records say about leaving and coming back. Pure.

use std::ops::Range;
use std::time::Duration;

use crate::check::{ClientRecord, ConnectionRecord, Seen};

/// How long clients were away, each time: from the end of a connection until they were in a topic again. Who never
/// came back was away for ever.
pub fn waits(records: &[ClientRecord]) -> Vec<Duration> {
    let mut waits = Vec::new();
    for record in records {
        let mut left = None;
        for connection in &record.connections {
            if let (Some(left), Some(at)) = (left, let_in(connection)) {
                waits.push(at.saturating_sub(left));
            }
            left = match let_in(connection) {
                Some(_) => Some(connection.ended),
                None => left,
            };
        }
        if record.connections.last().is_some_and(|last| let_in(last).is_none()) {
            waits.push(Duration::MAX);
        }
    }
    waits.sort_unstable();
    waits
}

/// How many times clients came back after they had been in, and how many of these with a cursor and `recovered`.
pub fn returns(records: &[ClientRecord]) -> (usize, usize) {
    let (mut back, mut recovered) = (0, 0);
    for record in records {
        let let_in = record.connections.iter().filter(|connection| let_in(connection).is_some());
        for connection in let_in.skip(1) {
            back += 1;
            recovered += usize::from(connection.resumed && connection.recovered == Some(true));
        }
    }
    (back, recovered)
}

fn let_in(connection: &ConnectionRecord) -> Option<Duration> {
    connection.seen.iter().find_map(|seen| match seen {
        Seen::Joined { at, .. } => Some(*at),
        _ => None,
    })
}

/// When clients tried to connect, within a time; sorted.
pub fn attempts(records: &[ClientRecord], within: &Range<Duration>) -> Vec<Duration> {
    let all = records.iter().flat_map(|record| &record.connections);
    let mut at: Vec<_> = all.map(|c| c.opened).filter(|at| within.contains(at)).collect();
    at.sort_unstable();
    at
}

/// The most of these within any second, and their mean per second from the first to the last.
pub fn peak(attempts: &[Duration]) -> (usize, f64) {
    let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else { return (0, 0.0) };
    let mean = attempts.len() as f64 / (*last - *first).as_secs_f64().max(1.0);
    let mut begin = 0;
    let mut most = 0;
    for (end, at) in attempts.iter().enumerate() {
        while *at - attempts[begin] >= Duration::from_secs(1) {
            begin += 1;
        }
        most = most.max(end + 1 - begin);
    }
    (most, mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::TopicId;

    fn connection(opened: u64, joined: Option<u64>, ended: u64) -> ConnectionRecord {
        let at = |seconds| Duration::from_secs(seconds);
        let seen = joined.map(|joined| Seen::Joined { topic: TopicId(0), at: at(joined) });
        let seen = seen.into_iter().collect();
        ConnectionRecord { opened: at(opened), ended: at(ended), seen, ..Default::default() }
    }

    fn client(connections: Vec<ConnectionRecord>) -> ClientRecord {
        ClientRecord { connections, ..Default::default() }
    }

    #[test]
    fn a_wait_counts_from_the_last_connection_that_was_one() {
        let records = [
            client(vec![
                connection(0, Some(1), 10),
                connection(11, None, 12),
                connection(13, Some(15), 20),
            ]),
            client(vec![connection(0, Some(1), 10), connection(11, None, 12)]),
            client(vec![connection(0, Some(1), 10)]),
        ];
        assert_eq!(waits(&records), [Duration::from_secs(5), Duration::MAX]);
        let window = Duration::from_secs(5)..Duration::from_secs(13);
        assert_eq!(attempts(&records, &window), [Duration::from_secs(11); 2]);
    }

    #[test]
    fn a_return_is_recovered_by_a_cursor_and_the_server() {
        let told = |resumed, recovered| {
            let connection = connection(11, Some(12), 13);
            ConnectionRecord { resumed, recovered: Some(recovered), ..connection }
        };
        let records = [
            client(vec![told(false, false), connection(9, None, 10), told(true, true)]),
            client(vec![told(false, false), told(true, false), told(false, true)]),
            client(vec![told(false, false)]),
        ];
        assert_eq!(returns(&records), (3, 1));
    }

    #[test]
    fn the_peak_is_of_any_second() {
        let at: Vec<_> =
            [0, 100, 1900, 2000, 2500, 2899, 2900, 9000].map(Duration::from_millis).into();
        let (most, mean) = peak(&at);
        assert_eq!(most, 4);
        assert!((mean - 8.0 / 9.0).abs() < 1e-9);
        assert_eq!(peak(&[]), (0, 0.0));
    }
}
