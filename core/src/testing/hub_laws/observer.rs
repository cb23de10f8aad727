//! What an observer is told, and that one with a bug harms nobody.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::scene::{in_time, until};
use crate::testing::bus_laws::BusFixture;
use crate::testing::script::in_background;
use crate::testing::{MemoryPipe, PipeClient};
use crate::{
    AllowAll, AuthError, Authenticator, Bus, CloseReason, ConnectOptions, ConnectRequest, Context,
    Event, Handler, HandlerError, Hub, Identity, Limits, Message, Observer, Publication, Reply,
    SlowPolicy, TenantId, Topic, TopicOptions, TopicRules, UserId,
};

/// Keeps a line of each event.
#[derive(Debug, Default)]
struct Diary(Mutex<Vec<String>>);

impl Observer for Diary {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Opened { transport } => format!("opened {transport}"),
            Event::Closed { transport, reason, by_client, .. } => {
                let by = if *by_client { "client" } else { "server" };
                format!("closed {transport} {:?} by {by}", reason.map(|reason| reason.code))
            }
            Event::Published { outcome, .. } => format!("published {}", outcome.is_ok()),
            Event::Written { .. } => "written".to_owned(),
            other => format!("{other:?}"),
        };
        self.0.lock().expect("no panic").push(line);
    }
}

impl Diary {
    fn count(&self, line: &str) -> usize {
        self.0.lock().expect("no panic").iter().filter(|l| l.starts_with(line)).count()
    }

    /// Waits until a line has been written so often.
    async fn has(&self, line: &str, times: usize) {
        until(async || self.count(line) >= times).await;
        assert_eq!(self.count(line), times, "{line}: {:?}", self.0.lock().expect("no panic"));
    }
}

/// An observer with a bug.
#[derive(Debug)]
struct Broken;

impl Observer for Broken {
    fn on_event(&self, event: &Event<'_>) {
        panic!("an observer with a bug, at {event:?}")
    }
}

/// Knows whoever has a token.
#[derive(Debug)]
struct ByToken;

#[async_trait]
impl Authenticator for ByToken {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.token.as_ref().ok_or(AuthError::Missing)?;
        let user = UserId::new(token.expose()).map_err(|e| AuthError::Refused(e.to_string()))?;
        Ok(Identity::user(user))
    }
}

/// Panics whenever it is asked, and when a client leaves.
#[derive(Debug)]
struct Panics;

#[async_trait]
impl Handler for Panics {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }

    async fn on_message(&self, _: &Context, _: &Message) -> Result<Reply, HandlerError> {
        panic!("the test asked for it")
    }

    async fn on_disconnect(&self, _: &Context) {
        panic!("the test asked for it")
    }
}

/// A hub that keeps nothing, so that a cut link means a gap.
async fn hub(bus: &Arc<dyn Bus>, observer: Arc<dyn Observer>, limits: Limits) -> Hub {
    let builder = Hub::builder(Arc::clone(bus), Arc::new(ByToken), Arc::new(AllowAll));
    let nothing = TopicOptions { retention: None, ..TopicOptions::default() };
    let builder = builder.observer(observer).handler(Arc::new(Panics)).limits(limits);
    let builder = builder.topics(TopicRules::all(nothing));
    builder.shards(2).start().await.expect("the bus is there")
}

async fn connect(hub: &Hub, user: &str) -> PipeClient {
    let identity = hub.authenticate(&ConnectRequest::default().with_token(user)).await;
    let options = ConnectOptions::default();
    let attached = hub.attach(identity.expect("a user"), options, MemoryPipe::info()).await;
    let (server, mut client) = MemoryPipe::new(4096);
    in_background(attached.expect("it is taken in").serve(server));
    hears(&mut client, "connected").await;
    client
}

async fn hears(client: &mut PipeClient, kind: &str) {
    let message = in_time(client.next()).await.expect("a message");
    assert!(message.starts_with(&format!("{{\"type\":\"{kind}\"")), "{message}");
}

fn to_all(kind: &str) -> Publication {
    Publication::new(Topic::everyone(TenantId::default()), Message::empty(kind).expect("a type"))
}

