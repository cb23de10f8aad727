//! Ways to break a node on purpose, so that tests can prove that they would notice. A normal build has none of them:
//! they need the feature `sabotage` and, besides, the name of one in the environment.

use crate::machines::Positions;
use crate::{Delivery, GapReason, HistoryPage, Topic, Tops};

/// Nothing that is missing is read.
pub(crate) const NO_REPAIR: &str = "no-repair";
/// Nobody looks whether a last message was lost.
pub(crate) const NO_TOP_CHECK: &str = "no-top-check";
/// What is live is sent at once, before what is replayed.
pub(crate) const LIVE_DURING_REPLAY: &str = "live-during-replay";

/// Whether `TIDINGS_SABOTAGE` names this one.
#[cfg(feature = "sabotage")]
pub(crate) fn is(name: &str) -> bool {
    static NAMED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("TIDINGS_SABOTAGE").ok());
    NAMED.as_deref() == Some(name)
}

/// Whether `TIDINGS_SABOTAGE` names this one: never in this build.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn is(_: &str) -> bool {
    false
}

/// A repair that finds nothing and says that all is well.
pub(crate) fn page(page: &mut HistoryPage) {
    if is(NO_REPAIR) {
        (page.deliveries, page.whole, page.more) = (Vec::<Delivery>::new(), true, false);
    }
}

/// A look that finds nothing new in the topics whose place is known.
pub(crate) fn tops(topics: &[Topic], tops: &mut Tops, positions: &Positions) {
    if is(NO_TOP_CHECK) {
        for (topic, top) in topics.iter().zip(&mut tops.tops) {
            if positions.is_ready(topic) {
                *top = Default::default();
            }
        }
    }
}

/// Whether the members are not told that something may be missing.
pub(crate) fn hides(reason: GapReason) -> bool {
    is(NO_REPAIR) && reason == GapReason::Outage
}
