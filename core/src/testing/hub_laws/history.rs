//! Nothing is lost in silence: what a client that was away gets, and how a node mends what its bus lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::lossy::Lossy;
use super::scene::*;
use crate::testing::MemoryPipe;
use crate::testing::bus_laws::BusFixture;
use crate::testing::script::in_background;
use crate::{
    Action, AllowAll, Anonymous, Authorizer, Bus, ConnectOptions, Denied, Except, Hub, Identity,
    Limits, Retention, TopicOptions, TopicRules, UserId,
};

/// A hub that keeps so many messages per topic.
pub(super) async fn keeping(
    bus: &Arc<dyn Bus>,
    count: u32,
    change: impl FnOnce(&mut Limits),
) -> Hub {
    let mut limits = Limits::default();
    change(&mut limits);
    let retention = Some(Retention { count, age: Duration::from_secs(600) });
    let options = TopicOptions { retention, ..TopicOptions::default() };
    let builder = Hub::builder(Arc::clone(bus), Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.topics(TopicRules::all(options)).limits(limits).shards(2);
    builder.start().await.expect("the bus is there")
}

/// Who comes back, also to another node, gets what it missed in order and then what is live.
pub async fn who_comes_back_gets_what_it_missed_in_order_and_then_what_is_live<F: BusFixture>() {
    let fixture = F::start().await;
    let hubs = [hub(&fixture.bus()).await, hub(&fixture.bus()).await];
    let bus = fixture.bus();
    let [a, b, other] = ["a", "b", "other"].map(|name| beside_everyone(&bus, name, room));
    let u = beside_everyone(&bus, "u", user);
    let mut client = Client::connect(&hubs[0], &u).await;
    client.join(&a).await;
    client.join(&b).await;
    publish(&hubs[0], news(&room(&a), 0)).await;
    client.hears(0).await;
    client.pipe.finish();
    for n in 1..100 {
        let topics = [room(&a), room(&b), user(&u), everyone(), room(&other)];
        publish(&hubs[n as usize % 2], news(&topics[n as usize % 5], n)).await;
    }
    let (mut client, connected) = Client::connect_with(&hubs[1], &u, client.back(&[&a, &b])).await;
    assert_eq!(connected["payload"]["recovered"], true);
    for room in [a.as_str(), &b] {
        let joined = client.next("room:joined").await;
        assert_eq!(
            (&joined["payload"]["roomId"], &joined["payload"]["recovered"]),
            (&room.into(), &true.into())
        );
    }
    for n in (1..100).filter(|n| n % 5 != 4) {
        client.hears(n).await;
    }
    publish(&hubs[0], news(&room(&b), 100)).await;
    client.hears(100).await;
}

/// A client that is cut after any message goes on with the next one.
pub async fn each_cursor_on_the_way_is_good_to_go_on_from<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let bus = fixture.bus();
    let (a, u) = (beside_everyone(&bus, "a", room), beside_everyone(&bus, "u", user));
    let mut client = Client::connect(&hub, &u).await;
    client.join(&a).await;
    for n in 0..20 {
        publish(&hub, news(&if n % 2 == 0 { room(&a) } else { user(&u) }, n)).await;
    }
    // It is cut after each message and gets the next one of a topic each time. What it has had may come again around a
    // reconnect, and topics have no order between them: a look at the store may have found a message before its link.
    let mut next = [0, 1];
    for _ in 0..20 {
        hears_on(&mut client, &mut next).await;
        let (mut again, _) = Client::connect_with(&hub, &u, client.back(&[&a])).await;
        again.next("room:joined").await;
        client = again;
    }
    publish(&hub, news(&room(&a), 20)).await;
    hears_on(&mut client, &mut next).await;
    assert_eq!(next, [22, 21]);
}

/// Hears the next message of one of two topics, whose numbers are even and odd, after any that it has heard already.
async fn hears_on(client: &mut Client, next: &mut [u64; 2]) {
    loop {
        let n = client.next("news").await["payload"].as_u64().expect("it is a number");
        let next = &mut next[n as usize % 2];
        if n >= *next {
            assert_eq!(n, *next, "nothing of a topic is passed over");
            *next += 2;
            return;
        }
    }
}