/// Everything that happens to a connection is told, each once.
pub async fn a_connection_is_told_from_its_first_to_its_last_event<F: BusFixture>() {
    let (fixture, diary) = (F::start().await, Arc::new(Diary::default()));
    let hub = hub(&fixture.bus(), diary.clone(), Limits::default()).await;
    diary.has("LinkUp { partition: 0 }", 1).await;
    assert!(hub.authenticate(&ConnectRequest::default()).await.is_err());
    diary.has("Authenticated { outcome: Err(Missing) }", 1).await;

    let (mut ada, mut bob) = (connect(&hub, "ada").await, connect(&hub, "bob").await);
    diary.has("Authenticated { outcome: Ok(()) }", 2).await;
    diary.has("opened memory", 2).await;
    hub.publish(to_all("news")).await.expect("the bus is there");
    hears(&mut ada, "news").await;
    hears(&mut bob, "news").await;
    diary.has("published true", 1).await;
    until(async || receivers(&diary) >= 2).await;
    assert_eq!(receivers(&diary), 2);
    assert!(diary.count("Subscribed { topics:") > 0);
    assert!(hub.publish(to_all("connected")).await.is_err());
    diary.has("published false", 1).await;

    let panics = "{\"type\":\"panic\"}";
    assert!(ada.send(panics).await);
    diary.has(&format!("Received {{ bytes: {} }}", panics.len()), 1).await;
    assert_eq!(in_time(ada.next()).await, None);
    diary.has("closed memory Some(1011) by server", 1).await;
    // One that says that it goes, and one that is lost.
    let mut carol = connect(&hub, "carol").await;
    carol.finish();
    diary.has("closed memory Some(1000) by client", 1).await;
    assert_eq!(in_time(carol.next()).await, None);
    assert_eq!(carol.closed().map(|reason| reason.code), Some(1000));
    drop(bob);
    diary.has("closed memory None by server", 1).await;
    // One in `on_message`, and one in each `on_disconnect`.
    diary.has("Panicked", 4).await;
    until(async || diary.count("written") > 0).await;
}

/// The receivers of all passes.
fn receivers(diary: &Diary) -> usize {
    let lines = diary.0.lock().expect("no panic");
    let counts = lines.iter().filter_map(|line| line.strip_prefix("Delivered { messages: 1, "));
    let counts = counts.filter_map(|c| Some(c.strip_prefix("receivers: ")?.split_once(',')?.0));
    counts.map(|count| count.parse::<usize>().expect("a number")).sum()
}

/// A lost link, its return and the gaps it caused are told.
pub async fn a_lost_link_and_its_gaps_are_told<F: BusFixture>() {
    let (fixture, diary) = (F::start().await, Arc::new(Diary::default()));
    let hub = hub(&fixture.bus(), diary.clone(), Limits::default()).await;
    let mut ada = connect(&hub, "ada").await;
    fixture.break_links().await;
    hears(&mut ada, "gap").await;
    diary.has("LinkLost { partition: 0 }", 1).await;
    diary.has("LinkUp { partition: 0 }", 2).await;
    diary.has("Gap { reason: Outage, connections: 1 }", 1).await;
    assert!(diary.count("Subscribed { topics:") >= 2);
}

/// Refusals, rate limits and slow clients are told.
pub async fn who_is_refused_or_too_slow_or_too_fast_is_told<F: BusFixture>() {
    let (fixture, diary) = (F::start().await, Arc::new(Diary::default()));
    let mut limits = Limits { connections_per_user: 1, ..Limits::default() };
    (limits.message_rate, limits.message_burst) = (1, 1);
    (limits.outbox_bytes, limits.write_deadline) = (4096, Duration::from_secs(600));
    let hub = hub(&fixture.bus(), diary.clone(), limits).await;
    let mut fast = connect(&hub, "fast").await;
    let second = Identity::user(UserId::new("fast").expect("a name"));
    assert!(hub.attach(second, ConnectOptions::default(), MemoryPipe::info()).await.is_err());
    diary.has("Refused { error: TooMany }", 1).await;
    for _ in 0..32 {
        assert!(fast.send("{\"type\":\"ping\"}").await);
    }
    in_time(async { while fast.next().await.is_some() {} }).await;
    diary.has("RateLimited", 4).await;
    diary.has("closed memory Some(4029)", 1).await;

    let mut slow = connect(&hub, "slow").await;
    let bulk = Message::of("bulk", &"x".repeat(1024)).expect("JSON");
    for _ in 0..64 {
        let publication = Publication::new(Topic::everyone(TenantId::default()), bulk.clone());
        hub.publish(publication).await.expect("the bus is there");
    }
    diary.has("TooSlow { bound: Bytes }", 1).await;
    in_time(async { while slow.next().await.is_some() {} }).await;
    diary.has("closed memory Some(4008)", 1).await;
}

