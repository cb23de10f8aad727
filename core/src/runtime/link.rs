//! One partition's link as core sees it: connected for ever again, its interest kept up, its events in one stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use tokio::time::{Sleep, sleep, timeout};

use super::clock;
use super::observer::{Event, Observing};
use super::spawn::jitter;
use crate::machines::{Command, Interest};
use crate::{Bus, BusError, BusInterest, BusLink, Delivery, Topic};

/// What happened on a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    Up,
    Lost,
    Delivery(Box<Delivery>),
    Subscribed(Vec<Topic>),
    /// What was refused together is asked for again in smaller parts; only what was refused alone is refused for a while.
    Refused(Vec<Topic>),
}

pub(crate) struct Link {
    bus: Arc<dyn Bus>,
    partition: u16,
    deadline: Duration,
    observer: Observing,
    interest: Interest,
    state: State,
    backoff: Duration,
    /// Wakes the link when something that waits in the machine comes due.
    timer: Option<Pin<Box<Sleep>>>,
}

enum State {
    Connecting(BoxFuture<'static, Result<BusLink, BusError>>),
    Waiting(Pin<Box<Sleep>>),
    Up(Live),
}

/// A command's outcome, and the interest that it had, unless it was not answered in time.
type Told = (Box<dyn BusInterest>, Result<(), BusError>);

struct Live {
    /// When it came up.
    since: Duration,
    deliveries: BoxStream<'static, Result<Delivery, BusError>>,
    /// Away while a command is under way: the command has it.
    interest: Option<Box<dyn BusInterest>>,
    command: Option<BoxFuture<'static, Option<Told>>>,
    topics: Vec<Topic>,
    subscribing: bool,
    /// After a refused command: when to try again.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Link {
    /// A link that is up.
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        partition: u16,
        link: BusLink,
        deadline: Duration,
        observer: Observing,
    ) -> Self {
        observer.on(Event::LinkUp { partition });
        let (mut interest, state) = (Interest::new(LINGER), State::Up(Live::new(link)));
        interest.link_up();
        let (backoff, timer) = (FIRST_BACKOFF, None);
        Self { bus, partition, deadline, observer, interest, state, backoff, timer }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(crate) fn is_subscribed(&self, topic: &Topic) -> bool {
        self.is_up() && self.interest.is_subscribed(topic)
    }

    pub(crate) fn set(&mut self, topic: &Topic, wanted: bool) {
        self.interest.set(clock::monotonic(), topic, wanted);
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    std::task::ready!(sleep.as_mut().poll(cx));
                    let (bus, partition, deadline) =
                        (self.bus.clone(), self.partition, self.deadline);
                    self.state = State::Connecting(Box::pin(async move {
                        in_time(deadline, bus.connect(partition)).await
                    }));
                }
                State::Connecting(connect) => match std::task::ready!(connect.as_mut().poll(cx)) {
                    Ok(link) => {
                        self.state = State::Up(Live::new(link));
                        self.interest.link_up();
                        self.observer.on(Event::LinkUp { partition: self.partition });
                        return Poll::Ready(LinkEvent::Up);
                    }
                    Err(_) => self.wait(),
                },
                State::Up(live) => {
                    let told = live.poll_command(cx, &mut self.interest, self.deadline);
                    if let Poll::Ready(event) = told {
                        if matches!(event, LinkEvent::Lost) {
                            return Poll::Ready(self.lost());
                        }
                        if let LinkEvent::Subscribed(topics) | LinkEvent::Refused(topics) = &event {
                            let done = matches!(event, LinkEvent::Subscribed(_));
                            self.observer.on(Event::Subscribed { topics: topics.len(), done });
                        }
                        return Poll::Ready(event);
                    }
                    match live.deliveries.as_mut().poll_next(cx) {
                        Poll::Ready(Some(Ok(delivery))) => {
                            return Poll::Ready(LinkEvent::Delivery(Box::new(delivery)));
                        }
                        Poll::Ready(_) => return Poll::Ready(self.lost()),
                        Poll::Pending => {}
                    }
                    let is_idle = live.interest.is_some() && live.pause.is_none();
                    return if is_idle { self.poll_timer(cx) } else { Poll::Pending };
                }
            }
        }
    }

    /// Sleeps until what waits in the machine is due; then the loop finds the command. Not while a command is under way or
    /// after a refused one: these wake the link themselves.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        let Some(due) = self.interest.next_timeout() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(sleep(due.saturating_sub(clock::monotonic()) + Duration::from_millis(1)))
        });
        if timer.as_mut().poll(cx).is_ready() {
            self.timer = None;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn lost(&mut self) -> LinkEvent {
        self.interest.link_lost();
        // One that lived for longer than the wait that is next was a good one.
        if let State::Up(live) = &self.state
            && clock::monotonic().saturating_sub(live.since) >= self.backoff
        {
            self.backoff = FIRST_BACKOFF;
        }
        self.wait();
        self.observer.on(Event::LinkLost { partition: self.partition });
        LinkEvent::Lost
    }

    fn wait(&mut self) {
        self.state = State::Waiting(Box::pin(sleep(jitter(self.backoff))));
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }
}