/// A join with a cursor replays the room from there, before anything live and nothing twice.
pub async fn a_join_with_a_cursor_replays_the_room_and_nothing_twice<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut client = Client::connect(&hub, "u").await;
    let cursor = client.cursor.clone().expect("`connected` has a cursor");
    for n in 0..10 {
        publish(&hub, news(&room("a"), n)).await;
    }
    publish(&hub, news(&user("u"), 10)).await;
    client.hears(10).await;
    client
        .say(&format!(
            "{{\"type\":\"join:room\",\"id\":7,\"payload\":{{\"roomId\":\"a\",\"cursor\":\"{cursor}\"}}}}"
        ))
        .await;
    let joined = client.next("room:joined").await;
    assert_eq!((&joined["id"], &joined["payload"]["recovered"]), (&7.into(), &true.into()));
    for n in 0..10 {
        client.hears(n).await;
    }
    // Topics are ordered each for itself.
    publish(&hub, news(&user("u"), 11)).await;
    publish(&hub, news(&room("a"), 12)).await;
    let mut live =
        [client.next("news").await, client.next("news").await].map(|m| m["payload"].as_u64());
    live.sort();
    assert_eq!(live, [Some(11), Some(12)]);
}

/// Messages that the link lost are read and come before the next one of their topic.
pub async fn a_message_that_the_link_lost_comes_before_the_next_of_its_topic<F: BusFixture>() {
    let fixture = F::start().await;
    let bus = Arc::new(Lossy::over(fixture.bus()));
    let hub = hub(&(bus.clone() as Arc<dyn Bus>)).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    publish(&hub, news(&room("a"), 0)).await;
    client.hears(0).await;
    bus.lose(3);
    for n in 1..5 {
        publish(&hub, news(&room("a"), n)).await;
    }
    for n in 1..5 {
        client.hears(n).await;
    }
}

/// The first messages of a room that the link lost come before the next one too, though nothing is known of its offsets.
pub async fn the_first_messages_of_a_room_are_read_when_the_link_lost_them<F: BusFixture>() {
    let fixture = F::start().await;
    let bus = Arc::new(Lossy::over(fixture.bus()));
    let hub = hub(&(bus.clone() as Arc<dyn Bus>)).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    publish(&hub, news(&user("u"), 0)).await;
    client.hears(0).await;
    bus.lose(2);
    for n in 1..5 {
        publish(&hub, news(&room("a"), n)).await;
    }
    for n in 1..5 {
        client.hears(n).await;
    }
}

/// A message that a link lost, although it went on, is read when the link has died, and no gap is told of it.
pub async fn what_a_link_lost_before_it_died_is_read_and_no_gap_is_told<F: BusFixture>() {
    let fixture = F::start().await;
    let bus = Arc::new(Lossy::over(fixture.bus()));
    let hub = hub(&(bus.clone() as Arc<dyn Bus>)).await;
    let a = beside_everyone(&fixture.bus(), "a", room);
    let mut client = Client::connect(&hub, "u").await;
    client.join(&a).await;
    bus.lose(1);
    publish(&hub, news(&room(&a), 1)).await;
    publish(&hub, news(&everyone(), 2)).await;
    client.hears(2).await;
    fixture.break_links().await;
    client.hears(1).await;
    publish(&hub, news(&room(&a), 3)).await;
    client.hears(3).await;
}

/// A connection that hears nothing is sent newer cursors, with which it comes back to all that it missed.
pub async fn a_connection_that_hears_nothing_is_sent_a_newer_cursor<F: BusFixture>() {
    let fixture = F::start().await;
    let often = |limits: &mut Limits| {
        let short = Duration::from_millis(50);
        (limits.history_check, limits.cursor_age, limits.heartbeat) = (short, short, short);
    };
    let (hub, other) = (hub_with(&fixture.bus(), often).await, hub(&fixture.bus()).await);
    let elsewhere = room(&beside_everyone(&fixture.bus(), "elsewhere", room));
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    let joined = client.cursor.clone();
    publish(&other, news(&elsewhere, 0)).await;
    // The first ones may be older than what was published elsewhere.
    while client.cursor == joined {
        let message = client.next("cursor").await;
        assert_eq!(message.as_object().map(serde_json::Map::len), Some(2), "{message}");
    }
    client.pipe.finish();
    publish(&other, news(&room("a"), 1)).await;
    let (mut client, connected) = Client::connect_with(&other, "u", client.back(&["a"])).await;
    assert_eq!(connected["payload"]["recovered"], true);
    client.next("room:joined").await;
    client.hears(1).await;
}

