//! Who is where on this node, claimed on the bus: rooms whose presence is shown, and users whose connections count.
//!
//! One task per partition of the bus owns its part, so that a partition that is away costs its own claims alone. It
//! states what changed, keeps a lease, ends the claims of leases that ran out, and publishes who came and who left.
//! Claims are level-triggered: what could not be claimed is claimed later. A lease is of this run of the node and never
//! lives again: where it ran out, or the store may have lost something, another one is begun and all is claimed again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::{replace, take};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::attendance::Departure;
use super::clock;
use super::spawn::{client_id, jitter};
use crate::{
    Bus, BusError, Claim, Except, LeaseId, Message, NodeId, Publication, Scope, Tally, Topic,
    UserId,
};

pub(super) type Who = (Topic, UserId);
type Waiting = oneshot::Sender<Option<Tally>>;

/// What a task is told.
pub(super) enum Change {
    Come(Who),
    Count(Who, oneshot::Sender<u32>),
    Leave(Who, Departure),
    Ask(Who, Waiting),
}

/// The task of one partition before it runs.
pub(crate) struct Attendant {
    bus: Arc<dyn Bus>,
    partition: u16,
    node: NodeId,
    lease: LeaseId,
    /// Before the lease has begun nothing is claimed.
    has_begun: bool,
    linger: Duration,
    changes: mpsc::UnboundedReceiver<Change>,
    here: HashMap<Who, Here>,
    /// Whose claim may differ from what is here; those that somebody waits for are in front.
    dirty: VecDeque<Who>,
    /// Those of them that have not been looked at; others in `dirty` are passed over.
    queued: HashSet<Who>,
    /// Whose connection to a room was lost, and when that counts.
    lingering: VecDeque<(Duration, Who)>,
}

#[derive(Default)]
struct Here {
    connections: u32,
    claim: Held,
    lost_at: Duration,
    /// A connection was lost and may be back in time, so that it counts as there.
    lingers: bool,
    /// It has left the room: that is claimed before it comes again, so that both are told.
    has_left: bool,
    waiting: Vec<Waiting>,
}

/// What the store holds of a user under the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Sure(u32),
    /// The store may have forgotten it, or a claim was not answered.
    Unsure {
        /// The claim was of a user that came, so that nobody may have been told.
        came: bool,
    },
}

impl Default for Held {
    fn default() -> Self {
        Self::Sure(0)
    }
}

/// Claims under way.
struct Claiming {
    lease: LeaseId,
    claims: Vec<Claim>,
    answer: BoxFuture<'static, Result<Option<Vec<Tally>>, BusError>>,
}

impl Attendant {
    pub(super) fn new(
        bus: &Arc<dyn Bus>,
        partition: u16,
        node: &NodeId,
        linger: Duration,
        changes: mpsc::UnboundedReceiver<Change>,
    ) -> Self {
        Self {
            bus: bus.clone(),
            partition,
            node: node.clone(),
            lease: lease_of(node),
            has_begun: false,
            linger,
            changes,
            here: HashMap::new(),
            dirty: VecDeque::new(),
            queued: HashSet::new(),
            lingering: VecDeque::new(),
        }
    }

