//! Heartbeats on a clock that the tests move: who is pinged when, and who is taken for dead.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidings_bus_memory::MemoryBus;
use tidings_core::testing::MemoryPipe;
use tidings_core::{
    AllowAll, Anonymous, CloseReason, ConnectOptions, Context, Frame, FrameReader, FrameWriter,
    Handler, HandlerError, Hub, Identity, Limits, Message, ReadError, Reply, Transport,
    TransportInfo, UserId,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Takes three heartbeats and a half for every message.
#[derive(Debug)]
struct Slow;

#[async_trait]
impl Handler for Slow {
    async fn on_connect(&self, _: &Context) -> Result<(), CloseReason> {
        Ok(())
    }

    async fn on_message(&self, _: &Context, _: &Message) -> Result<Reply, HandlerError> {
        sleep(HEARTBEAT * 7 / 2).await;
        Ok(Reply::None)
    }

    async fn on_disconnect(&self, _: &Context) {}
}

/// A socket whose peer answers pings, or does not, and which remembers when it was pinged.
#[derive(Clone)]
struct Socket {
    answers: Option<mpsc::UnboundedSender<Frame>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    pings: Vec<Instant>,
    text: Vec<u8>,
    closed: Option<CloseReason>,
}

struct Reader(mpsc::UnboundedReceiver<Frame>, #[expect(dead_code)] mpsc::UnboundedSender<Frame>);

/// A connection before it is served.
struct Wire(Socket, Reader);

impl Transport for Wire {
    type Reader = Reader;
    type Writer = Socket;

    fn info(&self) -> TransportInfo {
        info()
    }

    fn split(self) -> (Reader, Socket) {
        (self.1, self.0)
    }
}

impl FrameReader for Reader {
    async fn next(&mut self) -> Option<Result<Frame, ReadError>> {
        self.0.recv().await.map(Ok)
    }
}

impl FrameWriter for Socket {
    fn try_write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        let mut seen = self.seen.lock().expect("not poisoned");
        for frame in frames {
            if **frame == *info().framing.heartbeat {
                seen.pings.push(Instant::now());
                self.answers.iter().for_each(|answers| drop(answers.send(Frame::Alive)));
            } else {
                seen.text.extend_from_slice(frame);
            }
        }
        Ok(frames.iter().map(Bytes::len).sum())
    }

    async fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        self.try_write(frames)
    }

    async fn close(&mut self, reason: &CloseReason) {
        self.seen.lock().expect("not poisoned").closed = Some(reason.clone());
    }
}

fn info() -> TransportInfo {
    TransportInfo { answers_heartbeats: true, ..MemoryPipe::info() }
}

async fn hub() -> Hub {
    let mut limits = Limits::default();
    limits.heartbeat = HEARTBEAT;
    let bus = Arc::new(MemoryBus::default());
    let builder = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll));
    let builder = builder.handler(Arc::new(Slow)).limits(limits).shards(1);
    builder.start().await.expect("the bus is there")
}

/// Connects; answers what is seen of it and the way to say something.
async fn connect(hub: &Hub, answers: bool) -> (Arc<Mutex<Seen>>, mpsc::UnboundedSender<Frame>) {
    let who = Identity::user(UserId::new("u").expect("it is a name"));
    let attached = hub.attach(who, ConnectOptions::default(), info()).await;
    let (say, said) = mpsc::unbounded_channel();
    let seen = Arc::<Mutex<Seen>>::default();
    let socket = Socket { answers: answers.then(|| say.clone()), seen: seen.clone() };
    let wire = Wire(socket, Reader(said, say.clone()));
    tokio::spawn(attached.expect("it is taken in").serve(wire));
    (seen, say)
}

fn closed(seen: &Mutex<Seen>) -> Option<CloseReason> {
    seen.lock().expect("not poisoned").closed.clone()
}

fn text(seen: &Mutex<Seen>) -> String {
    String::from_utf8_lossy(&seen.lock().expect("not poisoned").text).into_owned()
}

