//! The one loop of a connection: frames in, effects out, one writer.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, timeout};

use super::attendance::Departure;
use super::clock;
use super::handler::Context;
use super::hub::{Hub, Inner};
use super::inbox::ShardHandle;
use super::mailbox::{Mailbox, judged};
use super::observer::{Event, Observing, SlowBound};
use super::operations::{Done, handle, join, leave, renew};
use super::outbox::{Flushed, Outbox};
use super::replay::{Replaying, Step};
use super::routed::{Receiver, framed};
use super::types::ConnectOptions;
use super::welcome::welcome;
use crate::machines::ConnectionKey;
use crate::session::{Effect, Input, Operation, Outcome, Session};
use crate::{
    ClientId, CloseReason, Frame, FrameReader, FrameWriter, Identity, Transport, TransportInfo,
    VerdictSender,
};

/// A connection that a hub has taken in. Dropping it is leaving: all rooms and topics are left.
#[derive(Debug)]
pub struct Attachment {
    context: Context,
    number: usize,
    outbox: Arc<Outbox>,
    who: Receiver,
    /// What it asked for, until it is served.
    options: Option<Box<ConnectOptions>>,
    info: TransportInfo,
    opened: Duration,
    /// Why it ended, once it did.
    ended: Option<CloseReason>,
    by_client: bool,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.context.hub.0.observer.on(Event::Closed {
            transport: self.info.name,
            reason: self.ended.as_ref(),
            by_client: self.by_client,
            lasted: clock::monotonic() - self.opened,
        });
        self.context.hub.0.counts.disconnected(self.info.name);
        let key = self.context.key;
        let departure = match &self.ended {
            Some(reason) if self.by_client || reason.is_final() => Departure::Left,
            _ => Departure::Lost,
        };
        self.context.shard.run(move |members| members.detach(key, departure));
    }
}

impl Attachment {
    #[expect(clippy::too_many_arguments, reason = "called once, by the hub")]
    pub(crate) fn new(
        hub: Hub,
        number: usize,
        key: ConnectionKey,
        who: Receiver,
        identity: Arc<Identity>,
        outbox: Arc<Outbox>,
        options: ConnectOptions,
        info: TransportInfo,
    ) -> Self {
        let shard: ShardHandle = hub.0.shards[number].clone();
        hub.0.observer.on(Event::Opened { transport: info.name });
        hub.0.counts.connected(info.name);
        let (handling, client) = (None, who.client);
        let accepted = Arc::new(AtomicBool::new(false));
        let context = Context { hub, shard, number, handling, key, client, identity, accepted };
        let (options, opened) = (Some(Box::new(options)), clock::monotonic());
        Self { context, number, outbox, who, options, info, opened, ended: None, by_client: false }
    }

    /// Which connection this is.
    pub fn client_id(&self) -> ClientId {
        self.context.client
    }

    /// Opens the mailbox of a connection that cannot be written to by its peer, as an event stream is:
    /// [`Hub::submit`] finds it on every node.
    pub fn mailbox(&self) -> Mailbox {
        let Context { hub, client, identity, .. } = &self.context;
        hub.0.commands.mailboxes.open(*client, identity)
    }

    /// Serves the connection until it ends. To be run as a task of its own: a panic in a handler ends only that.
    pub fn serve<T: Transport>(self, transport: T) -> impl Future<Output = ()> + Send + use<T> {
        let (reader, writer) = transport.split();
        // On the heap, and not in the future: that would keep room for it twice.
        let connection = Box::new(Connection::begin(self, reader));
        connection.serve(Box::new(writer))
    }
}

struct Connection<R> {
    attachment: Attachment,
    reader: R,
    session: Session,
    operation: Option<BoxFuture<'static, Done>>,
    /// What the client missed, while it is being sent.
    replay: Option<Replaying>,
    verdict: Option<VerdictSender>,
    /// When the message began that comes in parts.
    begun: Option<Duration>,
}

impl<R: FrameReader> Connection<R> {
    fn begin(mut attachment: Attachment, reader: R) -> Self {
        let hub = &attachment.context.hub;
        let session =
            Session::new(clock::now(), &hub.0.limits, attachment.context.identity.expires_at);
        let options = attachment.options.take().map(|options| *options).unwrap_or_default();
        let welcome = welcome(attachment.context.clone(), attachment.number, options);
        let operation = caught(hub.0.observer.clone(), welcome);
        Self {
            attachment,
            reader,
            session,
            operation: Some(operation),
            replay: None,
            verdict: None,
            begun: None,
        }
    }