    /// Runs until nobody has a handle.
    pub(crate) async fn run(mut self) {
        let mut renewals = interval(RENEW_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claiming: Option<Claiming> = None;
        let mut keeping: Option<BoxFuture<'static, Kept>> = None;
        let mut rest: Option<BoxFuture<'static, ()>> = None;
        loop {
            if claiming.is_none() && self.has_begun {
                claiming = self.next_claims(rest.is_some());
            }
            let due =
                self.lingering.front().map(|&(due, _)| due.saturating_sub(clock::monotonic()));
            tokio::select! {
                biased;
                answer = under_way(claiming.as_mut().map(|claiming| &mut claiming.answer)) => {
                    let Some(Claiming { lease, claims, .. }) = claiming.take() else { continue };
                    match answer {
                        Ok(Some(tallies)) if lease == self.lease => self.claimed(claims, tallies).await,
                        Ok(_) => {
                            self.failed(claims);
                            if lease == self.lease {
                                self.begin_anew();
                                renewals.reset_immediately();
                            }
                        }
                        Err(_) => {
                            self.failed(claims);
                            rest = Some(sleep(jitter(REST)).boxed());
                        }
                    }
                }
                () = under_way(rest.as_mut()) => rest = None,
                change = self.changes.recv() => match change {
                    Some(change) => self.changed(change),
                    None => return,
                },
                () = sleep(due.unwrap_or_default()), if due.is_some() => self.linger_ended(),
                kept = under_way(keeping.as_mut()) => {
                    keeping = None;
                    renewals.reset_after(self.kept(kept).await);
                }
                _ = renewals.tick(), if keeping.is_none() => keeping = self.keep(),
            }
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Come(who) => {
                let here = self.here.entry(who.clone()).or_default();
                here.connections += 1;
                here.lingers = false;
                self.look_at(who);
            }
            Change::Count(who, count) => {
                let _ = count.send(self.here.get(&who).map_or(0, |here| here.connections));
            }
            Change::Leave(who, departure) => self.leave(who, departure),
            Change::Ask(who, waiting) => {
                self.here.entry(who.clone()).or_default().waiting.push(waiting);
                self.queued.insert(who.clone());
                self.dirty.push_front(who);
            }
        }
    }

    fn leave(&mut self, who: Who, departure: Departure) {
        let Some(here) = self.here.get_mut(&who) else { return };
        here.connections = here.connections.saturating_sub(1);
        let is_room = who.0.as_room().is_some();
        if is_room && departure == Departure::Lost {
            // One that comes back at once has not been away.
            here.lost_at = clock::monotonic();
            here.lingers = true;
            self.lingering.push_back((here.lost_at + self.linger, who));
        } else {
            here.has_left |= is_room && here.wanted(&who.0) == 0;
            self.look_at(who);
        }
    }

    fn linger_ended(&mut self) {
        let Some((due, who)) = self.lingering.pop_front() else { return };
        let Some(here) = self.here.get_mut(&who) else { return };
        if here.lingers && here.lost_at + self.linger <= due {
            here.lingers = false;
            self.look_at(who);
        }
    }

    fn look_at(&mut self, who: Who) {
        if self.queued.insert(who.clone()) {
            self.dirty.push_back(who);
        }
    }

    /// The next claims, when there are any; while the task rests, those alone that somebody waits for.
    fn next_claims(&mut self, rests: bool) -> Option<Claiming> {
        let mut claims = Vec::new();
        while claims.len() < MAX_CLAIMS {
            let Some(who) = self.dirty.pop_front() else { break };
            let Some(here) = self.here.get_mut(&who).filter(|_| self.queued.contains(&who)) else {
                self.queued.remove(&who);
                continue;
            };
            let is_asked = here.waiting.iter().any(|waiting| !waiting.is_closed());
            if rests && !is_asked {
                self.dirty.push_front(who);
                break;
            }
            self.queued.remove(&who);
            let wanted = here.wanted(&who.0);
            let is_sure = here.claim == Held::Sure(wanted);
            let came_again = take(&mut here.has_left) && wanted > 0 && here.claim != Held::Sure(0);
            if is_sure && wanted == 0 && !is_asked {
                self.here.remove(&who);
                continue;
            }
            let (topic, user) = who;
            let claim =
                |connections| Claim { topic: topic.clone(), user: user.clone(), connections };
            if came_again {
                claims.push(claim(0));
            }
            if came_again || is_asked || !is_sure {
                claims.push(claim(wanted));
            }
        }
        if claims.is_empty() {
            return None;
        }
        let (bus, partition) = (self.bus.clone(), self.partition);
        let (lease, of, under) = (self.lease.clone(), claims.clone(), self.lease.clone());
        let answer = async move {
            match bus.presence() {
                Some(presence) => presence.claim(partition, &under, &of).await,
                None => Ok(None),
            }
        };
        Some(Claiming { lease, claims, answer: answer.boxed() })
    }

    /// Takes in what was claimed, and tells the rooms.
    async fn claimed(&mut self, claims: Vec<Claim>, tallies: Vec<Tally>) {
        let mut events = Vec::new();
        for (claim, tally) in claims.into_iter().zip(tallies) {
            let connections = claim.connections;
            let who = (claim.topic, claim.user);
            let Some(here) = self.here.get_mut(&who) else { continue };
            here.answer(Some(tally));
            let before = replace(&mut here.claim, Held::Sure(connections));
            events.extend(change(before, connections, tally).and_then(|kind| event(kind, &who)));
            // One that is not here is looked at once more, and then forgotten.
            if here.claim != Held::Sure(here.wanted(&who.0)) || here.connections == 0 {
                self.look_at(who);
            }
        }
        self.tell(events).await;
    }

    /// Claims that were not answered, or made under another lease.
    fn failed(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            let who = (claim.topic, claim.user);
            let Some(here) = self.here.get_mut(&who) else { continue };
            here.answer(None);
            let came = match here.claim {
                Held::Sure(held) => held == 0 && claim.connections > 0,
                Held::Unsure { came } => came,
            };
            here.claim = Held::Unsure { came };
            here.has_left |= claim.connections == 0 && who.0.as_room().is_some();
            self.look_at(who);
        }
    }

    /// Under another lease, since nothing of what was claimed under the last one can be relied on.
    fn begin_anew(&mut self) {
        self.lease = lease_of(&self.node);
        self.has_begun = false;
        for here in self.here.values_mut() {
            if matches!(here.claim, Held::Sure(1..)) {
                here.claim = Held::Unsure { came: false };
            }
        }
        let all: Vec<_> = self.here.keys().cloned().collect();
        all.into_iter().for_each(|who| self.look_at(who));
    }