/// A lost message that no other follows is found within `history_check`.
pub async fn a_lost_last_message_is_found_by_the_look_at_the_tops<F: BusFixture>() {
    let fixture = F::start().await;
    let bus = Arc::new(Lossy::over(fixture.bus()));
    let look_often = |limits: &mut Limits| limits.history_check = Duration::from_millis(50);
    let hub = hub_with(&(bus.clone() as Arc<dyn Bus>), look_often).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    publish(&hub, news(&room("a"), 0)).await;
    client.hears(0).await;
    bus.lose(2);
    publish(&hub, news(&room("a"), 1)).await;
    publish(&hub, news(&user("u"), 2)).await;
    let mut heard =
        [client.next("news").await, client.next("news").await].map(|m| m["payload"].as_u64());
    heard.sort();
    assert_eq!(heard, [Some(1), Some(2)]);
}

/// What is kept arrives in order and without a `gap`, however often links break.
pub async fn a_cut_link_is_mended_and_clients_notice_nothing<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    for n in 0..50 {
        if n % 10 == 5 {
            fixture.break_links().await;
        }
        publish(&hub, news(&room("a"), n)).await;
    }
    for n in 0..50 {
        client.hears(n).await;
    }
}

/// Who missed more than is kept hears a `gap` of the reason `trimmed`, and then what is kept.
pub async fn what_is_no_longer_kept_is_told_and_the_rest_follows<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = keeping(&fixture.bus(), 5, |_| {}).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    client.pipe.finish();
    for n in 0..8 {
        publish(&hub, news(&room("a"), n)).await;
    }
    let (mut client, connected) = Client::connect_with(&hub, "u", client.back(&["a"])).await;
    assert_eq!(connected["payload"]["recovered"], false);
    assert_eq!(client.next("room:joined").await["payload"]["recovered"], false);
    let gap = client.next("gap").await;
    assert_eq!(
        (&gap["payload"]["roomId"], &gap["payload"]["reason"]),
        (&"a".into(), &"trimmed".into())
    );
    for n in 3..8 {
        client.hears(n).await;
    }
}

/// A store that lost everything is told as `gap`s of the reason `epoch`, at once and to who comes back.
pub async fn a_flushed_store_is_told_as_a_gap<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let bus = fixture.bus();
    let (a, u) = (beside_everyone(&bus, "a", room), beside_everyone(&bus, "u", user));
    let mut client = Client::connect(&hub, &u).await;
    client.join(&a).await;
    publish(&hub, news(&room(&a), 0)).await;
    client.hears(0).await;
    let before = client.back(&[&a]);
    fixture.lose_store().await;
    publish(&hub, news(&room(&a), 1)).await;
    // The user's stream and that of everyone have one gap, and the room.
    for _ in 0..2 {
        assert_eq!(client.next("gap").await["payload"]["reason"], "epoch");
    }
    // The gap stands for what was there when the loss was found, unless the link had brought it by then.
    publish(&hub, news(&room(&a), 2)).await;
    let first = client.next("news").await["payload"].clone();
    if first == 1 {
        client.hears(2).await;
    } else {
        assert_eq!(first, 2);
    }
    let (mut client, connected) = Client::connect_with(&hub, &u, before).await;
    assert_eq!(connected["payload"]["recovered"], false);
    client.next("room:joined").await;
    // That of the user's stream and that of everyone are one, which names no room.
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let gap = client.next("gap").await;
        assert_eq!(gap["payload"]["reason"], "epoch");
        rooms.push(gap["payload"]["roomId"].as_str().map(str::to_owned));
    }
    rooms.sort();
    assert_eq!(rooms, [None, Some(a)]);
    client.hears(1).await;
    client.hears(2).await;
}

/// A cursor of a store that is gone, with the key that signed it, is told as of another epoch, and what is kept follows.
pub async fn a_cursor_of_a_store_that_was_lost_is_of_another_epoch<F: BusFixture>() {
    let (former, fixture) = (F::start().await, F::start().await);
    let mut client = Client::connect(&hub(&former.bus()).await, "u").await;
    client.join("a").await;
    let hub = hub(&fixture.bus()).await;
    publish(&hub, news(&room("a"), 1)).await;
    let (mut client, connected) = Client::connect_with(&hub, "u", client.back(&["a"])).await;
    assert_eq!(connected["payload"]["recovered"], false);
    assert_eq!(client.next("room:joined").await["payload"]["recovered"], false);
    for _ in 0..2 {
        assert_eq!(client.next("gap").await["payload"]["reason"], "epoch");
    }
    client.hears(1).await;
}