impl Live {
    fn new(link: BusLink) -> Self {
        let BusLink { interest, deliveries } = link;
        Self {
            since: clock::monotonic(),
            deliveries,
            interest: Some(interest),
            command: None,
            topics: Vec::new(),
            subscribing: false,
            pause: None,
        }
    }

    /// [`Lost`](LinkEvent::Lost) when the bus did not answer in time.
    fn poll_command(
        &mut self,
        cx: &mut Context<'_>,
        machine: &mut Interest,
        deadline: Duration,
    ) -> Poll<LinkEvent> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if let Some(command) = &mut self.command {
                let told = std::task::ready!(command.as_mut().poll(cx));
                self.command = None;
                let Some((interest, result)) = told else { return Poll::Ready(LinkEvent::Lost) };
                self.interest = Some(interest);
                let topics = std::mem::take(&mut self.topics);
                let done = result.is_ok();
                if done {
                    machine.confirmed()
                } else {
                    machine.failed(clock::monotonic());
                }
                // A topic that is refused alone has its own wait, and the others do not wait for it.
                let waits_itself = self.subscribing && topics.len() == 1;
                if !done && !waits_itself {
                    self.pause = Some(Box::pin(sleep(FIRST_BACKOFF)));
                }
                match (self.subscribing, done) {
                    (true, true) => return Poll::Ready(LinkEvent::Subscribed(topics)),
                    (true, false) => return Poll::Ready(LinkEvent::Refused(topics)),
                    (false, _) => continue,
                }
            }
            let Some(mut interest) = self.interest.take() else { return Poll::Pending };
            let Some(command) = machine.poll(clock::monotonic(), MAX_BATCH) else {
                self.interest = Some(interest);
                return Poll::Pending;
            };
            self.subscribing = matches!(command, Command::Subscribe(_));
            let (Command::Subscribe(topics) | Command::Unsubscribe(topics)) = command;
            self.topics.clone_from(&topics);
            let subscribing = self.subscribing;
            self.command = Some(Box::pin(async move {
                let asked = async {
                    match subscribing {
                        true => interest.subscribe(&topics).await,
                        false => interest.unsubscribe(&topics).await,
                    }
                };
                let result = timeout(deadline, asked).await.ok()?;
                Some((interest, result))
            }));
        }
    }
}

/// What a bus answers before the deadline.
pub(super) async fn in_time<T>(
    deadline: Duration,
    asked: impl Future<Output = Result<T, BusError>>,
) -> Result<T, BusError> {
    timeout(deadline, asked).await.unwrap_or(Err(BusError::TimedOut))
}

/// How long after its last wish a topic is given up.
const LINGER: Duration = Duration::from_secs(1);
/// Most topics of one command.
const MAX_BATCH: usize = 512;
/// The first wait for a new link, about; it doubles up to [`LONGEST_BACKOFF`], until a link outlives that.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
