//! What waits for one link: bounded in bytes, read as a stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tidings_core::{BusError, Delivery};

use crate::LinkGuard;

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    /// Nothing comes any more; the error, if any, is delivered last.
    ended: bool,
    error: Option<BusError>,
    reader: Option<Waker>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    /// It did not fit; the queue has ended.
    Full,
}

impl Queue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_bytes }
    }

    /// Appends a delivery, and answers whom to wake.
    pub(crate) fn push(&self, delivery: Delivery) -> (Pushed, Option<Waker>) {
        let mut state = self.lock();
        let bytes = state.bytes + cost(&delivery);
        if state.ended || bytes > self.max_bytes {
            if !state.ended {
                state.ended = true;
                state.error = Some(lagged(self.max_bytes));
            }
            return (Pushed::Full, state.reader.take());
        }
        state.bytes = bytes;
        state.waiting.push_back(delivery);
        (Pushed::Queued, state.reader.take())
    }

    /// Lets nothing more in. What waits is still delivered, then the stream ends.
    pub(crate) fn end(&self) {
        let reader = {
            let mut state = self.lock();
            state.ended = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Delivery, BusError>>> {
        let mut state = self.lock();
        if let Some(delivery) = state.waiting.pop_front() {
            state.bytes -= cost(&delivery);
            return Poll::Ready(Some(Ok(delivery)));
        }
        if state.ended {
            return Poll::Ready(state.error.take().map(Err));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of a link.
#[derive(Debug)]
pub(crate) struct Deliveries {
    queue: Arc<Queue>,
    _guard: LinkGuard,
}

impl Deliveries {
    pub(crate) fn new(queue: Arc<Queue>, guard: LinkGuard) -> Self {
        Self { queue, _guard: guard }
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery, BusError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(cx)
    }
}

/// What a delivery takes in the queue. Names are shared, so they cost nothing.
fn cost(delivery: &Delivery) -> usize {
    size_of::<Delivery>() + delivery.message.len()
}

fn lagged(max_bytes: usize) -> BusError {
    BusError::Lagged(format!("over {max_bytes} bytes were waiting to be read"))
}
