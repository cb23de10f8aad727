//! Who publishes and who listens in a run of faults.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidings_examples::check::{
    Address, Client, Cuts, Failure, Leaves, Outbound, Progress, Published, Publisher, Random,
    TopicId, Topics, Transport, token,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::faults::Args;
use crate::world::World;

/// Rooms, a topic of its own for each user, and everyone.
pub(crate) fn topics(args: &Args) -> Arc<Topics> {
    let rooms = (0..args.rooms).map(|room| Address::Room(format!("r{room}")));
    let users = (0..args.clients.div_ceil(2)).map(|user| Address::User(format!("u{user}")));
    Topics::new(rooms.chain(users).chain([Address::Everyone]))
}

/// The clients of a run that is stormy for so long.
pub(crate) fn clients(
    args: &Args,
    topics: &Arc<Topics>,
    world: &World,
    start: Instant,
) -> Vec<Client> {
    let cuts = Cuts {
        every: Duration::from_millis(200)..Duration::from_secs(25),
        away: Duration::ZERO..Duration::from_secs(20),
        in_welcome: 3,
        after_gap: 4,
    };
    let client = |number: usize| {
        let user = format!("u{}", number / 2);
        let transport = [Transport::WebSocket, Transport::EventSource][number % 2];
        let mut random = Random::of(args.seed, number as u64 + 1);
        let first = random.below(args.rooms);
        // Some of either kind are everywhere.
        let count = if number % 20 < 2 { args.rooms } else { ROOMS_OF_A_CLIENT.min(args.rooms) };
        let mut rooms: Vec<_> =
            (0..count).map(|n| format!("r{}", (first + n * 7) % args.rooms)).collect();
        rooms.sort();
        rooms.dedup();
        let joins_late = transport == Transport::WebSocket && random.once_in(2);
        let late_room = rooms.pop_if(|_| joins_late);
        Client {
            name: format!("client {number} ({transport:?})"),
            token: token(&user, &json!({})),
            user,
            transport,
            rooms,
            late_room,
            topics: topics.clone(),
            addresses: world.addresses.clone(),
            cuts: (!args.no_cuts && cuts_itself(number / 2)).then(|| cuts.clone()),
            leaves: if args.no_presence {
                None
            } else {
                leaves(number / 2, args.seconds, &mut random)
            },
            cursor_ahead: args.cursor_ahead,
            start,
            random,
            progress: Progress::default(),
        }
    };
    (0..args.clients).map(client).collect()
}

/// Some stay connected for as long as they can, among them those that leave with their server.
fn cuts_itself(user: usize) -> bool {
    !user.is_multiple_of(10) && user % 8 != 5
}

/// A quarter of the users leaves, half of these with their server.
fn leaves(user: usize, seconds: u64, random: &mut Random) -> Option<Leaves> {
    let storm = Duration::from_secs(seconds);
    match user % 8 {
        3 => Some(Leaves::At(random.between(&(storm / 10..storm * 9 / 10)))),
        // Early, so that what a dead server claimed of them can be over soon after the run.
        5 => Some(Leaves::WithServer(storm / 3)),
        _ => None,
    }
}

/// Publishes at its part of the rate until it is stopped. Each batch goes to four rooms and a user, or now and then to
/// everyone; some of it is not for the user it is about. The last [`ONCE`] publishers try each batch once.
pub(crate) fn publish(
    number: u16,
    args: &Args,
    topics: &Arc<Topics>,
    world: &World,
    start: Instant,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<Result<Vec<Published>, Failure>> {
    let mut publisher =
        Publisher::new(number, topics.clone(), world.addresses.clone(), start, args.seed);
    let mut random = Random::of(args.seed, u64::from(number) + 10_000);
    let every = Duration::from_micros(1_000_000 * BATCH * u64::from(PUBLISHERS) / args.rate.max(1));
    // They ask once and under no key, and believe what they are told.
    let once = number >= PUBLISHERS;
    let (rooms, users) = (args.rooms, args.clients.div_ceil(2));
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut published = Vec::new();
        while !*stopped.borrow() {
            ticks.tick().await;
            let user = random.below(users);
            let to_everyone = random.once_in(50);
            let own = TopicId((rooms + if to_everyone { users } else { user }) as u32);
            let mut batch = vec![Outbound { topic: own, except: None }];
            let (first, step) = (random.below(rooms), 1 + random.below(3));
            for n in 0..(BATCH as usize - 1).min(rooms / 3) {
                let topic = TopicId(((first + n * step) % rooms) as u32);
                let except = random.once_in(10).then(|| format!("u{user}").into());
                batch.push(Outbound { topic, except });
            }
            published.extend(if once {
                publisher.publish_once(&batch).await
            } else {
                publisher.publish(&batch, PUBLISH_PATIENCE).await?
            });
        }
        Ok(published)
    })
}

/// Publishers that repeat until they are told that it is done.
const PUBLISHERS: u16 = 10;
/// Publishers beside them that ask once.
const ONCE: u16 = 3;
/// All of them.
pub(crate) const ALL: u16 = PUBLISHERS + ONCE;
/// Publications of one request.
const BATCH: u64 = 5;
const ROOMS_OF_A_CLIENT: usize = 3;
const PUBLISH_PATIENCE: Duration = Duration::from_secs(120);
