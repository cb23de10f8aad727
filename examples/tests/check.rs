//! The clients, publishers and checker that the measuring programs use, on one server without faults.
#![expect(clippy::disallowed_methods, reason = "a test reads the clock")]

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidings_examples::check::{
    Address, Addresses, Client, Crowd, Node, Outbound, Phase, Progress, Publisher, Random, Rules,
    Topics, Transport, token, verdict,
};
use tokio::time::Instant;

const USERS: usize = 10;
const ROUNDS: usize = 50;

#[tokio::test]
async fn clients_that_stay_get_all_that_was_published() {
    let node = Node::start(Path::new(env!("CARGO_BIN_EXE_tidings-server")), &[]).await;
    let mut node = node.expect("the server starts");
    let (start, addresses) = (Instant::now(), Addresses::new([node.address]));
    let users = (0..USERS).map(|user| Address::User(format!("u{user}")));
    let rooms = ["a", "b"].map(|room| Address::Room(room.to_owned()));
    let topics = Topics::new(rooms.into_iter().chain(users).chain([Address::Everyone]));
    let client = |number: usize| Client {
        name: format!("client {number}"),
        user: format!("u{}", number / 2),
        token: token(&format!("u{}", number / 2), &json!({})),
        transport: [Transport::WebSocket, Transport::EventSource][number % 2],
        rooms: vec!["a".to_owned(), "b".to_owned()],
        late_room: None,
        topics: topics.clone(),
        addresses: addresses.clone(),
        cuts: None,
        leaves: None,
        cursor_ahead: false,
        start,
        random: Random::of(1, number as u64),
        progress: Progress::default(),
    };
    let crowd = Crowd::start((0..2 * USERS).map(client).collect(), Phase::Calm);
    crowd.joined(PATIENCE).await.expect("all join");

    let mut publisher = Publisher::new(0, topics.clone(), addresses, start, 1);
    let mut published = Vec::new();
    for round in 0..ROUNDS {
        // In every third round one user is not to get what goes to the rooms.
        let except = (round % 3 == 0).then(|| format!("u{}", round % USERS).into());
        let batch: Vec<_> = topics
            .iter()
            .map(|(topic, address)| Outbound {
                topic,
                except: except.clone().filter(|_| matches!(address, Address::Room(_))),
            })
            .collect();
        published.extend(publisher.publish(&batch, PATIENCE).await.expect("it is published"));
    }
    assert_eq!(published.len(), ROUNDS * topics.iter().count());
    assert_eq!(crowd.settle(&published, PATIENCE).await, 0, "clients that lack something");
    let records = crowd.end().await.expect("no client panics");
    let report = verdict(&published, &records, Rules { no_gap: true, forks: None });
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.delivered > ROUNDS * USERS * 2, "{report}");
    node.kill().await.expect("the server ends");
}

const PATIENCE: Duration = Duration::from_secs(60);