    async fn serve<W: FrameWriter>(mut self: Box<Self>, writer: Box<W>) {
        let (reason, writer) = self.run(writer).await;
        // What follows comes once, so that its room is not kept all the time.
        Box::pin(self.end(reason, writer)).await;
    }

    /// Tells the client, when there is a reason to tell it, and the handler. Both at once, so that neither waits for
    /// the other, and each within `close_deadline`.
    async fn end<W: FrameWriter>(
        mut self: Box<Self>,
        reason: Option<CloseReason>,
        writer: Option<Box<W>>,
    ) {
        // A handler that is cut lets go of what it holds before it hears that its client is gone.
        (self.operation, self.replay, self.verdict) = (None, None, None);
        let Self { attachment, reader, .. } = &mut *self;
        let Attachment { context, outbox, ended, .. } = attachment;
        if reason.is_some() {
            ended.clone_from(&reason);
        }
        let Inner { handler, observer, limits, .. } = &*context.hub.0;
        let telling = async {
            if context.accepted.load(Ordering::Acquire) {
                handler.on_disconnect(context).await;
            }
        };
        let closing = async {
            if let (Some(reason), Some(mut writer)) = (reason, writer) {
                // A close within a frame would be read as a part of it.
                while let Some(rest) = outbox.hold_begun() {
                    outbox.taken(writer.write(&[rest]).await?);
                }
                writer.close(&reason).await;
                // Past an error too: a socket that is closed over unread bytes is reset, and the reason lost.
                let mut failed = false;
                while let Some(read) = reader.next().await {
                    if read.is_err() && std::mem::replace(&mut failed, true) {
                        break;
                    }
                }
            }
            Ok::<_, io::Error>(())
        };
        let told = timeout(limits.close_deadline, AssertUnwindSafe(telling).catch_unwind());
        let (told, _) = future::join(told, timeout(limits.close_deadline, closing)).await;
        if let Ok(Err(_)) = told {
            observer.on(Event::Panicked);
        }
    }

    /// Answers why the connection ends, `None` when there is nobody left to be told, and the writer.
    async fn run<W: FrameWriter>(
        &mut self,
        mut writer: Box<W>,
    ) -> (Option<CloseReason>, Option<Box<W>>) {
        let outbox = self.attachment.outbox.clone();
        self.schedule();
        loop {
            match outbox.flush(|frames| writer.try_write(frames)) {
                Err(_) => return (None, None),
                Ok(Flushed::Ended(reason)) => {
                    if reason == CloseReason::TOO_SLOW {
                        self.too_slow(SlowBound::Bytes);
                    }
                    return (Some(reason), Some(writer));
                }
                // Seldom, so that its room is not kept all the time.
                Ok(Flushed::Blocked) => {
                    match Box::pin(self.wait_for_room(&outbox, &mut *writer)).await {
                        Ok(None) => continue,
                        Ok(reason) => return (reason, Some(writer)),
                        Err(_) => return (None, None),
                    }
                }
                Ok(Flushed::Empty) => {}
            }
            // A replay goes on as the client takes it, and never while its topics may change.
            if self.operation.is_none() && self.replay_more() {
                continue;
            }
            outbox.lend(writer);
            let step = self.step(&outbox).await;
            let Some(taken_back) = outbox.take_back() else { return (None, None) };
            writer = taken_back;
            if let ControlFlow::Break(reason) = step {
                return (reason, Some(writer));
            }
        }
    }

    /// Queues the next part of the replay. Answers whether there was any.
    fn replay_more(&mut self) -> bool {
        let Attachment { context, who, info, outbox, .. } = &self.attachment;
        let Some(replay) = &mut self.replay else { return false };
        let Some(frames) = replay.frames(context, who, info.framing) else {
            self.replay = None;
            outbox.end(CloseReason::INTERNAL);
            return true;
        };
        let any = !frames.is_empty();
        outbox.push(frames);
        any
    }

