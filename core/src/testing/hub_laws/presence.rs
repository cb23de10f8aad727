//! Who is in a room, over two nodes on one bus.

use std::sync::Arc;
use std::time::Duration;

use super::scene::*;
use crate::testing::bus_laws::BusFixture;
use crate::{
    AllowAll, Anonymous, AttachError, Bus, Claim, CloseReason, ConnectOptions, Hub, HubBuilder,
    LeaseId, Limits, Topic, TopicOptions, TopicRules, UserId,
};
use serde_json::json;

/// A node that shows who is in its rooms, and forgets lost connections soon.
pub(super) async fn showing(bus: &Arc<dyn Bus>, change: impl FnOnce(&mut Limits)) -> Hub {
    builder(bus, change).start().await.expect("the bus is there")
}

/// The same before it is started.
pub(super) fn builder(bus: &Arc<dyn Bus>, change: impl FnOnce(&mut Limits)) -> HubBuilder {
    let linger = Duration::from_millis(100);
    let mut limits = Limits { presence_linger: linger, ..Limits::default() };
    change(&mut limits);
    let options = TopicOptions { presence: true, ..TopicOptions::default() };
    let builder = Hub::builder(Arc::clone(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    builder.topics(TopicRules::all(options)).limits(limits).shards(2)
}

/// Joins and returns who is there.
async fn join_and_see(client: &mut Client, room: &str) -> serde_json::Value {
    let text =
        json!({"type": "join:room", "payload": {"roomId": room, "presence": true}}).to_string();
    client.say(&text).await;
    client.next("room:joined").await["payload"]["members"].clone()
}

/// How many connections of a user all nodes claim in a topic.
async fn claimed(bus: &Arc<dyn Bus>, topic: &Topic, name: &str) -> u64 {
    let presence = bus.presence().expect("the bus knows presence");
    let partition = bus.partition(topic);
    let lease = LeaseId::new("asks").expect("a name");
    let user = UserId::new(name).expect("a name");
    let begun = presence.begin(partition, &lease, PATIENCE);
    in_time(begun).await.expect("the bus is there");
    let claim = [Claim { topic: topic.clone(), user, connections: 0 }];
    let tallies = in_time(presence.claim(partition, &lease, &claim)).await;
    tallies.expect("the bus is there").expect("the lease lives")[0].after
}

/// A user is in a room from its first to its last connection on any node, and only that is told.
pub async fn a_user_comes_with_the_first_connection_and_goes_with_the_last_over_all_nodes<
    F: BusFixture,
>() {
    let fixture = F::start().await;
    let hubs = [showing(&fixture.bus(), |_| {}).await, showing(&fixture.bus(), |_| {}).await];
    let mut watcher = Client::connect(&hubs[0], "w").await;
    assert_eq!(join_and_see(&mut watcher, "r").await, json!(["w"]));
    let mut first = Client::connect(&hubs[0], "u").await;
    assert_eq!(join_and_see(&mut first, "r").await, json!(["u", "w"]));
    let came = watcher.next("presence:joined").await;
    assert_eq!(came["payload"], json!({"roomId": "r", "userId": "u"}));
    // A second connection on another node, without asking who is there: it counts and is told nothing.
    let mut second = Client::connect(&hubs[1], "u").await;
    second.join("r").await;
    until(async || claimed(&fixture.bus(), &room("r"), "u").await == 2).await;
    first.leave("r").await;
    publish(&hubs[0], news(&room("r"), 1)).await;
    watcher.hears(1).await;
    second.hears(1).await;
    drop(second);
    let left = watcher.next("presence:left").await;
    assert_eq!(left["payload"], json!({"roomId": "r", "userId": "u"}));
    assert_eq!(hubs[1].count_present(&room("r")).await.expect("it is there"), 1);
}

/// Who comes back within `presence_linger` was not away.
pub async fn who_comes_back_at_once_was_not_away<F: BusFixture>() {
    let fixture = F::start().await;
    let hub =
        showing(&fixture.bus(), |limits| limits.presence_linger = Duration::from_secs(600)).await;
    let mut watcher = Client::connect(&hub, "w").await;
    join_and_see(&mut watcher, "r").await;
    for n in 0..3 {
        let mut client = Client::connect(&hub, "u").await;
        client.join("r").await;
        if n == 0 {
            watcher.next("presence:joined").await;
        }
        drop(client);
    }
    publish(&hub, news(&room("r"), 1)).await;
    watcher.hears(1).await;
}

/// The next that a watcher is told is that a user came or left.
async fn told(watcher: &mut Client, kind: &str, user: &str) {
    let told = watcher.next(kind).await;
    assert_eq!(told["payload"], json!({"roomId": "r", "userId": user}));
}

/// Who leaves a room, closes, or is disconnected for good is gone at once, and seen to come when it comes again.
pub async fn who_leaves_in_order_is_gone_at_once<F: BusFixture>() {
    let fixture = F::start().await;
    let linger = |limits: &mut Limits| limits.presence_linger = Duration::from_secs(600);
    let hubs = [showing(&fixture.bus(), linger).await, showing(&fixture.bus(), linger).await];
    let mut watcher = Client::connect(&hubs[0], "w").await;
    join_and_see(&mut watcher, "r").await;
    let mut client = Client::connect(&hubs[1], "u").await;
    client.join("r").await;
    told(&mut watcher, "presence:joined", "u").await;
    client.leave("r").await;
    told(&mut watcher, "presence:left", "u").await;
    client.join("r").await;
    told(&mut watcher, "presence:joined", "u").await;
    // However fast it comes again, it left. Several times while one claim is under way are told as one.
    for kind in ["leave:room", "join:room"] {
        client.say(&json!({"type": kind, "payload": {"roomId": "r"}}).to_string()).await;
    }
    told(&mut watcher, "presence:left", "u").await;
    told(&mut watcher, "presence:joined", "u").await;
    client.pipe.finish();
    told(&mut watcher, "presence:left", "u").await;
    let mut client = Client::connect(&hubs[1], "v").await;
    client.join("r").await;
    told(&mut watcher, "presence:joined", "v").await;
    let ended = hubs[1].disconnect(user("v"), CloseReason::DISCONNECTED).await;
    assert_eq!(ended, Ok(1));
    told(&mut watcher, "presence:left", "v").await;
}

/// Whose connection is lost, or closed with a code after which it comes back, is shown a while longer; one that then
/// leaves in order by its last connection is not.
pub async fn who_may_come_back_lingers<F: BusFixture>() {
    let fixture = F::start().await;
    let linger = |limits: &mut Limits| limits.presence_linger = Duration::from_secs(600);
    let hubs = [showing(&fixture.bus(), linger).await, showing(&fixture.bus(), linger).await];
    let mut watcher = Client::connect(&hubs[0], "w").await;
    join_and_see(&mut watcher, "r").await;
    let mut clients = Vec::new();
    for name in ["lost", "drained", "leaves"] {
        let mut client = Client::connect(&hubs[1], name).await;
        client.join("r").await;
        told(&mut watcher, "presence:joined", name).await;
        clients.push(client);
    }
    let mut second = Client::connect(&hubs[1], "leaves").await;
    second.join("r").await;
    drop(clients.remove(0));
    let ended = hubs[1].disconnect(user("drained"), CloseReason::RESTART).await;
    assert_eq!(ended, Ok(1));
    assert_eq!(clients.remove(0).ended().await, Some(CloseReason::RESTART.code));
    until(async || hubs[1].users().await.len() == 1).await;
    // What the node had to tell of them would come before this.
    clients.remove(0).leave("r").await;
    second.leave("r").await;
    told(&mut watcher, "presence:left", "leaves").await;
    assert_eq!(join_and_see(&mut watcher, "r").await, json!(["drained", "lost", "w"]));
}

/// Rooms that show no presence show nobody.
pub async fn rooms_without_presence_show_nobody<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut watcher = Client::connect(&hub, "w").await;
    assert_eq!(join_and_see(&mut watcher, "r").await, json!(null));
    let options =
        ConnectOptions { rooms: vec!["r".to_owned()], presence: true, ..ConnectOptions::default() };
    let (mut client, _) = Client::connect_with(&hub, "u", options).await;
    let joined = client.next("room:joined").await;
    assert_eq!(joined["payload"], json!({"roomId": "r", "recovered": false}));
    publish(&hub, news(&room("r"), 1)).await;
    watcher.hears(1).await;
}

/// Connections of a user are counted over all nodes.
pub async fn a_user_has_so_many_connections_over_all_nodes<F: BusFixture>() {
    let fixture = F::start().await;
    let limit = |limits: &mut Limits| limits.connections_per_user = 2;
    let hubs = [showing(&fixture.bus(), limit).await, showing(&fixture.bus(), limit).await];
    let _first = Client::connect(&hubs[0], "u").await;
    let second = Client::connect(&hubs[1], "u").await;
    for hub in &hubs {
        assert!(matches!(attach(hub, "u").await, Err(AttachError::TooMany)));
    }
    drop(second);
    until(|| async { attach(&hubs[0], "u").await.is_ok() }).await;
}

/// A store that lost who is where learns it again.
pub async fn a_store_that_lost_its_claims_gets_them_again<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = showing(&fixture.bus(), |_| {}).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    until(|| async { hub.count_present(&room("r")).await.is_ok_and(|n| n == 1) }).await;
    fixture.lose_store().await;
    // The node finds it at the next renewal of its lease.
    until(|| async { hub.count_present(&room("r")).await.is_ok_and(|n| n == 1) }).await;
}