    /// Begins or renews the lease, and ends those that have run out.
    fn keep(&self) -> Option<BoxFuture<'static, Kept>> {
        let (bus, partition, lease) = (self.bus.clone(), self.partition, self.lease.clone());
        let has_begun = self.has_begun;
        let keeping = async move {
            let Some(presence) = bus.presence() else { return std::future::pending().await };
            let lives = match has_begun {
                true => presence.renew(partition, &lease, LEASE).await,
                false => presence.begin(partition, &lease, LEASE).await.map(|()| true),
            };
            let gone = presence.expire(partition).await.unwrap_or_default();
            Kept { lease, lives, gone }
        };
        Some(keeping.boxed())
    }

    /// Returns how long to wait before the lease is seen to again.
    async fn kept(&mut self, Kept { lease, lives, gone }: Kept) -> Duration {
        self.tell(gone.iter().filter_map(|who| event("presence:left", who)).collect()).await;
        if lease != self.lease {
            return Duration::ZERO;
        }
        match lives {
            Ok(true) => self.has_begun = true,
            Ok(false) => {
                self.begin_anew();
                return Duration::ZERO;
            }
            Err(_) if !self.has_begun => {
                // A partition that is away holds nobody up.
                self.here.values_mut().for_each(|here| here.answer(None));
                return jitter(REST);
            }
            // What was claimed still holds, and a lease that did not is found at the next renewal.
            Err(_) => {}
        }
        // There may be more: what one call ends is bounded.
        if gone.is_empty() { RENEW_EVERY } else { Duration::ZERO }
    }

    /// What is lost here is seen by who joins next: the list of members is read from the bus.
    async fn tell(&self, events: Vec<Publication>) {
        if !events.is_empty() {
            let _ = self.bus.publish(events).await;
        }
    }
}

impl Here {
    fn answer(&mut self, tally: Option<Tally>) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(tally);
        }
    }

    /// What is to be claimed: of a room whether the user is in it, of a user how many connections there are.
    fn wanted(&self, topic: &Topic) -> u32 {
        match topic.scope {
            Scope::Room(_) => (self.connections > 0 || self.lingers).into(),
            _ => self.connections,
        }
    }
}

/// What became of a lease, and the users that are gone with others.
struct Kept {
    lease: LeaseId,
    lives: Result<bool, BusError>,
    gone: Vec<Who>,
}

/// A name that no other lease has: of the node, and a random part.
fn lease_of(node: &NodeId) -> LeaseId {
    let node: String = node.as_str().chars().take(LEASE_NODE_CHARACTERS).collect();
    LeaseId::new(format!("{node}:{}", client_id())).expect("it is neither long nor empty")
}

/// What a claim did, for who is to be told; rather twice than never.
fn change(held: Held, connections: u32, tally: Tally) -> Option<&'static str> {
    let alone = tally.after == u64::from(connections);
    match (held, tally.before, tally.after) {
        (_, 0, 1..) => Some("presence:joined"),
        (Held::Unsure { came: true }, _, 1..) if alone => Some("presence:joined"),
        (_, 1.., 0) => Some("presence:left"),
        // The store had forgotten it already.
        (Held::Sure(1..) | Held::Unsure { .. }, 0, 0) => Some("presence:left"),
        _ => None,
    }
}

/// `presence:joined` or `presence:left`, for everybody in the room but the user.
fn event(kind: &str, (topic, user): &Who) -> Option<Publication> {
    let room = topic.as_room()?;
    let payload = serde_json::json!({ "roomId": room.as_str(), "userId": user.as_str() });
    let message = Message::of(kind, &payload).ok()?;
    Some(Publication::new(topic.clone(), message).except(Except::User(user.clone())))
}

async fn under_way<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// How long claims outlive the last renewal; with [`RENEW_EVERY`] a dead node's users are gone within 60 s.
const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Most claims of one call.
const MAX_CLAIMS: usize = 500;
/// How long to wait, about, after claims or a lease that were not taken.
const REST: Duration = Duration::from_millis(250);
/// Characters of the node's name in that of its leases, which may have 255 bytes.
const LEASE_NODE_CHARACTERS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_have_heard_is_told() {
        let told =
            |held, connections, before, after| change(held, connections, Tally { before, after });
        let (sure, forgotten) = (Held::Sure, Held::Unsure { came: false });
        let unanswered = Held::Unsure { came: true };
        let (joined, left) = (Some("presence:joined"), Some("presence:left"));
        assert_eq!(told(sure(0), 1, 0, 1), joined);
        assert_eq!(told(sure(0), 1, 1, 2), None, "another node has told it");
        assert_eq!(told(unanswered, 1, 1, 1), joined, "the claim was made, and its answer lost");
        assert_eq!(told(unanswered, 1, 2, 2), None, "another node had told it, or will");
        assert_eq!(told(forgotten, 1, 1, 1), None);
        assert_eq!(told(forgotten, 1, 0, 1), joined);
        assert_eq!(told(sure(1), 0, 1, 0), left);
        assert_eq!(told(sure(1), 0, 2, 1), None);
        assert_eq!(told(sure(1), 0, 0, 0), left, "the store forgot it before the user left");
        assert_eq!(told(unanswered, 0, 0, 0), left);
        assert_eq!(told(sure(0), 0, 0, 0), None, "a question alone");
    }
}