fn message(id: u32) -> Frame {
    Frame::Message(format!("{{\"type\":\"work\",\"id\":{id}}}").into())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_survives_a_slow_handler() {
    let hub = hub().await;
    let (seen, say) = connect(&hub, true).await;
    for id in 1..=2 {
        assert!(say.send(message(id)).is_ok());
    }
    sleep(HEARTBEAT * 8).await;
    assert_eq!(closed(&seen), None);
    let text = text(&seen);
    assert!(text.contains("\"id\":1") && text.contains("\"id\":2"), "{text}");
    let pings = seen.lock().expect("not poisoned").pings.len();
    assert!(pings >= 7, "it was pinged all the while, {pings} times");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_died_during_a_slow_handler_is_cut_after_it() {
    let hub = hub().await;
    let (seen, say) = connect(&hub, false).await;
    assert!(say.send(message(1)).is_ok());
    sleep(HEARTBEAT * 3).await;
    assert_eq!(closed(&seen), None, "nothing was read, so nothing is known");
    sleep(HEARTBEAT * 3).await;
    assert_eq!(closed(&seen), Some(CloseReason::NO_SIGN_OF_LIFE));
}

/// A message comes in parts, each just before the heartbeat is missed; the last one after this time.
async fn in_parts(lasts: Duration) -> Option<CloseReason> {
    let hub = hub().await;
    let (seen, say) = connect(&hub, false).await;
    let start = Instant::now();
    while start.elapsed() < lasts {
        assert!(say.send(Frame::Part).is_ok() || closed(&seen).is_some());
        sleep(HEARTBEAT / 2).await;
    }
    let _ = say.send(Frame::Part);
    sleep(Duration::from_millis(1)).await;
    closed(&seen)
}

#[tokio::test(start_paused = true)]
async fn a_message_under_way_is_a_sign_of_life_until_its_deadline() {
    let deadline = Limits::default().message_deadline;
    assert_eq!(in_parts(deadline).await, None);
    assert_eq!(in_parts(deadline + HEARTBEAT / 2).await, Some(CloseReason::UNFINISHED));
    // Each message has its own time.
    let hub = hub().await;
    let (seen, say) = connect(&hub, false).await;
    for _ in 0..5 {
        for _ in 0..3 {
            assert!(say.send(Frame::Part).is_ok());
            sleep(HEARTBEAT / 2).await;
        }
        assert!(say.send(Frame::Message("{\"type\":\"ping\"}".into())).is_ok());
    }
    assert_eq!(closed(&seen), None);
    // One that stops in the middle is silent.
    assert!(say.send(Frame::Part).is_ok());
    sleep(HEARTBEAT * 3).await;
    assert_eq!(closed(&seen), Some(CloseReason::NO_SIGN_OF_LIFE));
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_no_messages_have_the_rate_of_messages() {
    let hub = hub().await;
    let limits = Limits::default();
    for frame in [|| Frame::Alive, || Frame::Respond(Bytes::from_static(b"pong"))] {
        let (seen, say) = connect(&hub, true).await;
        // As many as messages, at once and in the long run, and messages besides.
        for _ in 0..limits.message_burst {
            assert!(say.send(frame()).is_ok());
        }
        for _ in 0..100 {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..limits.message_rate - 1 {
                assert!(say.send(frame()).is_ok());
                assert!(say.send(Frame::Message("{\"type\":\"ping\"}".into())).is_ok());
            }
        }
        sleep(Duration::from_secs(10)).await;
        assert_eq!((closed(&seen), text(&seen).contains("rate_limited")), (None, false));
        for _ in 0..limits.message_burst + 4 {
            let _ = say.send(frame());
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(closed(&seen), Some(CloseReason::RATE_LIMITED));
        assert_eq!(text(&seen).matches("rate_limited").count(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn who_came_together_is_pinged_each_heartbeat_and_not_together() {
    let hub = hub().await;
    let start = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(connect(&hub, true).await.0);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(HEARTBEAT * 4).await;
    let mut firsts = Vec::new();
    for seen in &clients {
        let pings = &seen.lock().expect("not poisoned").pings;
        // What is due waits for the next look at it, a second at most.
        let slack = Duration::from_millis(1100);
        let mut last = start;
        for ping in pings {
            assert!(*ping - last <= HEARTBEAT + slack, "{:?} after the last", *ping - last);
            last = *ping;
        }
        assert!(start.elapsed() - (last - start) <= HEARTBEAT + slack, "and still");
        firsts.push(pings[0]);
    }
    for at in &firsts {
        let together = firsts.iter().filter(|other| *other == at).count();
        assert!(together < 40, "{together} of 100 at once");
    }
}

const HEARTBEAT: Duration = Duration::from_secs(30);
