//! A bus whose history the laws read, and what its pages must be.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::bus_laws::BusFixture;
use super::bus_node::{PAUSE, answered, in_time, publish, say};
use crate::{Bus, Delivery, History, HistoryPage, Position, Publication, Retention, Topic, Tops};

/// A bus that has history.
pub(super) struct Keeper<F> {
    pub(super) fixture: F,
    pub(super) bus: Arc<dyn Bus>,
}

impl<F: BusFixture> Keeper<F> {
    /// `None` when the fixture says that there is no history, and it is true.
    pub(super) async fn start() -> Option<Self> {
        let fixture = F::start().await;
        let bus = fixture.bus();
        assert_eq!(bus.history().is_some(), F::HISTORY, "the fixture's word is the bus's deed");
        F::HISTORY.then_some(Self { fixture, bus })
    }

    /// Publishes what must be kept and answers it as it must be delivered.
    pub(super) async fn keep(&self, batch: Vec<Publication>) -> Vec<Delivery> {
        keep(&self.bus, batch).await
    }

    pub(super) async fn after(&self, topic: &Topic, clock: u64, limit: u32) -> HistoryPage {
        let history = history(&self.bus);
        answered("after", || history.after(topic, clock, limit)).await
    }

    /// Where topics of one partition stand.
    pub(super) async fn tops(&self, topics: &[Topic]) -> Tops {
        let partition = topics.first().map_or(0, |topic| self.bus.partition(topic));
        let tops = answered("tops", || history(&self.bus).tops(partition, topics)).await;
        assert_eq!(tops.tops.len(), topics.len(), "one top per topic");
        tops
    }

    /// Of all that a topic took, exactly `all[first..]` is kept, and each page says so.
    pub(super) async fn keeps(&self, topic: &Topic, all: &[Delivery], first: usize) {
        let clocks = all.iter().map(|delivery| position(delivery).clock);
        for clock in std::iter::once(0).chain(clocks).flat_map(|clock| [clock, clock + 1]) {
            let page = self.after(topic, clock, u32::MAX).await;
            check(&page, all, first, clock, u32::MAX);
        }
    }

    /// Waits until a topic keeps nothing; meanwhile its pages are true.
    pub(super) async fn is_emptied(&self, topic: &Topic, all: &[Delivery]) {
        let emptied = async {
            loop {
                let page = self.after(topic, 0, u32::MAX).await;
                check(&page, all, all.len() - page.deliveries.len(), 0, u32::MAX);
                if page.deliveries.is_empty() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        in_time("the age of a message", emptied).await;
    }
}

/// The history of a bus that has one.
pub(super) fn history(bus: &Arc<dyn Bus>) -> &dyn History {
    bus.history().expect("every handle of the bus has its history")
}

/// Publishes what must be kept and answers it as it must be delivered.
pub(super) async fn keep(bus: &Arc<dyn Bus>, batch: Vec<Publication>) -> Vec<Delivery> {
    let receipts = publish(bus, batch.clone()).await;
    let kept = batch.iter().zip(receipts).map(|(publication, receipt)| {
        assert!(receipt.position.is_some(), "a kept message has a position: {publication:?}");
        Delivery { position: receipt.position, ..Delivery::of(publication) }
    });
    kept.collect()
}

/// What `after(clock, limit)` of a topic must be that took `all` and keeps `all[first..]`.
pub(super) fn check(page: &HistoryPage, all: &[Delivery], first: usize, clock: u64, limit: u32) {
    let is_after = |delivery: &&Delivery| position(delivery).clock > clock;
    let mut kept: Vec<_> = all[first..].iter().filter(is_after).cloned().collect();
    let more = kept.len() > limit as usize;
    kept.truncate(limit as usize);
    assert_eq!(page.deliveries, kept, "what is kept after {clock}, at most {limit}");
    assert_eq!(page.more, more, "whether {limit} ended the page after {clock}");
    let whole = !all[..first].iter().any(|delivery| is_after(&delivery));
    assert_eq!(page.whole, whole, "whether nothing after {clock} was trimmed");
    if let Some(last) = all.last().map(position) {
        assert_eq!(page.epoch, last.epoch, "the epoch of a page");
        assert!(page.clock >= last.clock, "a page is read no earlier than the call");
    }
}

/// The position of a message that must have one.
pub(super) fn position(delivery: &Delivery) -> Position {
    delivery.position.unwrap_or_else(|| panic!("a kept message has a position: {delivery:?}"))
}

/// A publication whose topic keeps up to `count` messages, long enough for any law.
pub(super) fn kept(topic: &Topic, text: &str, count: u32) -> Publication {
    say(topic, text).retention(Retention { count, age: LONG })
}

/// In which publishers and readers run at once.
pub(super) fn all_at_once<T: Send + 'static, W: Future<Output = T> + Send + 'static>(
    works: impl Iterator<Item = W>,
) -> impl Future<Output = Vec<T>> {
    let works: Vec<_> = works.map(super::script::in_background).collect();
    async {
        let results = in_time("what runs at once", futures_util::future::join_all(works)).await;
        results.into_iter().map(|result| result.expect("none fails")).collect()
    }
}

/// No law lives so long.
pub(super) const LONG: Duration = Duration::from_secs(60 * 60);