/// What is dropped of a slow client is told as often as the client hears of it, at least.
pub async fn what_is_dropped_of_a_slow_client_is_told_as_a_gap<F: BusFixture>() {
    let (fixture, diary) = (F::start().await, Arc::new(Diary::default()));
    let mut limits = Limits::default();
    (limits.outbox_bytes, limits.write_deadline) = (8192, Duration::from_secs(600));
    let oldest = TopicOptions { slow: SlowPolicy::DropOldest, ..TopicOptions::default() };
    let builder = Hub::builder(fixture.bus(), Arc::new(ByToken), Arc::new(AllowAll));
    let builder = builder.observer(diary.clone()).limits(limits).topics(TopicRules::all(oldest));
    let hub = builder.shards(1).start().await.expect("the bus is there");
    let mut slow = connect(&hub, "slow").await;
    let bulk = Message::of("bulk", &"x".repeat(1024)).expect("JSON");
    let everyone = Topic::everyone(TenantId::default());
    for _ in 0..64 {
        hub.publish(Publication::new(everyone.clone(), bulk.clone()))
            .await
            .expect("the bus is there");
    }
    hub.users().await;
    let count = || diary.count("Gap { reason: Slow, connections: 1 }");
    until(async || count() > 0).await;
    let told = count();
    hub.publish(to_all("last")).await.expect("the bus is there");
    let mut heard = 0;
    loop {
        let message = in_time(slow.next()).await.expect("it goes on");
        heard += usize::from(message.contains("\"reason\":\"slow\""));
        if message.contains("\"last\"") {
            break;
        }
    }
    assert!(heard > 0 && heard <= count() && told <= count(), "{heard} of {}", count());
}

/// A write beyond its deadline is told.
pub async fn a_write_that_takes_too_long_is_told<F: BusFixture>() {
    let (fixture, diary) = (F::start().await, Arc::new(Diary::default()));
    let write_deadline = Duration::from_millis(10);
    let limits = Limits { write_deadline, ..Limits::default() };
    let hub = hub(&fixture.bus(), diary.clone(), limits).await;
    let _slow = connect(&hub, "slow").await;
    let bulk = Message::of("bulk", &"x".repeat(8192)).expect("JSON");
    let publication = Publication::new(Topic::everyone(TenantId::default()), bulk);
    hub.publish(publication).await.expect("the bus is there");
    diary.has("TooSlow { bound: Time }", 1).await;
    diary.has("closed memory Some(4008)", 1).await;
}

/// An observer that panics at every event harms nobody.
pub async fn an_observer_with_a_bug_harms_nobody<F: BusFixture>() {
    let fixture = F::start().await;
    let hub = hub(&fixture.bus(), Arc::new(Broken), Limits::default()).await;
    let (mut ada, mut bob) = (connect(&hub, "ada").await, connect(&hub, "bob").await);
    assert!(ada.send("{\"type\":\"ping\"}").await);
    hears(&mut ada, "pong").await;
    fixture.break_links().await;
    hears(&mut ada, "gap").await;
    hears(&mut bob, "gap").await;
    // A gap of theirs says that what goes to them arrives again.
    for name in ["ada", "bob"] {
        let topic = Topic::user(TenantId::default(), UserId::new(name).expect("a name"));
        let news = Message::empty("news").expect("a type");
        hub.publish(Publication::new(topic, news)).await.expect("the bus is there");
    }
    hears(&mut ada, "news").await;
    hears(&mut bob, "news").await;
    assert!(ada.send("{\"type\":\"panic\"}").await);
    assert_eq!(in_time(ada.next()).await, None);
    assert_eq!(ada.closed().map(|reason| reason.code), Some(1011));
    assert!(bob.send("{\"type\":\"ping\"}").await);
    hears(&mut bob, "pong").await;
    until(async || hub.is_ready()).await;
}
