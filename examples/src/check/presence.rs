//! Who a node shows in the rooms, against who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::Failure;
use super::connection::{Connection, Incoming, Request, Transport};
use super::history::{Address, TopicId, Topics};
use super::node::token;
use super::verdict::Violation;

/// Users, sorted.
pub type Users = BTreeSet<String>;

/// Whom a node shows in each room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Which of the run's nodes.
    pub node: usize,
    /// The rooms.
    pub rooms: BTreeMap<TopicId, Users>,
}

/// Compares what nodes show with who is there. A room that is not among `there` has nobody.
pub fn presence(there: &BTreeMap<TopicId, Users>, shown: &[Shown]) -> Vec<Violation> {
    let nobody = Users::new();
    let mut violations = Vec::new();
    for Shown { node, rooms } in shown {
        for (&topic, users) in rooms {
            let (node, there) = (*node, there.get(&topic).unwrap_or(&nobody));
            let named = |user: &String| (node, topic, user.clone());
            let missing = there.difference(users).map(named);
            violations.extend(missing.map(|(node, topic, user)| Violation::Missing {
                node,
                topic,
                user,
            }));
            let gone = users.difference(there).map(named);
            violations.extend(gone.map(|(node, topic, user)| Violation::Ghost {
                node,
                topic,
                user,
            }));
        }
    }
    violations
}

/// Asks a node who is in all rooms of the run, by joining them for a moment.
///
/// # Errors
/// When the node does not tell within ten seconds.
pub async fn look(node: usize, address: SocketAddr, topics: &Topics) -> Result<Shown, Failure> {
    let named = topics.iter().filter_map(|(_, address)| match address {
        Address::Room(room) => Some(room.clone()),
        _ => None,
    });
    let rooms: Vec<_> = named.collect();
    let token = token(OBSERVER, &json!({}));
    let request = Request {
        address,
        transport: Transport::WebSocket,
        token: &token,
        rooms: &rooms,
        presence: true,
        cursor: None,
    };
    let rooms = timeout(PATIENCE, members(&request, topics)).await??;
    Ok(Shown { node, rooms })
}

async fn members(
    request: &Request<'_>,
    topics: &Topics,
) -> Result<BTreeMap<TopicId, Users>, Failure> {
    #[derive(Deserialize)]
    struct Joined {
        #[serde(rename = "roomId")]
        room: String,
        members: Users,
    }
    let mut connection = Connection::open(request).await?;
    let mut rooms = BTreeMap::new();
    while rooms.len() < request.rooms.len() {
        let incoming = connection.next().await.map_err(|ended| ended.reason)?;
        let Incoming::Event(event) = incoming else { continue };
        match event.kind.as_str() {
            "room:joined" => {
                let Joined { room, mut members } = event.read()?;
                members.remove(OBSERVER);
                let topic = topics.id(&Address::Room(room)).ok_or("a room that nobody named")?;
                rooms.insert(topic, members);
            }
            "error" => return Err(event.payload.into()),
            _ => {}
        }
    }
    Ok(rooms)
}

/// The user that asks; it is no client of the run.
const OBSERVER: &str = "observer";
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> Users {
        names.iter().map(ToString::to_string).collect()
    }

    fn judge(there: &[&str], shown: &[&str]) -> Vec<Violation> {
        let room = TopicId(3);
        let there = BTreeMap::from([(room, users(there))]);
        presence(&there, &[Shown { node: 1, rooms: BTreeMap::from([(room, users(shown))]) }])
    }

    #[test]
    fn who_is_there_is_shown() {
        assert_eq!(judge(&["a", "b"], &["a", "b"]), []);
        assert_eq!(judge(&[], &[]), []);
    }

    #[test]
    fn who_is_there_and_not_shown_is_found() {
        let missing = Violation::Missing { node: 1, topic: TopicId(3), user: "b".into() };
        assert_eq!(judge(&["a", "b"], &["a"]), [missing]);
    }

    #[test]
    fn who_is_gone_and_shown_is_found() {
        let ghost = Violation::Ghost { node: 1, topic: TopicId(3), user: "c".into() };
        assert_eq!(judge(&["a"], &["a", "c"]), std::slice::from_ref(&ghost));
        let room = BTreeMap::from([(TopicId(3), users(&["c"]))]);
        assert_eq!(presence(&BTreeMap::new(), &[Shown { node: 1, rooms: room }]), [ghost]);
    }
}
