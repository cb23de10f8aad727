//! Who is where on this node, claimed on the bus: rooms whose presence is shown, and users whose connections count.
//!
//! One task owns it. It states what changed, keeps the node's lease, ends the claims of nodes that died, and publishes
//! who came and who left. Claims are level-triggered: what could not be claimed is claimed later, and a store that
//! lost its claims gets all of them again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::clock;
use super::command::all_nodes;
use super::spawn::jitter;
use crate::{
    Bus, BusError, Claim, Except, Limits, Message, NodeId, Publication, Scope, Tally, Topic,
    TopicRules, UserId,
};

type Who = (Topic, UserId);
type Waiting = oneshot::Sender<Option<Tally>>;

/// The way to the task, and what of a node's memberships is attended.
#[derive(Clone)]
pub(crate) struct Attendance {
    changes: mpsc::UnboundedSender<Change>,
    rules: Arc<TopicRules>,
    /// Whether the connections of users are counted.
    users: bool,
}

pub(crate) enum Change {
    Come(Who),
    Leave(Who),
    Ask(Who, Waiting),
}

impl Attendance {
    /// Whether it is told who is in a topic, or counted.
    pub(crate) fn attends(&self, topic: &Topic) -> bool {
        match topic.scope {
            Scope::Room(_) => self.rules.of(topic).presence,
            Scope::User(_) => self.users,
            Scope::Client(_) => *topic == all_nodes(),
            Scope::Everyone => false,
        }
    }

    /// A connection of the user is in the topic.
    pub(crate) fn come(&self, topic: &Topic, user: &UserId) {
        if self.attends(topic) {
            let _ = self.changes.send(Change::Come((topic.clone(), user.clone())));
        }
    }

    /// A connection of the user is no longer in the topic.
    pub(crate) fn leave(&self, topic: &Topic, user: &UserId) {
        if self.attends(topic) {
            let _ = self.changes.send(Change::Leave((topic.clone(), user.clone())));
        }
    }

    /// What the claim of a user in a topic came to, once it holds; `None` when it cannot be made now.
    pub(crate) async fn claimed(&self, topic: &Topic, user: &UserId) -> Option<Tally> {
        let (waiting, claimed) = oneshot::channel();
        let _ = self.changes.send(Change::Ask((topic.clone(), user.clone()), waiting));
        claimed.await.unwrap_or_default()
    }
}

/// The task before it runs.
pub(crate) struct Attendant {
    bus: Arc<dyn Bus>,
    node: NodeId,
    linger: Duration,
    changes: mpsc::UnboundedReceiver<Change>,
    here: HashMap<Who, Here>,
    /// Whose claim may differ from what is here.
    dirty: VecDeque<Who>,
    queued: HashSet<Who>,
    /// Who left a room, and when that is claimed.
    lingering: VecDeque<(Duration, Who)>,
}

#[derive(Default)]
struct Here {
    connections: u32,
    claim: Held,
    left_at: Duration,
    /// It left the room and may be back in time, so that it counts as there.
    lingers: bool,
    waiting: Vec<Waiting>,
}

/// What the store holds of a user for this node.
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

type Claimed = Vec<Result<Tally, BusError>>;

