//! What a hub promises to each of its connections.

use std::sync::Arc;
use std::time::Duration;

use super::scene::*;
use crate::testing::MemoryPipe;
use crate::testing::bus_laws::BusFixture;
use crate::testing::script::in_background;
use crate::{
    AllowAll, Anonymous, AttachError, Bus, Except, Hub, Limits, Message, Publication, TopicOptions,
    TopicRules, UserId,
};

/// `connected` is the first thing that a connection hears, whatever was published and asked before it was served.
pub async fn nothing_comes_before_connected<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let attachment = attach(&hub, "u").await.expect("it is taken in");
    let (server, mut pipe) = MemoryPipe::new(PIPE);
    // It is in its topics from now on, though nobody serves it yet.
    publish(&hub, news(&user("u"), 1)).await;
    publish(&hub, news(&everyone(), 2)).await;
    assert!(pipe.send("{\"type\":\"ping\"}").await);
    in_background(attachment.serve(server));
    let first = in_time(pipe.next()).await.expect("a message");
    assert!(first.starts_with("{\"type\":\"connected\""), "{first}");
    let mut rest = Vec::new();
    for _ in 0..3 {
        rest.push(in_time(pipe.next()).await.expect("a message"));
    }
    for kind in ["\"payload\":1}", "\"payload\":2}", "\"pong\""] {
        assert!(rest.iter().any(|text| text.contains(kind)), "{kind} in {rest:?}");
    }
}

/// What is published in a room arrives from `room:joined` to `room:left`, and names the room.
pub async fn a_room_is_heard_from_join_to_leave<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut client = Client::connect(&hub, "u").await;
    publish(&hub, news(&room("r"), 1)).await;
    client.join("r").await;
    publish(&hub, news(&room("r"), 2)).await;
    let heard = client.next("news").await;
    assert_eq!((&heard["payload"], &heard["room"]), (&2.into(), &"r".into()));
    client.leave("r").await;
    publish(&hub, news(&room("r"), 3)).await;
    publish(&hub, news(&user("u"), 4)).await;
    client.hears(4).await;
}

/// A publication passes over the client or the user that it excludes, on whatever node that is.
pub async fn an_exclusion_survives_the_bus<F: BusFixture>() {
    let fixture = F::start().await;
    let hubs = [hub(&fixture.bus()).await, hub(&fixture.bus()).await];
    let mut here = Client::connect(&hubs[0], "a").await;
    let mut there = Client::connect(&hubs[1], "a").await;
    let mut other = Client::connect(&hubs[1], "b").await;
    for client in [&mut here, &mut there, &mut other] {
        client.join("r").await;
    }
    publish(&hubs[0], news(&room("r"), 1).except(Except::Client(there.id))).await;
    let a = UserId::new("a").expect("it is a name");
    publish(&hubs[0], news(&room("r"), 2).except(Except::User(a))).await;
    publish(&hubs[0], news(&room("r"), 3)).await;
    for (client, heard) in [(&mut here, &[1, 3][..]), (&mut there, &[3]), (&mut other, &[1, 2, 3])]
    {
        for n in heard {
            client.hears(*n).await;
        }
    }
}

/// A handler that panics ends the connection whose message it was, with 1011, and no other.
pub async fn a_panic_in_a_handler_ends_one_connection<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut victim = Client::connect(&hub, "u").await;
    let mut other = Client::connect(&hub, "u").await;
    victim.say("{\"type\":\"panic\",\"id\":1}").await;
    assert_eq!(victim.ended().await, Some(1011));
    other.say("{\"type\":\"echo\",\"payload\":[1.50],\"id\":2}").await;
    assert_eq!(other.next("echo").await["id"], 2);
    publish(&hub, news(&user("u"), 1)).await;
    other.hears(1).await;
}

/// A client that stops reading makes nobody wait, costs its outbox and no more, and is disconnected.
pub async fn a_client_that_stops_reading_is_bounded_and_harms_nobody<F: BusFixture>() {
    let (outbox, chunk) = (64 * 1024, "x".repeat(1024));
    let change = |limits: &mut Limits| {
        limits.outbox_bytes = outbox;
        limits.write_deadline = Duration::from_secs(60);
    };
    let fixture = F::start().await;
    let hub = hub_with(&fixture.bus(), change).await;
    let mut quick = Client::connect(&hub, "quick").await;
    let mut slow = Client::connect(&hub, "slow").await;
    quick.join("r").await;
    slow.join("r").await;
    let message = Message::of("bulk", &chunk).expect("a text is JSON");
    for _ in 0..200 {
        publish(&hub, Publication::new(room("r"), message.clone())).await;
        quick.next("bulk").await;
        let queued = hub.stats().queued_bytes;
        assert!(queued <= outbox + 8 * chunk.len(), "{queued} bytes wait");
    }
    until(|| async { hub.users().await.len() == 1 }).await;
    assert_eq!(hub.stats().queued_bytes, 0);
    publish(&hub, news(&room("r"), 1)).await;
    quick.hears(1).await;
    let whole = async { while slow.pipe.next().await.is_some() {} };
    in_time(whole).await;
}

