//! What a node says that it holds: numbers that are kept where they change, and lists by pages.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::sync::Arc;

use tidings_bus_memory::MemoryBus;
use tidings_core::testing::MemoryPipe;
use tidings_core::{
    AllowAll, Anonymous, AttachError, ConnectOptions, Hub, Identity, Page, RoomId, TenantId, UserId,
};

use support::*;

fn numbers(hub: &Hub) -> (usize, usize, usize) {
    let stats = hub.stats();
    (stats.connections.values().sum(), stats.users, stats.rooms)
}

/// A hub has two shards and connections take turns: of one user and one room each has a part.
#[tokio::test]
async fn a_user_and_a_room_count_once_however_many_shards_they_are_in() {
    let hub = hub(&MemoryBus::default()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(&hub, "u").await;
        client.join("r").await;
        clients.push(client);
    }
    clients[0].join("s").await;
    assert_eq!(numbers(&hub), (3, 1, 2));
    assert_eq!(hub.stats().connections["memory"], 3);
    clients[0].leave("s").await;
    until(async || numbers(&hub) == (3, 1, 1)).await;
    drop(clients.split_off(1));
    until(async || numbers(&hub) == (1, 1, 1)).await;
    drop(clients);
    until(async || numbers(&hub) == (0, 0, 0)).await;
}

#[tokio::test]
async fn who_is_not_taken_in_does_not_count() {
    let bus = MemoryBus::default();
    let hub = hub(&bus).await;
    bus.set_available(false);
    until(async || !hub.is_bus_up()).await;
    assert_eq!(attach(&hub, "u").await.err(), Some(AttachError::BusAway));
    until(async || numbers(&hub) == (0, 0, 0)).await;
}

/// Takes in a user of a tenant, who joins rooms.
async fn take_in(hub: &Hub, tenant: &str, user: &str, rooms: &[&str]) -> Client {
    let mut who = Identity::user(UserId::new(user).expect("it is a name"));
    who.tenant = tenant_of(tenant);
    let options = ConnectOptions::default();
    let attachment = hub.attach(who, options, MemoryPipe::info()).await.expect("it is taken in");
    let (server, pipe) = MemoryPipe::new(PIPE);
    let id = attachment.client_id();
    tokio::spawn(attachment.serve(server));
    let mut client = Client { pipe, id, cursor: None };
    client.next("connected").await;
    for room in rooms {
        client.join(room).await;
    }
    client
}

fn tenant_of(name: &str) -> TenantId {
    if name.is_empty() { TenantId::default() } else { TenantId::new(name).expect("it is a name") }
}

#[tokio::test]
async fn a_page_has_what_is_after_a_name_of_a_tenant_and_no_more_than_is_wanted() {
    let bus = Arc::new(MemoryBus::default());
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).shards(3);
    let hub = builder.start().await.expect("the bus is there");
    let mut clients = Vec::new();
    for (tenant, user, rooms) in [
        ("t", "b", &["3", "1"][..]),
        ("", "a", &["2"]),
        ("t", "a", &["1", "2"]),
        ("", "c", &["2", "1"]),
        ("", "a", &["1"]),
    ] {
        clients.push(take_in(&hub, tenant, user, rooms).await);
    }
    let all =
        [("", "1", 2, 2), ("", "2", 2, 2), ("t", "1", 2, 2), ("t", "2", 1, 1), ("t", "3", 1, 1)];
    let rooms = async |page: &Page<RoomId>| {
        let rooms = hub.list_rooms(page).await.into_iter();
        rooms.map(|r| (r.tenant, r.room.to_string(), r.connections, r.users)).collect::<Vec<_>>()
    };
    let expected = |from: usize, to: usize| {
        let expected = all[from..to].iter();
        expected.map(|&(t, r, c, u)| (tenant_of(t), r.to_owned(), c, u)).collect::<Vec<_>>()
    };
    let mut page = Page::default();
    assert_eq!(rooms(&page).await, expected(0, 5));
    for limit in 0..=5 {
        page.limit = Some(limit);
        assert_eq!(rooms(&page).await, expected(0, limit));
        for (after, (tenant, room, ..)) in all.into_iter().enumerate() {
            page.after = Some((tenant_of(tenant), RoomId::new(room).expect("it is a name")));
            assert_eq!(rooms(&page).await, expected(after + 1, 5.min(after + 1 + limit)));
        }
        page.after = None;
    }
    (page.limit, page.tenant) = (None, Some(tenant_of("t")));
    assert_eq!(rooms(&page).await, expected(2, 5));
    page.tenant = Some(TenantId::default());
    assert_eq!(rooms(&page).await, expected(0, 2));

    let users = hub.users().await.into_iter();
    let users: Vec<_> =
        users.map(|u| (u.tenant, u.user.to_string(), u.connections, u.rooms)).collect();
    let expected = [("", "a", 2, 2), ("", "c", 1, 2), ("t", "a", 1, 2), ("t", "b", 1, 2)];
    assert_eq!(users, expected.map(|(t, u, c, r)| (tenant_of(t), u.to_owned(), c, r)));
    let mut page = Page::default();
    (page.after, page.limit) =
        (Some((TenantId::default(), UserId::new("b").expect("a name"))), Some(1));
    let users = hub.list_users(&page).await;
    assert_eq!((users.len(), users[0].user.as_str()), (1, "c"));
}
