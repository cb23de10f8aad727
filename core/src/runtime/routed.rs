//! A delivery on its way to its receivers: framed at most once per framing, with the cursor that goes with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::observer::{Event, Observing};
use super::queue::Droppable;
use super::slot::gap_of;
use crate::{
    ClientId, CursorKey, Delivery, Except, Framing, GapReason, Mark, Outgoing, Position,
    SlowPolicy, TenantId, Topic, UserId,
};

pub(crate) struct Routed {
    pub(crate) topic: Topic,
    except: Option<Except>,
    message: Outgoing,
    /// Where it stands, when its topic is kept.
    pub(crate) place: Option<Place>,
    /// What becomes of it where it does not fit; `None` when the client is disconnected then.
    pub(crate) droppable: Option<Arc<Droppable>>,
    /// Only for those who asked who comes and goes.
    pub(crate) is_presence: bool,
    /// `None` where it could not be framed, nor a gap in its place.
    frames: [OnceLock<Option<Bytes>>; MAX_FRAMINGS],
    /// What it costs while it waits, in bytes.
    pub(crate) cost: usize,
}

/// Where a message stands in its topic, and the cursor of who has got it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) marks: Box<[Mark]>,
}

/// A framing with its place among those that the hub knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberedFraming {
    pub(crate) framing: Framing,
    pub(crate) number: usize,
}

impl Routed {
    /// A delivery; with the marks behind it when its topic is kept.
    pub(crate) fn new(
        delivery: Delivery,
        marks: Option<Box<[Mark]>>,
        key: Option<&CursorKey>,
        slow: SlowPolicy,
    ) -> Self {
        let cost = delivery.message.len() + ENTRY_COST;
        let Delivery { topic, message, except, position, conflation_key } = delivery;
        let droppable = match slow {
            SlowPolicy::Disconnect => None,
            policy => Some(Arc::new(Droppable::new(&topic, &message, conflation_key, policy))),
        };
        let is_presence = message.kind.as_str().starts_with("presence:");
        let mut message = Outgoing::event(message, topic.as_room().cloned());
        let place = position.zip(marks).map(|(position, marks)| Place { position, marks });
        if let (Some(place), Some(key)) = (&place, key) {
            message.cursor = Some(key.write(&topic.tenant, &place.marks).into());
        }
        let frames = Default::default();
        Self { topic, except, message, place, droppable, is_presence, frames, cost }
    }

    /// Its frame, as [`framed_or_gap`].
    pub(crate) fn frame(&self, framing: NumberedFraming, observer: &Observing) -> Option<Bytes> {
        let encode = || framed_or_gap(framing.framing, &self.message, &self.topic, observer);
        match self.frames.get(framing.number) {
            Some(frame) => frame.get_or_init(encode).clone(),
            None => encode(),
        }
    }

    /// Whether it is for a client, which may have been another one before it came back.
    pub(crate) fn is_for(&self, who: &Receiver) -> bool {
        who.gets(self.except.as_ref())
    }
}

/// What a transport makes of a message; `None` when it panics.
pub(crate) fn framed(framing: Framing, message: &Outgoing, observer: &Observing) -> Option<Bytes> {
    let frame = catch_unwind(AssertUnwindSafe(|| (framing.encode)(message))).ok();
    if frame.is_none() {
        observer.on(Event::Panicked);
    }
    frame
}

/// The same of a message of a topic, with a gap in the place of what cannot be framed.
pub(crate) fn framed_or_gap(
    framing: Framing,
    message: &Outgoing,
    topic: &Topic,
    observer: &Observing,
) -> Option<Bytes> {
    framed(framing, message, observer)
        .or_else(|| framed(framing, &gap_of(topic, GapReason::Outage), observer))
}

/// Who receives, as exclusions see it.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    pub(crate) tenant: TenantId,
    pub(crate) user: UserId,
    pub(crate) client: ClientId,
    /// Which client it was before it came back.
    pub(crate) previous: Option<ClientId>,
}

impl Receiver {
    pub(crate) fn gets(&self, except: Option<&Except>) -> bool {
        match except {
            None => true,
            Some(Except::Client(client)) => {
                *client != self.client && Some(*client) != self.previous
            }
            Some(Except::User(user)) => *user != self.user,
        }
    }
}

/// Framings of which a delivery keeps the frame; a further one is framed per receiver.
const MAX_FRAMINGS: usize = 8;
/// What an entry of an inbox costs beside its message, in bytes.
const ENTRY_COST: usize = 256;