    fn replayed(&mut self, step: Step) {
        match self.replay.as_mut().map(|replay| replay.done(step)) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.replay = None,
            Some(Err(_)) => self.attachment.outbox.end(CloseReason::TRY_AGAIN_LATER),
        }
    }

    fn too_slow(&self, bound: SlowBound) {
        self.attachment.context.hub.0.observer.on(Event::TooSlow { bound });
    }

    /// Waits for the next thing to happen, and does what follows from it.
    async fn step(&mut self, outbox: &Outbox) -> ControlFlow<Option<CloseReason>> {
        let idle = self.operation.is_none();
        // While its shard lets it go live it is not known what it reads next.
        let going_live = self.replay.as_ref().is_some_and(Replaying::is_going_live);
        if !idle {
            outbox.unread();
        }
        tokio::select! {
            biased;
            () = poll_fn(|cx| outbox.poll_ready(cx)) => self.tick(outbox),
            done = operation(&mut self.operation), if !idle => self.done(done),
            step = replay(&mut self.replay, &self.attachment.context), if idle => self.replayed(step),
            frame = self.reader.next(), if idle && !going_live => match frame {
                None => return ControlFlow::Break(None),
                Some(Ok(Frame::Close(code))) => {
                    self.attachment.by_client = true;
                    return ControlFlow::Break(Some(CloseReason::of_peer(code)));
                }
                Some(Ok(frame)) => {
                    self.frame(frame);
                    // A flood of frames, also of those that mean nothing, lets other tasks go between.
                    consume_budget().await;
                }
                Some(Err(error)) => match CloseReason::of_read_error(&error) {
                    Some(reason) => outbox.end(reason),
                    None => return ControlFlow::Break(None),
                },
            },
        }
        ControlFlow::Continue(())
    }

    /// The socket takes nothing now: waits until the frame whose turn it is has left. Nothing is read meanwhile,
    /// but ticks, the end and a finished operation are heeded. Answers why the connection ends, if it does.
    ///
    /// A frame that has not left within `write_deadline` ends the connection as too slow, and an end of
    /// another reason waits no longer for the rest. That the outbox is too full ends it at once.
    async fn wait_for_room<W: FrameWriter>(
        &mut self,
        outbox: &Outbox,
        writer: &mut W,
    ) -> io::Result<Option<CloseReason>> {
        let mut late = pin!(sleep(self.attachment.context.hub.0.limits.write_deadline));
        loop {
            let ended = outbox.ended();
            if ended == Some(CloseReason::TOO_SLOW) {
                self.too_slow(SlowBound::Bytes);
                return Ok(ended);
            }
            let Some(front) = outbox.hold_front() else { return Ok(None) };
            let front = [front];
            let busy = self.operation.is_some();
            tokio::select! {
                biased;
                () = poll_fn(|cx| outbox.poll_told(cx, ended.is_some())) => {
                    outbox.taken(0);
                    self.tick(outbox);
                }
                written = writer.write(&front) => {
                    // Its window opened, so the peer lives, though it is not read now.
                    outbox.heard(clock::monotonic());
                    if outbox.taken(written?) && ended.is_none() {
                        return Ok(None);
                    }
                }
                done = operation(&mut self.operation), if busy => {
                    outbox.taken(0);
                    self.done(done);
                }
                () = &mut late => {
                    outbox.taken(0);
                    outbox.end(CloseReason::TOO_SLOW);
                    self.too_slow(SlowBound::Time);
                    return Ok(outbox.ended());
                }
            }
        }
    }

    fn tick(&mut self, outbox: &Outbox) {
        if outbox.take_tick() {
            self.input(Input::Tick);
        }
    }

    fn frame(&mut self, frame: Frame) {
        let now = clock::monotonic();
        let Attachment { outbox, context, .. } = &self.attachment;
        outbox.heard(now);
        if let Frame::Message(text) | Frame::Submitted(text, _) = &frame {
            context.hub.0.observer.on(Event::Received { bytes: text.len() });
            self.begun = None;
        }
        match frame {
            Frame::Message(text) => self.input(Input::Message(text)),
            Frame::Submitted(text, verdict) => {
                self.verdict = Some(verdict);
                self.input(Input::Submitted(text));
            }
            Frame::Respond(bytes) => {
                outbox.push([bytes]);
                self.input(Input::Frame);
            }
            Frame::Alive => self.input(Input::Frame),
            // One that stops in the middle is silent, which the heartbeat sees.
            Frame::Part => {
                let begun = *self.begun.get_or_insert(now);
                if now - begun > context.hub.0.limits.message_deadline {
                    outbox.end(CloseReason::UNFINISHED);
                }
            }
            Frame::Close(_) => {}
        }
    }

    fn done(&mut self, done: Done) {
        self.attachment.outbox.heard(clock::monotonic());
        match done {
            Done::Outcome(outcome) => self.input(Input::Finished(outcome)),
            Done::Replaying(outcome, resume) => {
                self.replay = Some(Replaying::new(resume));
                self.input(Input::Finished(outcome));
            }
            Done::Handled(outcome, replay) => {
                self.replay = replay;
                self.input(Input::Finished(outcome));
            }
            Done::Renewed(identity, left, outcome) => {
                self.attachment.context.identity = identity;
                if let Some(replay) = &mut self.replay {
                    left.iter().for_each(|topic| replay.leave(topic));
                }
                self.input(Input::Finished(outcome));
            }
            Done::Close(reason) => self.attachment.outbox.end(reason),
        }
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        let refused = self.session.refused();
        self.session.handle(clock::now(), input, &mut effects);
        if self.session.refused() != refused {
            self.attachment.context.hub.0.observer.on(Event::RateLimited);
        }
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    let Attachment { info, outbox, context, .. } = &self.attachment;
                    match framed(info.framing, &message, &context.hub.0.observer) {
                        Some(frame) => outbox.push([frame]),
                        None => outbox.end(CloseReason::INTERNAL),
                    }
                }
                Effect::Start(operation) => self.operation = Some(self.start(operation)),
                Effect::Verdict(verdict) => {
                    self.verdict.take().into_iter().for_each(|v| v.send(verdict))
                }
                Effect::Close(reason) => self.attachment.outbox.end(reason),
            }
        }
        self.schedule();
    }

    /// Leaves word with the shard's sweeper when the session wants its next tick.
    fn schedule(&self) {
        let now = clock::now();
        let due = self.session.next_timeout(now).map(|left| now.monotonic + left);
        self.attachment.outbox.set_due(due);
    }

    fn start(&mut self, operation: Operation) -> BoxFuture<'static, Done> {
        let (context, number) = (self.attachment.context.clone(), self.attachment.number);
        let observer = context.hub.0.observer.clone();
        match operation {
            Operation::Join(request) => {
                let resume = self.replay.take().map(Replaying::stop);
                caught(observer, async move {
                    match join(&context, number, request, resume).await {
                        (outcome, Some(resume)) => Done::Replaying(outcome, resume),
                        (outcome, None) => Done::Outcome(outcome),
                    }
                })
            }
            Operation::Leave { room, id } => {
                let topic = context.room(room.clone());
                self.replay.iter_mut().for_each(|replay| replay.leave(&topic));
                caught(observer, async move {
                    leave(&context, room, id, None).await;
                    Done::Outcome(Outcome::Answered)
                })
            }
            Operation::Renew { token, id } => caught(observer, renew(context, token, id)),
            Operation::Handle(message) => {
                let verdict = self.verdict.take();
                let context = context.handling(self.replay.take());
                caught(observer, async move {
                    let handling = handle(&context, message);
                    let outcome = match verdict {
                        Some(verdict) => judged(handling, verdict).await,
                        None => handling.await,
                    };
                    match context.handled().await {
                        Ok(replay) => Done::Handled(outcome, replay),
                        Err(_) => Done::Close(CloseReason::INTERNAL),
                    }
                })
            }
        }
    }
}

/// A panic ends the connection with 1011 and nothing else.
fn caught(
    observer: Observing,
    operation: impl Future<Output = Done> + Send + 'static,
) -> BoxFuture<'static, Done> {
    let panicked = move |_| {
        observer.on(Event::Panicked);
        Done::Close(CloseReason::INTERNAL)
    };
    AssertUnwindSafe(operation).catch_unwind().map(|done| done.unwrap_or_else(panicked)).boxed()
}

/// The end of the replay's next step; pending when there is no replay.
async fn replay(replay: &mut Option<Replaying>, context: &Context) -> Step {
    match replay {
        Some(replay) => replay.step(context).await,
        None => std::future::pending().await,
    }
}

/// The end of the operation under way; pending when there is none.
async fn operation(operation: &mut Option<BoxFuture<'static, Done>>) -> Done {
    let Some(under_way) = operation else { return std::future::pending().await };
    let done = under_way.await;
    *operation = None;
    done
}
