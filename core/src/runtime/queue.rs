//! The frames that wait for one client, and which of them may be dropped when it is too slow for all.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::{Message, SlowPolicy, Topic};

/// What is known of a frame that may be dropped.
#[derive(Debug, PartialEq)]
pub(crate) struct Droppable {
    pub(crate) topic: Topic,
    /// Of frames with the same key only the latest stays.
    pub(crate) key: Option<String>,
    pub(crate) policy: SlowPolicy,
}

impl Droppable {
    /// What is dropped of a topic under a policy. Keys matter only where the latest of each stays.
    pub(crate) fn new(
        topic: &Topic,
        message: &Message,
        key: Option<String>,
        policy: SlowPolicy,
    ) -> Self {
        let key = match policy {
            SlowPolicy::KeepLatest => Some(key.unwrap_or_else(|| message.kind.as_str().to_owned())),
            _ => None,
        };
        Self { topic: topic.clone(), key, policy }
    }
}

#[derive(Debug, Clone)]
enum Tag {
    Droppable(Arc<Droppable>),
    /// The gap in the place of what was dropped of a topic.
    Gap(Arc<Droppable>),
}

/// A queue of frames. Tags cost nothing while no frame has one.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    frames: VecDeque<Bytes>,
    /// As long as `frames`, or empty.
    tags: VecDeque<Option<Tag>>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn front(&self) -> Option<&Bytes> {
        self.frames.front()
    }

    /// The frames whose turn is next, as far as they lie in a row.
    pub(crate) fn first(&self) -> &[Bytes] {
        self.frames.as_slices().0
    }

    pub(crate) fn push(&mut self, frame: Bytes) {
        self.put(frame, None);
    }

    pub(crate) fn push_droppable(&mut self, frame: Bytes, of: Arc<Droppable>) {
        if self.tags.is_empty() {
            self.tags.resize(self.frames.len(), None);
        }
        self.put(frame, Some(Tag::Droppable(of)));
    }

    fn put(&mut self, frame: Bytes, tag: Option<Tag>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        if tag.is_some() || !self.tags.is_empty() {
            self.tags.push_back(tag);
        }
    }

    /// So many bytes of the front have left. Answers how many frames have left whole, and whether the next has begun.
    pub(crate) fn advance(&mut self, mut taken: usize) -> (u64, Option<bool>) {
        self.bytes = self.bytes.saturating_sub(taken);
        let (mut left, mut begun) = (0, None);
        while let Some(front) = self.frames.front_mut() {
            if taken < front.len() {
                if taken > 0 {
                    begun = Some(true);
                }
                front.advance(taken);
                break;
            }
            taken -= front.len();
            self.frames.pop_front();
            self.tags.pop_front();
            (left, begun) = (left + 1, Some(false));
        }
        (left, begun)
    }

    /// Only the first `keep` frames stay.
    pub(crate) fn truncate(&mut self, keep: usize) {
        self.frames.truncate(keep);
        self.tags.truncate(keep);
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }

    pub(crate) fn shrink_to(&mut self, places: usize) {
        if self.frames.capacity() > places {
            self.frames.shrink_to(places);
        }
        if self.frames.is_empty() && self.tags.capacity() > 0 {
            self.tags = VecDeque::new();
        }
    }

    /// Removes what waits with the same topic and key, but for the first `keep` frames.
    pub(crate) fn conflate(&mut self, with: &Droppable, keep: usize) {
        let same = |tag: &Option<Tag>| matches!(tag, Some(Tag::Droppable(of)) if **of == *with);
        if let Some(at) = self.tags.iter().skip(keep).position(same) {
            self.remove(keep + at);
        }
    }

    /// Drops the oldest frame that may be dropped, but for the first `keep`. `gap` makes the frame that says so in
    /// its place, unless one does already. Answers whether there was any, and it could be said.
    pub(crate) fn drop_oldest(
        &mut self,
        keep: usize,
        gap: impl Fn(&Topic) -> Option<Bytes>,
    ) -> bool {
        let oldest = self.tags.iter().skip(keep).position(
            |tag| matches!(tag, Some(Tag::Droppable(of)) if of.policy != SlowPolicy::KeepLatest),
        );
        let Some(at) = oldest.map(|at| keep + at) else { return false };
        let Some(Some(Tag::Droppable(of))) = self.tags.get(at).cloned() else { return false };
        let is_told = self
            .tags
            .iter()
            .take(at)
            .any(|tag| matches!(tag, Some(Tag::Gap(told)) if told.topic == of.topic));
        if is_told {
            self.remove(at);
        } else {
            let Some(gap) = gap(&of.topic) else { return false };
            self.bytes = self.bytes + gap.len() - self.frames[at].len();
            self.frames[at] = gap;
            self.tags[at] = Some(Tag::Gap(of));
        }
        true
    }

    fn remove(&mut self, at: usize) {
        if let Some(frame) = self.frames.remove(at) {
            self.bytes -= frame.len();
        }
        self.tags.remove(at);
    }
}
