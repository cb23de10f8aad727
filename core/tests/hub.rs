//! What a hub promises to clients, on connections in memory and the in-process bus.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::time::Duration;

use tidings_bus_memory::MemoryBus;
use tidings_core::testing::MemoryPipe;
use tidings_core::{AttachError, Except, Limits, Message, Publication, TenantId, Topic, UserId};

use support::*;

#[tokio::test]
async fn nothing_comes_before_connected() {
    let hub = hub(&MemoryBus::default()).await;
    let attachment = attach(&hub, "u").await.expect("it is taken in");
    let (server, mut pipe) = MemoryPipe::new(PIPE);
    // It is in its topics from now on, though nobody serves it yet.
    publish(&hub, news(&user("u"), 1)).await;
    publish(&hub, news(&Topic::everyone(TenantId::default()), 2)).await;
    assert!(pipe.send("{\"type\":\"ping\"}").await);
    tokio::spawn(attachment.serve(server));
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

#[tokio::test]
async fn a_room_is_heard_from_join_to_leave() {
    let hub = hub(&MemoryBus::default()).await;
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

#[tokio::test]
async fn an_exclusion_survives_the_bus() {
    let bus = MemoryBus::default();
    let hubs = [hub(&bus).await, hub(&bus).await];
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

#[tokio::test]
async fn a_panic_in_a_handler_ends_one_connection() {
    let hub = hub(&MemoryBus::default()).await;
    let mut victim = Client::connect(&hub, "u").await;
    let mut other = Client::connect(&hub, "u").await;
    victim.say("{\"type\":\"panic\",\"id\":1}").await;
    assert_eq!(victim.ended().await, Some(1011));
    other.say("{\"type\":\"echo\",\"payload\":[1.50],\"id\":2}").await;
    assert_eq!(other.next("echo").await["id"], 2);
    publish(&hub, news(&user("u"), 1)).await;
    other.hears(1).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_bounded_and_harms_nobody() {
    let (outbox, chunk) = (64 * 1024, "x".repeat(1024));
    let change = |limits: &mut Limits| {
        limits.outbox_bytes = outbox;
        limits.write_deadline = Duration::from_millis(300);
    };
    let hub = hub_with(&MemoryBus::default(), change).await;
    let mut quick = Client::connect(&hub, "quick").await;
    let mut slow = Client::connect(&hub, "slow").await;
    quick.join("r").await;
    slow.join("r").await;
    let message = Message::of("bulk", &chunk).expect("a text is JSON");
    for _ in 0..200 {
        publish(&hub, Publication::new(room("r"), message.clone())).await;
        quick.next("bulk").await;
        let queued = hub.stats().await.queued_bytes;
        assert!(queued <= outbox + 8 * chunk.len(), "{queued} bytes wait");
    }
    until(|| async { hub.users().await.len() == 1 }).await;
    assert_eq!(hub.stats().await.queued_bytes, 0);
    publish(&hub, news(&room("r"), 1)).await;
    quick.hears(1).await;
    let whole = async { while slow.pipe.next().await.is_some() {} };
    in_time(whole).await;
}

#[tokio::test]
async fn order_is_kept_over_two_hubs() {
    let bus = MemoryBus::default();
    let hubs = [hub(&bus).await, hub(&bus).await];
    let mut clients = Vec::new();
    for hub in [&hubs[0], &hubs[0], &hubs[1], &hubs[1]] {
        let mut client = Client::connect(hub, "u").await;
        client.join("r").await;
        clients.push(client);
    }
    for n in 0..200 {
        let topic = if n % 3 == 0 { user("u") } else { room("r") };
        publish(&hubs[n as usize % 2], news(&topic, n)).await;
    }
    for client in &mut clients {
        for n in 0..200 {
            client.hears(n).await;
        }
    }
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_no_more() {
    let hub = hub_with(&MemoryBus::default(), |limits| limits.connections_per_user = 2).await;
    let _first = Client::connect(&hub, "u").await;
    let second = Client::connect(&hub, "u").await;
    assert!(matches!(attach(&hub, "u").await, Err(AttachError::TooMany)));
    let _other = Client::connect(&hub, "v").await;
    drop(second);
    until(|| async { attach(&hub, "u").await.is_ok() }).await;
}

#[tokio::test]
async fn a_dropped_connection_leaves_nothing() {
    let hub = hub(&MemoryBus::default()).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    let (rooms, users) = (hub.rooms().await, hub.users().await);
    assert_eq!((rooms[0].room.as_str(), rooms[0].connections, rooms[0].users), ("r", 1, 1));
    assert_eq!((users[0].user.as_str(), users[0].connections, users[0].rooms), ("u", 1, 1));
    drop(client);
    until(|| async { hub.rooms().await.is_empty() && hub.users().await.is_empty() }).await;
    assert_eq!(hub.stats().await.connections.values().sum::<usize>(), 0);
    drop(attach(&hub, "never served").await);
    until(|| async { hub.users().await.is_empty() }).await;
}

#[tokio::test]
async fn a_cut_bus_that_keeps_nothing_is_told_as_a_gap_and_goes_on() {
    let bus = MemoryBus::without_history();
    let (hub, far) = (hub(&bus).await, hub(&bus).await);
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    bus.cut_links();
    let mut gaps = Vec::new();
    for _ in 0..2 {
        let gap = client.next("gap").await;
        assert_eq!(gap["payload"]["reason"], "outage");
        gaps.push(gap["payload"]["roomId"].as_str().map(str::to_owned));
    }
    gaps.sort();
    assert_eq!(gaps, [None, Some("r".to_owned())]);
    publish(&far, news(&room("r"), 1)).await;
    publish(&far, news(&user("u"), 2)).await;
    client.hears(1).await;
    client.hears(2).await;
}

#[tokio::test]
async fn an_absent_bus_takes_no_joins_and_no_connections() {
    let bus = MemoryBus::default();
    let hub = hub(&bus).await;
    let mut client = Client::connect(&hub, "u").await;
    bus.set_available(false);
    until(|| async { !hub.is_bus_up() }).await;
    assert!(!hub.is_ready());
    client.say("{\"type\":\"join:room\",\"payload\":{\"roomId\":\"r\"},\"id\":1}").await;
    let error = client.next("error").await;
    assert_eq!((&error["id"], &error["payload"]["code"]), (&1.into(), &"unavailable".into()));
    assert!(matches!(attach(&hub, "v").await, Err(AttachError::BusAway)));
    assert!(hub.publish(news(&user("u"), 1)).await.is_err());
    bus.set_available(true);
    until(|| async { hub.is_ready() }).await;
    client.join("r").await;
    publish(&hub, news(&room("r"), 2)).await;
    client.hears(2).await;
    until(|| async { hub.users().await.len() == 1 }).await;
}
