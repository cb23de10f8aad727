//! Pure: when another server than the present one last answered this node's publications.
//!
//! While a primary is replaced, both take what is published for a while, and nodes move from the one to the other each in
//! its own time. What a node published there when another node had moved, that one's clients never hear.

use tokio::time::Instant;

use crate::run::Run;

/// The last answers, by run.
#[derive(Debug, Default)]
pub(crate) struct Strays(Vec<(Run, Instant)>);

impl Strays {
    /// A run has answered a publication.
    pub(crate) fn answered(&mut self, run: &Run, at: Instant) {
        match self.0.iter_mut().find(|(known, _)| known == run) {
            Some((_, last)) => *last = at,
            None => self.0.push((run.clone(), at)),
        }
    }

    /// The last answer that the present run may know nothing of, unless the store was told of it.
    pub(crate) fn last(&self, present: &Run) -> Option<Instant> {
        let others = self.0.iter().filter(|(run, _)| !present.has_all_of(run));
        others.map(|(_, at)| *at).max()
    }

    /// The store was told of this last answer and all before it.
    pub(crate) fn told(&mut self, present: &Run, last: Instant) {
        self.0.retain(|(run, at)| run == present || *at > last);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::tests::run;
    use crate::spawn::now;

    #[test]
    fn what_another_run_answered_is_told_once() {
        let (old, new) = (run("old", false), run("new", false));
        let (first, later) = (now(), now() + Duration::from_secs(1));
        let mut strays = Strays::default();
        strays.answered(&old, first);
        assert_eq!((strays.last(&old), strays.last(&new)), (None, Some(first)));
        // The answer of an earlier call, taken in late.
        strays.answered(&new, later);
        strays.answered(&old, later);
        strays.told(&new, first);
        assert_eq!(strays.last(&new), Some(later));
        strays.told(&new, later);
        assert_eq!(strays.last(&new), None);
    }

    #[test]
    fn a_later_run_of_a_server_that_loses_nothing_has_all() {
        let mut strays = Strays::default();
        strays.answered(&run("old", true), now());
        assert_eq!(strays.last(&run("new", true)), None);
    }
}
