//! What the dispatcher reads of the history, a few questions at a time.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream as _;
use futures_core::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Sleep, sleep};

use super::link::in_time;
use super::spawn::jitter;
use crate::machines::{Ask, Positions, Question};
use crate::{Bus, BusError, HistoryPage, Tops};

/// What the history answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Tops(Tops),
    Page(HistoryPage),
}

type Answered = (Ask, Result<Answer, BusError>);

/// The questions that are under way; [`Positions`] says how many there may be.
pub(crate) struct Reads {
    bus: Arc<dyn Bus>,
    deadline: Duration,
    under_way: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// After a failure: when to ask again.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Reads {
    pub(crate) fn new(bus: Arc<dyn Bus>, deadline: Duration) -> Self {
        Self { bus, deadline, under_way: FuturesUnordered::new(), pause: None }
    }

    /// Asks what is to be asked; ready with an answer.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        positions: &mut Positions,
    ) -> Poll<Answered> {
        if let Poll::Ready(Some(answered)) = Pin::new(&mut self.under_way).poll_next(cx) {
            return Poll::Ready(answered);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        while let Some(ask) = positions.poll() {
            self.under_way.push(Box::pin(answer(self.bus.clone(), ask, self.deadline)));
        }
        match ready!(Pin::new(&mut self.under_way).poll_next(cx)) {
            Some(answered) => Poll::Ready(answered),
            None => Poll::Pending,
        }
    }

    /// The history did not answer: nothing more is asked for a moment.
    pub(crate) fn pause(&mut self) {
        self.pause.get_or_insert_with(|| Box::pin(sleep(jitter(PAUSE))));
    }
}

async fn answer(bus: Arc<dyn Bus>, ask: Ask, deadline: Duration) -> Answered {
    let Some(history) = bus.history() else {
        return (ask, Err(BusError::Refused("there is no history".to_owned())));
    };
    let asked = async {
        match &ask.question {
            Question::Tops(topics) => history.tops(ask.partition, topics).await.map(Answer::Tops),
            Question::After(topic, clock) => {
                history.after(topic, *clock, PAGE).await.map(Answer::Page)
            }
        }
    };
    let answer = in_time(deadline, asked).await;
    (ask, answer)
}

/// Most messages of one reading.
pub(crate) const PAGE: u32 = 256;
/// How long to wait, about, after a question was not answered.
const PAUSE: Duration = Duration::from_millis(250);