impl Attendant {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        node: NodeId,
        rules: Arc<TopicRules>,
        limits: &Limits,
    ) -> (Attendance, Self) {
        let (sender, changes) = mpsc::unbounded_channel();
        let (linger, users) = (limits.presence_linger, limits.connections_per_user > 0);
        let (here, dirty, queued) = (HashMap::new(), VecDeque::new(), HashSet::new());
        let lingering = VecDeque::new();
        let this = Self { bus, node, linger, changes, here, dirty, queued, lingering };
        (Attendance { changes: sender, rules, users }, this)
    }

    /// Runs until nobody has a handle.
    pub(crate) async fn run(mut self) {
        let mut renewals = interval(RENEW_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claiming: Option<(Vec<Who>, Vec<Claim>, BoxFuture<'static, Claimed>)> = None;
        let mut keeping: Option<BoxFuture<'static, Kept>> = None;
        let mut rest: Option<BoxFuture<'static, ()>> = None;
        loop {
            if claiming.is_none() && rest.is_none() {
                claiming = self.next_claims();
            }
            let due =
                self.lingering.front().map(|&(due, _)| due.saturating_sub(clock::monotonic()));
            tokio::select! {
                biased;
                claimed = under_way(claiming.as_mut().map(|(_, _, claiming)| claiming)) => {
                    let Some((who, claims, _)) = claiming.take() else { continue };
                    if self.claimed(who, &claims, claimed).await {
                        rest = Some(sleep(jitter(REST)).boxed());
                    }
                }
                () = under_way(rest.as_mut()) => rest = None,
                change = self.changes.recv() => match change {
                    Some(Change::Come(who)) => {
                        let here = self.here.entry(who.clone()).or_default();
                        (here.connections, here.lingers) = (here.connections + 1, false);
                        self.change(who);
                    }
                    Some(Change::Leave(who)) => self.leave(who),
                    Some(Change::Ask(who, waiting)) => {
                        self.here.entry(who.clone()).or_default().waiting.push(waiting);
                        self.change(who);
                    }
                    None => return,
                },
                () = sleep(due.unwrap_or_default()), if due.is_some() => self.linger_ended(),
                kept = under_way(keeping.as_mut()) => {
                    keeping = None;
                    if !kept.gone.is_empty() {
                        // There may be more: what one call ends is bounded.
                        renewals.reset_immediately();
                    }
                    self.kept(kept).await;
                }
                _ = renewals.tick(), if keeping.is_none() => {
                    keeping = Some(keep(self.bus.clone(), self.node.clone()).boxed());
                }
            }
        }
    }

    fn leave(&mut self, who: Who) {
        let Some(here) = self.here.get_mut(&who) else { return };
        here.connections = here.connections.saturating_sub(1);
        if here.connections == 0 && matches!(who.0.scope, Scope::Room(_)) {
            // Who comes back at once has not been away.
            (here.left_at, here.lingers) = (clock::monotonic(), true);
            self.lingering.push_back((here.left_at + self.linger, who));
        } else {
            self.change(who);
        }
    }

    fn linger_ended(&mut self) {
        let Some((due, who)) = self.lingering.pop_front() else { return };
        let Some(here) = self.here.get_mut(&who) else { return };
        if here.lingers && here.left_at + self.linger <= due {
            here.lingers = false;
            self.change(who);
        }
    }

    fn change(&mut self, who: Who) {
        if self.queued.insert(who.clone()) {
            self.dirty.push_back(who);
        }
    }

    /// The next claims, when there are any.
    fn next_claims(&mut self) -> Option<(Vec<Who>, Vec<Claim>, BoxFuture<'static, Claimed>)> {
        let (mut whos, mut claims) = (Vec::new(), Vec::new());
        while claims.len() < MAX_CLAIMS {
            let Some(who) = self.dirty.pop_front() else { break };
            self.queued.remove(&who);
            let Some(here) = self.here.get_mut(&who) else { continue };
            let wanted = here.wanted(&who.0);
            let is_asked = here.waiting.iter().any(|waiting| !waiting.is_closed());
            if Held::Sure(wanted) == here.claim && !is_asked {
                if wanted == 0 {
                    self.here.remove(&who);
                }
                continue;
            }
            let (topic, user) = who.clone();
            claims.push(Claim { topic, user, connections: wanted });
            whos.push(who);
        }
        if claims.is_empty() {
            return None;
        }
        let (bus, node, of) = (self.bus.clone(), self.node.clone(), claims.clone());
        let claiming = async move {
            match bus.presence() {
                Some(presence) => presence.claim(&node, LEASE, &of).await,
                None => Vec::new(),
            }
        };
        Some((whos, claims, claiming.boxed()))
    }

    /// Takes in what was claimed, and tells the rooms. Answers whether something failed.
    async fn claimed(&mut self, whos: Vec<Who>, claims: &[Claim], claimed: Claimed) -> bool {
        let (mut failed, mut events) = (false, Vec::new());
        let mut claimed = claimed.into_iter();
        for (who, claim) in whos.into_iter().zip(claims) {
            let tally = claimed.next().and_then(Result::ok);
            let Some(here) = self.here.get_mut(&who) else { continue };
            for waiting in here.waiting.drain(..) {
                let _ = waiting.send(tally);
            }
            match tally {
                None => {
                    failed = true;
                    let comes = here.claim == Held::Sure(0) && claim.connections > 0;
                    let came = comes || here.claim == Held::Unsure { came: true };
                    here.claim = Held::Unsure { came };
                }
                Some(tally) => {
                    let before = replace(&mut here.claim, Held::Sure(claim.connections));
                    events.extend(change(before, claim, tally).and_then(|kind| event(kind, &who)));
                }
            }
            if Held::Sure(here.wanted(&who.0)) != here.claim || here.connections == 0 {
                self.change(who);
            }
        }
        self.tell(events).await;
        failed
    }

    async fn kept(&mut self, kept: Kept) {
        if !kept.is_known {
            // The store was flushed, or this node was silent for too long.
            let forgotten = |here: &mut Here| match here.claim {
                Held::Sure(0) | Held::Unsure { .. } => {}
                Held::Sure(_) => here.claim = Held::Unsure { came: false },
            };
            self.here.values_mut().for_each(forgotten);
            self.here
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|who| self.change(who));
        }
        self.tell(kept.gone.iter().filter_map(|who| event("presence:left", who)).collect()).await;
    }

    /// What is lost here is seen by who joins next: the list of members is read from the bus.
    async fn tell(&self, events: Vec<Publication>) {
        if !events.is_empty() {
            let _ = self.bus.publish(events).await;
        }
    }
}

impl Here {
    /// What is to be claimed: of a room whether the user is in it, of a user how many connections there are.
    fn wanted(&self, topic: &Topic) -> u32 {
        match topic.scope {
            Scope::Room(_) => (self.connections > 0 || self.lingers).into(),
            _ => self.connections,
        }
    }
}

/// What became of the node's claims, and who is gone with other nodes.
struct Kept {
    is_known: bool,
    gone: Vec<Who>,
}

async fn keep(bus: Arc<dyn Bus>, node: NodeId) -> Kept {
    let Some(presence) = bus.presence() else { return Kept { is_known: true, gone: Vec::new() } };
    // A `false` that was not heard is not said again, so no answer counts as one: to claim twice changes nothing.
    let is_known = presence.renew(&node, LEASE).await.unwrap_or(false);
    Kept { is_known, gone: presence.expire().await.unwrap_or_default() }
}

/// What a claim did, for who is to be told; rather twice than never.
fn change(held: Held, claim: &Claim, tally: Tally) -> Option<&'static str> {
    let alone = tally.after == u64::from(claim.connections);
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
const MAX_CLAIMS: usize = 512;
/// How long to wait, about, after claims that were not taken.
const REST: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_have_heard_is_told() {
        let told = |held, connections, before, after| {
            let topic = Topic::user(crate::TenantId::default(), UserId::new("u").expect("a name"));
            let claim = Claim { topic, user: UserId::new("u").expect("a name"), connections };
            change(held, &claim, Tally { before, after })
        };
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