/// Clients on two nodes hear what two nodes publish in turn in that order.
pub async fn order_is_kept_over_two_hubs<F: BusFixture>() {
    let fixture = F::start().await;
    let hubs = [hub(&fixture.bus()).await, hub(&fixture.bus()).await];
    let (r, u) =
        (beside_everyone(&fixture.bus(), "r", room), beside_everyone(&fixture.bus(), "u", user));
    let mut clients = Vec::new();
    for hub in [&hubs[0], &hubs[0], &hubs[1], &hubs[1]] {
        let mut client = Client::connect(hub, &u).await;
        client.join(&r).await;
        clients.push(client);
    }
    for n in 0..200 {
        let topic = if n % 3 == 0 { user(&u) } else { room(&r) };
        publish(&hubs[n as usize % 2], news(&topic, n)).await;
    }
    for client in &mut clients {
        for n in 0..200 {
            client.hears(n).await;
        }
    }
}

/// A user has at most `connections_per_user` connections; one that ends makes room.
pub async fn a_user_has_so_many_connections_and_no_more<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub_with(&fixture.bus(), |limits| limits.connections_per_user = 2).await;
    let _first = Client::connect(&hub, "u").await;
    let second = Client::connect(&hub, "u").await;
    assert!(matches!(attach(&hub, "u").await, Err(AttachError::TooMany)));
    let _other = Client::connect(&hub, "v").await;
    drop(second);
    until(|| async { attach(&hub, "u").await.is_ok() }).await;
}

/// A connection that is dropped, also before it is served, is in no room and counts for nobody.
pub async fn a_dropped_connection_leaves_nothing<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    let (rooms, users) = (hub.rooms().await, hub.users().await);
    assert_eq!((rooms[0].room.as_str(), rooms[0].connections, rooms[0].users), ("r", 1, 1));
    assert_eq!((users[0].user.as_str(), users[0].connections, users[0].rooms), ("u", 1, 1));
    drop(client);
    until(|| async { hub.rooms().await.is_empty() && hub.users().await.is_empty() }).await;
    assert_eq!(hub.stats().connections.values().sum::<usize>(), 0);
    drop(attach(&hub, "never served").await);
    until(|| async { hub.users().await.is_empty() }).await;
}

/// Where nothing is kept, a lost link is told as a `gap` of the user and of each room, and then all goes on.
pub async fn a_cut_bus_that_keeps_nothing_is_told_as_a_gap_and_goes_on<F: BusFixture>() {
    let fixture = F::start().await;
    let (hub, far) = (forgetful(&fixture.bus()).await, forgetful(&fixture.bus()).await);
    let bus = fixture.bus();
    let (r, u) = (beside_everyone(&bus, "r", room), beside_everyone(&bus, "u", user));
    let mut client = Client::connect(&hub, &u).await;
    client.join(&r).await;
    fixture.break_links().await;
    let mut gaps = Vec::new();
    for _ in 0..2 {
        let gap = client.next("gap").await;
        assert_eq!(gap["payload"]["reason"], "outage");
        gaps.push(gap["payload"]["roomId"].as_str().map(str::to_owned));
    }
    gaps.sort();
    assert_eq!(gaps, [None, Some(r.clone())]);
    publish(&far, news(&room(&r), 1)).await;
    publish(&far, news(&user(&u), 2)).await;
    client.hears(1).await;
    client.hears(2).await;
}

/// While the bus is away the node says so: it is not ready, joins, connections and publications are refused, clients stay.
/// When it is back, all goes on.
pub async fn an_absent_bus_takes_no_joins_and_no_connections<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut client = Client::connect(&hub, "u").await;
    fixture.set_available(false).await;
    until(|| async { !hub.is_bus_up() }).await;
    assert!(!hub.is_ready());
    client.say("{\"type\":\"join:room\",\"payload\":{\"roomId\":\"r\"},\"id\":1}").await;
    let error = client.next("error").await;
    assert_eq!((&error["id"], &error["payload"]["code"]), (&1.into(), &"unavailable".into()));
    assert!(matches!(attach(&hub, "v").await, Err(AttachError::BusAway)));
    assert!(hub.publish(news(&user("u"), 1)).await.is_err());
    fixture.set_available(true).await;
    // It is ready once a part of the bus is back; here all of it is waited for.
    until(|| async { hub.is_ready() && hub.partitions_away().is_empty() }).await;
    client.join("r").await;
    publish(&hub, news(&room("r"), 2)).await;
    client.hears(2).await;
    until(|| async { hub.users().await.len() == 1 }).await;
}

/// A node that keeps nothing, whatever its bus can.
async fn forgetful(bus: &Arc<dyn Bus>) -> Hub {
    let nothing = TopicOptions { retention: None, ..TopicOptions::default() };
    let builder = Hub::builder(Arc::clone(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.topics(TopicRules::all(nothing)).shards(2);
    builder.start().await.expect("the bus is there")
}