/// A cursor that nobody gave is told as a `gap`, and what is live goes on.
pub async fn a_cursor_that_is_none_is_told_and_live_goes_on<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let options = ConnectOptions {
        cursor: Some("nonsense".to_owned()),
        rooms: vec!["a".to_owned()],
        ..ConnectOptions::default()
    };
    let (mut client, connected) = Client::connect_with(&hub, "u", options).await;
    assert_eq!(connected["payload"]["recovered"], false);
    assert_eq!(client.next("gap").await["payload"]["reason"], "cursor");
    assert_eq!(client.next("room:joined").await["payload"]["recovered"], false);
    assert_eq!(client.next("gap").await["payload"]["roomId"], "a");
    publish(&hub, news(&room("a"), 1)).await;
    client.hears(1).await;
}

/// A replay leaves out what excluded the user, or the connection that the client says it was.
pub async fn exclusions_hold_on_replay<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus()).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    client.pipe.finish();
    publish(&hub, news(&room("a"), 1).except(Except::Client(client.id))).await;
    let user = UserId::new("u").expect("a name");
    publish(&hub, news(&room("a"), 2).except(Except::User(user))).await;
    publish(&hub, news(&room("a"), 3)).await;
    let (mut again, _) = Client::connect_with(&hub, "u", client.back(&["a"])).await;
    again.next("room:joined").await;
    again.hears(3).await;
    // Another connection of the user was not the one that was left out.
    let other = ConnectOptions { previous: None, ..client.back(&["a"]) };
    let (mut other, _) = Client::connect_with(&hub, "u", other).await;
    other.next("room:joined").await;
    other.hears(1).await;
    other.hears(3).await;
}

/// A replay of any length passes through a small outbox, with what is live behind it.
pub async fn a_replay_of_any_length_fits_a_small_outbox<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = keeping(&fixture.bus(), 5000, |limits| limits.outbox_bytes = 2048).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    client.pipe.finish();
    for n in 0..3000 {
        publish(&hub, news(&room("a"), n)).await;
    }
    let (mut client, _) = Client::connect_with(&hub, "u", client.back(&["a"])).await;
    client.next("room:joined").await;
    for n in 0..3000 {
        client.hears(n).await;
        if n % 10 == 0 {
            publish(&hub, news(&room("a"), 3000 + n / 10)).await;
        }
    }
    for n in 3000..3300 {
        client.hears(n).await;
    }
}

/// Decides nothing while it is switched off.
#[derive(Debug)]
struct Undecided(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Authorizer for Undecided {
    async fn authorize(&self, _: &Identity, _: Action<'_>) -> Result<(), Denied> {
        if self.0.load(Ordering::Acquire) { Err(Denied::Unavailable) } else { Ok(()) }
    }
}

/// Who comes back while a room cannot be decided is sent away, so that the cursor does not pass what it missed there.
pub async fn a_room_that_cannot_be_joined_now_does_not_let_the_cursor_pass_it<F: BusFixture>() {
    let (fixture, off) = (F::start().await, Arc::new(AtomicBool::new(false)));
    let authorizer = Arc::new(Undecided(off.clone()));
    let builder = Hub::builder(fixture.bus(), Arc::new(Anonymous), authorizer);
    let hub = builder.shards(2).start().await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    client.join("a").await;
    client.pipe.finish();
    publish(&hub, news(&room("a"), 1)).await;

    off.store(true, Ordering::Release);
    let attachment = attach_with(&hub, "u", client.back(&["a"])).await.expect("it is taken in");
    let (server, mut pipe) = MemoryPipe::new(PIPE);
    in_background(attachment.serve(server));
    // Otherwise what comes to the user moves the cursor past what was missed in the room.
    assert_eq!(in_time(pipe.next()).await, None);
    assert_eq!(pipe.closed().map(|reason| reason.code), Some(1013));

    off.store(false, Ordering::Release);
    let (mut client, connected) = Client::connect_with(&hub, "u", client.back(&["a"])).await;
    assert_eq!(connected["payload"]["recovered"], true);
    client.next("room:joined").await;
    client.hears(1).await;
}
