//! Reads the history for connections that come back: many may ask at once, each topic is read once for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

use super::link::in_time;
use super::reads::PAGE;
use super::spawn::spawn;
use crate::{Bus, BusError, Delivery, HistoryPage, Topic};

/// The reader of a node. A topic is read at most once in [`READ_EVERY`], however many connections ask, but for the
/// next pages of one that was asked for more than fits a page.
pub(crate) struct Reader {
    bus: Arc<dyn Bus>,
    deadline: Duration,
    /// Topics that are read at a time, so that many who come back do not bury the store.
    places: Semaphore,
    /// The topics that are being read, or were just now, with who waits for the next reading.
    waiting: Mutex<HashMap<Topic, Vec<Question>>>,
}

struct Question {
    after: u64,
    answer: oneshot::Sender<Result<HistoryPage, Arc<BusError>>>,
}

impl Reader {
    pub(crate) fn new(bus: Arc<dyn Bus>, deadline: Duration) -> Self {
        Self { bus, deadline, places: Semaphore::new(READS), waiting: Mutex::default() }
    }

    /// What a topic has kept after a clock, read after this call.
    pub(crate) async fn read(
        self: &Arc<Self>,
        topic: &Topic,
        after: u64,
    ) -> Result<HistoryPage, Arc<BusError>> {
        let (answer, answered) = oneshot::channel();
        let question = Question { after, answer };
        if self.ask(topic, question) {
            spawn(self.clone().serve(topic.clone()));
        }
        answered.await.unwrap_or_else(|_| Err(Arc::new(BusError::TimedOut)))
    }

    /// Answers whether nobody reads the topic yet.
    fn ask(&self, topic: &Topic, question: Question) -> bool {
        let mut waiting = self.lock();
        if let Some(questions) = waiting.get_mut(topic) {
            questions.push(question);
            return false;
        }
        waiting.insert(topic.clone(), vec![question]);
        true
    }

    /// Reads a topic for as long as somebody asks.
    async fn serve(self: Arc<Self>, topic: Topic) {
        // When the bus panics, who waits is answered too.
        let _reading = Reading(&self, &topic);
        while let Some(asked) = self.next(&topic) {
            if !self.answer(&topic, asked).await {
                sleep(READ_EVERY).await;
            }
        }
    }

    /// Who waits for the next reading; when nobody does, the topic is no longer read.
    fn next(&self, topic: &Topic) -> Option<Vec<Question>> {
        let mut waiting = self.lock();
        let asked = waiting.get_mut(topic).map(std::mem::take).filter(|asked| !asked.is_empty());
        if asked.is_none() {
            waiting.remove(topic);
        }
        asked
    }

    /// Answers who can be answered by one reading; puts the others back. Whether there are any.
    async fn answer(&self, topic: &Topic, asked: Vec<Question>) -> bool {
        let from = asked.iter().map(|question| question.after).min().unwrap_or_default();
        let page = match self.bus.history() {
            Some(history) => {
                let read = async {
                    let _place = self.places.acquire().await;
                    history.after(topic, from, PAGE).await
                };
                in_time(self.deadline, read).await.map_err(Arc::new)
            }
            None => Err(Arc::new(BusError::Refused("there is no history".to_owned()))),
        };
        let mut left = Vec::new();
        for question in asked {
            match &page {
                Err(error) => drop(question.answer.send(Err(error.clone()))),
                Ok(page) => match part(page, from, question.after) {
                    Some(part) => drop(question.answer.send(Ok(part))),
                    None => left.push(question),
                },
            }
        }
        let again = !left.is_empty();
        if let Some(questions) = self.lock().get_mut(topic) {
            questions.append(&mut left);
        }
        again
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Vec<Question>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The topic that a task reads. Dropped, nobody reads it.
struct Reading<'a>(&'a Reader, &'a Topic);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().remove(self.1);
        }
    }
}

/// Of a page after `from` what comes after a later clock; `None` when the page does not tell.
fn part(page: &HistoryPage, from: u64, after: u64) -> Option<HistoryPage> {
    let clock = |delivery: &Delivery| delivery.position.map_or(0, |position| position.clock);
    let ends = page.deliveries.last().map_or(page.clock, clock);
    if page.more && after >= ends {
        return None;
    }
    // From the first that is kept on nothing is missing; before it, only who asked for just that is told.
    let kept_from = page.deliveries.first().map_or(page.clock, clock);
    if !page.whole && after != from && after < kept_from {
        return None;
    }
    let mut part = page.clone();
    part.deliveries.retain(|delivery| clock(delivery) > after);
    part.whole |= after > from && after >= kept_from;
    Some(part)
}

/// How long a reading of a topic serves all who ask meanwhile.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Topics that are read at a time for who comes back.
const READS: usize = 32;
