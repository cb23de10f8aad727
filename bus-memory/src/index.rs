//! Who listens to what: topic to links and back, so that a publish costs its listeners only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::Waker;

use tidings_core::{Delivery, Topic};

use crate::queue::{Pushed, Queue};

#[derive(Debug, Default)]
pub(crate) struct Index {
    links: HashMap<u64, Link>,
    /// A list, since listeners are nodes and these are few.
    by_topic: HashMap<Topic, Vec<(u64, Arc<Queue>)>>,
    next_id: u64,
}

#[derive(Debug)]
struct Link {
    queue: Arc<Queue>,
    topics: HashSet<Topic>,
}

impl Index {
    pub(crate) fn insert(&mut self, queue: Arc<Queue>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.links.insert(id, Link { queue, topics: HashSet::new() });
        id
    }

    /// Forgets a link; its queue is not touched.
    pub(crate) fn remove(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else { return };
        for topic in &link.topics {
            self.forget(id, topic);
        }
    }

    /// Forgets all links and answers their queues.
    pub(crate) fn remove_all(&mut self) -> Vec<Arc<Queue>> {
        self.by_topic.clear();
        self.links.drain().map(|(_, link)| link.queue).collect()
    }

    /// `None` when the link is gone.
    pub(crate) fn subscribe(&mut self, id: u64, topics: &[Topic]) -> Option<()> {
        let link = self.links.get_mut(&id)?;
        for topic in topics {
            if link.topics.insert(topic.clone()) {
                let listeners = self.by_topic.entry(topic.clone()).or_default();
                listeners.push((id, Arc::clone(&link.queue)));
            }
        }
        Some(())
    }

    /// `None` when the link is gone.
    pub(crate) fn unsubscribe(&mut self, id: u64, topics: &[Topic]) -> Option<()> {
        for topic in topics {
            if self.links.get_mut(&id)?.topics.remove(topic) {
                self.forget(id, topic);
            }
        }
        self.links.contains_key(&id).then_some(())
    }

    /// Queues a delivery for each listener of its topic and answers how many have it. The wakers are
    /// the caller's to wake once it holds no lock. A link that is full ends here.
    pub(crate) fn hand_out(&mut self, delivery: &Delivery, wakers: &mut Vec<Waker>) -> u32 {
        let Some(listeners) = self.by_topic.get(&delivery.topic) else { return 0 };
        let mut handed = 0;
        let mut full = Vec::new();
        for (id, queue) in listeners {
            let (pushed, waker) = queue.push(delivery.clone());
            wakers.extend(waker);
            match pushed {
                Pushed::Queued => handed += 1,
                Pushed::Full => full.push(*id),
            }
        }
        for id in full {
            self.remove(id);
        }
        handed
    }

    fn forget(&mut self, id: u64, topic: &Topic) {
        let Some(listeners) = self.by_topic.get_mut(topic) else { return };
        listeners.retain(|(listener, _)| *listener != id);
        if listeners.is_empty() {
            self.by_topic.remove(topic);
        }
    }
}