/// Rooms in the request show who is there, also to who comes back.
pub async fn rooms_in_the_request_are_shown_too_also_to_who_comes_back<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = showing(&fixture.bus(), |_| {}).await;
    let mut other = Client::connect(&hub, "o").await;
    other.join("r").await;
    let options = |cursor| ConnectOptions {
        rooms: vec!["r".to_owned()],
        presence: true,
        cursor,
        ..ConnectOptions::default()
    };
    let (mut client, _) = Client::connect_with(&hub, "u", options(None)).await;
    let joined = client.next("room:joined").await;
    assert_eq!(joined["payload"]["members"], json!(["o", "u"]));
    publish(&hub, news(&room("r"), 1)).await;
    client.hears(1).await;
    other.hears(1).await;
    let cursor = client.cursor.clone();
    drop(client);
    let (mut client, connected) = Client::connect_with(&hub, "u", options(cursor)).await;
    assert_eq!(connected["payload"]["recovered"], true);
    let joined = client.next("room:joined").await;
    assert_eq!(joined["payload"]["members"], json!(["o", "u"]));
    other.leave("r").await;
    let left = client.next("presence:left").await;
    assert_eq!(left["payload"]["userId"], "o");
}

/// Rooms in the request tell who comes and goes, and their messages follow.
pub async fn rooms_in_the_request_tell_who_comes_and_goes_and_their_messages_follow<
    F: BusFixture,
>() {
    let fixture = F::start().await;
    let hub = showing(&fixture.bus(), |_| {}).await;
    let rooms = vec!["r".to_owned(), "s".to_owned()];
    let options = ConnectOptions { rooms, presence: true, ..ConnectOptions::default() };
    let (mut client, _) = Client::connect_with(&hub, "u", options).await;
    for room in ["r", "s"] {
        let joined = client.next("room:joined").await;
        assert_eq!(
            joined["payload"],
            json!({"roomId": room, "recovered": false, "members": ["u"]})
        );
    }
    let mut other = Client::connect(&hub, "o").await;
    for name in ["s", "r"] {
        other.join(name).await;
        let came = client.next("presence:joined").await;
        assert_eq!(came["payload"], json!({"roomId": name, "userId": "o"}));
        publish(&hub, news(&room(name), 1)).await;
        client.hears(1).await;
        other.hears(1).await;
        other.leave(name).await;
        let left = client.next("presence:left").await;
        assert_eq!(left["payload"], json!({"roomId": name, "userId": "o"}));
    }
}

/// Who is in a room already may ask later who else is.
pub async fn who_is_in_a_room_already_may_ask_later_who_else_is<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = showing(&fixture.bus(), |_| {}).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    assert_eq!(join_and_see(&mut client, "r").await, json!(["u"]));
    let mut other = Client::connect(&hub, "o").await;
    other.join("r").await;
    assert_eq!(client.next("presence:joined").await["payload"]["userId"], "o");
}
