//! A node's engine: what transports attach to and applications publish through.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::clock;
use super::command::Commands;
use super::dispatcher::{BusAway, Dispatcher, Wish};
use super::gate::Gate;
use super::handler::{Handler, NoHandler};
use super::link::Link;
use super::mailbox::SubmitError;
use super::observer::{Event, Observer, Observing};
use super::outbox::Outbox;
use super::serve::Attachment;
use super::shard::{Shard, ShardHandle, Slot};
use super::spawn::{client_id, spawn};
use super::types::{
    AttachError, ConnectOptions, PublishError, RoomInfo, StartError, Stats, UserInfo,
};
use crate::{
    Action, AuthError, Authenticator, Authorizer, Bus, BusError, ClientId, CloseReason,
    ConnectRequest, ConnectionKey, Denied, GapReason, Identity, Limits, NodeId, Outgoing,
    Publication, Receipt, RoomId, Scope, TenantId, Topic, TransportInfo, UserId,
};

/// One node. Cloning it gives another handle to the same node.
#[derive(Clone)]
pub struct Hub(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: Limits,
    pub(crate) observer: Observing,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) wishes: mpsc::UnboundedSender<Wish>,
    pub(crate) commands: Arc<Commands>,
    node: NodeId,
    framings: Mutex<Vec<&'static str>>,
    next_shard: AtomicUsize,
    bus_up: Arc<AtomicBool>,
    pub(crate) draining: AtomicBool,
    pub(crate) gate: Mutex<Gate>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("bus", &self.0.bus).finish_non_exhaustive()
    }
}

/// Puts a hub together.
#[derive(Debug)]
pub struct HubBuilder {
    bus: Arc<dyn Bus>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    handler: Arc<dyn Handler>,
    limits: Limits,
    observer: Observing,
    shards: usize,
    node: Option<NodeId>,
}

impl HubBuilder {
    /// The application's handler; without one every message of its own is `unknown_type`.
    #[must_use]
    pub fn handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handler = handler;
        self
    }

    /// What the node grants.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What this node is called among the others; random by default. No two nodes may have one name.
    #[must_use]
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Who is told what happens on the node; without one, nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observing::with(observer);
        self
    }

    /// How many shards there are; best one per worker thread, which is the default.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards.max(1);
        self
    }

    /// Connects to the bus and starts the node on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when the bus cannot be reached.
    pub async fn start(self) -> Result<Hub, StartError> {
        let mut links = Vec::new();
        for partition in 0..self.bus.partitions() {
            let link = self.bus.connect(partition).await.map_err(StartError::Bus)?;
            links.push(Link::new(self.bus.clone(), partition, link, self.observer.clone()));
        }
        let (wishes, wished) = mpsc::unbounded_channel();
        let shards: Vec<_> = (0..self.shards)
            .map(|n| Shard::new(n, wishes.clone(), self.limits.heartbeat, self.observer.clone()))
            .collect();
        let handles: Vec<_> = shards.iter().map(Shard::handle).collect();
        let bus_up = Arc::new(AtomicBool::new(true));
        let Limits { inbox_bytes, message_bytes, .. } = self.limits;
        let (bus, up) = (self.bus.clone(), bus_up.clone());
        let commands = Arc::new(Commands::new(bus.clone(), handles.clone(), message_bytes));
        let dispatcher =
            Dispatcher::new(bus, links, handles.clone(), commands.clone(), wished, up, inbox_bytes);
        spawn(dispatcher.run());
        for shard in shards {
            spawn(shard.run());
        }
        let node = self.node.unwrap_or_else(random_node);
        let gate = Mutex::new(Gate::new(clock::monotonic(), &self.limits));
        let hub = Hub(Arc::new(Inner {
            bus: self.bus,
            authenticator: self.authenticator,
            authorizer: self.authorizer,
            handler: self.handler,
            limits: self.limits,
            observer: self.observer,
            shards: handles,
            wishes,
            commands,
            node,
            framings: Mutex::default(),
            next_shard: AtomicUsize::new(0),
            bus_up,
            draining: AtomicBool::new(false),
            gate,
        }));
        // When the bus goes away just now, the wish stands and is fulfilled once it is back.
        let _ = hub.want(0, vec![hub.0.commands.topic()]).await;
        Ok(hub)
    }
}

impl Hub {
    /// A node on a bus. Who clients are and what they may do must be said: there is no open door by default.
    pub fn builder(
        bus: Arc<dyn Bus>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
    ) -> HubBuilder {
        let shards = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (handler, limits) = (Arc::new(NoHandler), Limits::default());
        let (observer, node) = (Observing::default(), None);
        HubBuilder { bus, authenticator, authorizer, handler, limits, observer, shards, node }
    }

    /// What this node is called among the others.
    pub fn node_id(&self) -> &NodeId {
        &self.0.node
    }

    /// What this node grants.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Who sent a request, within `handshake_deadline`.
    ///
    /// # Errors
    /// [`AuthError`]; `Unavailable` when the authenticator did not answer in time.
    pub async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let asked = self.0.authenticator.authenticate(request);
        let answer = timeout(self.0.limits.handshake_deadline, asked).await;
        let answer =
            answer.unwrap_or_else(|_| Err(AuthError::Unavailable("no answer in time".to_owned())));
        self.0.observer.on(Event::Authenticated { outcome: answer.as_ref().map(drop) });
        answer
    }

    pub(crate) async fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        let answer =
            timeout(self.0.limits.handshake_deadline, self.0.authorizer.authorize(who, action))
                .await;
        answer.unwrap_or(Err(Denied::Unavailable))
    }

    /// Takes a connection in: from now on it is in its topics, and `connected` waits for it.
    ///
    /// # Errors
    /// [`AttachError`]: nothing was attached.
    pub async fn attach(
        &self,
        identity: Identity,
        options: ConnectOptions,
        info: TransportInfo,
    ) -> Result<Attachment, AttachError> {
        let attached = self.try_attach(identity, options, info).await;
        if let Err(error) = &attached {
            self.0.observer.on(Event::Refused { error: *error });
        }
        attached
    }

    async fn try_attach(
        &self,
        identity: Identity,
        options: ConnectOptions,
        info: TransportInfo,
    ) -> Result<Attachment, AttachError> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err(AttachError::Draining);
        }
        let client = client_id();
        let tenant = &identity.tenant;
        let topics = [
            Topic::user(tenant.clone(), identity.user.clone()),
            Topic::client(tenant.clone(), client),
            Topic::everyone(tenant.clone()),
        ];
        let number = self.0.next_shard.fetch_add(1, Ordering::Relaxed) % self.0.shards.len();
        let shard = self.0.shards[number].clone();
        let wished = self.want(number, topics.to_vec()).await;
        let max = self.0.limits.connections_per_user;
        let refused = match wished {
            Err(BusAway) => Some(AttachError::BusAway),
            Ok(before) if max > 0 && before >= max => Some(AttachError::TooMany),
            Ok(_) => None,
        };
        if let Some(error) = refused {
            for topic in topics {
                self.give_up(number, topic);
            }
            return Err(error);
        }
        let heartbeat = self.0.limits.heartbeat.as_millis() as u64;
        let mut first = vec![Outgoing::connected(client, &identity, heartbeat, false)];
        if options.cursor.is_some() {
            first.push(Outgoing::gap(None, GapReason::Cursor));
            self.0.observer.on(Event::Gap { reason: GapReason::Cursor, connections: 1 });
        }
        let outbox = Arc::new(Outbox::new(self.0.limits.outbox_bytes, clock::monotonic()));
        let slot = Slot::new(
            outbox.clone(),
            client,
            &identity,
            &info,
            self.framing_number(info.framing.id),
        );
        let key = shard.ask(move |members| members.attach(slot, &topics, &first)).await;
        let key: ConnectionKey = key.ok_or(AttachError::Draining)?;
        Ok(Attachment::new(
            self.clone(),
            number,
            key,
            client,
            Arc::new(identity),
            outbox,
            options,
            info,
        ))
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// [`PublishError`] says whether to mend the message or to try again.
    pub async fn publish(&self, publication: Publication) -> Result<Receipt, PublishError> {
        let begun = clock::monotonic();
        let published = match self.check(&publication) {
            Ok(()) => self.hand_to_bus(publication).await,
            Err(error) => Err(error),
        };
        let (outcome, took) = (published.as_ref().map(drop), clock::monotonic() - begun);
        self.0.observer.on(Event::Published { outcome, took });
        published
    }

    async fn hand_to_bus(&self, publication: Publication) -> Result<Receipt, PublishError> {
        let mut receipts = self.0.bus.publish(vec![publication]).await;
        let missing = || Err(BusError::Unavailable("the bus gave no answer".to_owned()));
        receipts.pop().unwrap_or_else(missing).map_err(PublishError::Bus)
    }

    fn check(&self, publication: &Publication) -> Result<(), PublishError> {
        let (bytes, limit) = (publication.message.len(), self.0.limits.message_bytes);
        match &publication.message.kind {
            kind if kind.is_reserved() => Err(PublishError::Reserved),
            _ if bytes > limit => Err(PublishError::TooLarge { bytes, limit }),
            _ => Ok(()),
        }
    }

    /// Hands a client message of `who` to its connection, on whatever node that is, and waits for the
    /// verdict; the answer comes on the connection. For connections with a [`Mailbox`](crate::Mailbox).
    ///
    /// # Errors
    /// [`SubmitError`], each with its HTTP status. After `Unavailable` the message may have been taken or not.
    pub async fn submit(
        &self,
        client: ClientId,
        who: &Identity,
        message: Bytes,
    ) -> Result<(), SubmitError> {
        self.0.commands.submit(client, who, message).await
    }

    /// Ends the connections of a user or a client on all nodes; answers how many there were. Nodes that do not
    /// answer within 2 s, or cannot be reached since the bus is away, are not counted.
    pub async fn disconnect(&self, topic: Topic, reason: CloseReason) -> usize {
        self.0.commands.disconnect(&topic, &reason).await
    }

    /// Takes no further connections and ends all there are; returns when they are gone, or after twice `close_deadline`.
    pub async fn shutdown(&self, reason: CloseReason) {
        self.0.draining.store(true, Ordering::Release);
        let deadline = clock::monotonic() + self.0.limits.close_deadline * 2;
        loop {
            let mut left = 0;
            for shard in &self.0.shards {
                let reason = reason.clone();
                let ended = shard.ask(move |members| {
                    members.router.iter().for_each(|(_, slot)| slot.outbox.end(reason.clone()));
                    members.router.len()
                });
                left += ended.await.unwrap_or(0);
            }
            if left == 0 || clock::monotonic() > deadline {
                return;
            }
            tokio::time::sleep(SHUTDOWN_POLL).await;
        }
    }

    /// Whether this node can serve: the bus is there and it is not going away.
    pub fn is_ready(&self) -> bool {
        self.0.bus_up.load(Ordering::Acquire) && !self.0.draining.load(Ordering::Acquire)
    }

    /// Whether this node is going away.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether the bus is there.
    pub fn is_bus_up(&self) -> bool {
        self.0.bus_up.load(Ordering::Acquire)
    }

    /// What this node holds now.
    pub async fn stats(&self) -> Stats {
        let mut stats = Stats {
            users: self.users().await.len(),
            rooms: self.rooms().await.len(),
            ..Stats::default()
        };
        for shard in &self.0.shards {
            let slots = shard.ask(|members| {
                let slots =
                    members.router.iter().map(|(_, s)| (s.transport(), s.outbox.queued_bytes()));
                slots.collect::<Vec<_>>()
            });
            for (transport, bytes) in slots.await.unwrap_or_default() {
                *stats.connections.entry(transport).or_default() += 1;
                stats.queued_bytes += bytes;
            }
        }
        stats
    }

    /// The rooms of this node, sorted by tenant and name.
    pub async fn rooms(&self) -> Vec<RoomInfo> {
        let mut rooms: BTreeMap<(TenantId, RoomId), (usize, HashSet<UserId>)> = BTreeMap::new();
        for (topic, clients) in self.members().await {
            if let Scope::Room(room) = topic.scope {
                let entry = rooms.entry((topic.tenant, room)).or_default();
                entry.0 += clients.len();
                entry.1.extend(clients);
            }
        }
        let info = |((tenant, room), (connections, users)): (_, (_, HashSet<_>))| RoomInfo {
            tenant,
            room,
            connections,
            users: users.len(),
        };
        rooms.into_iter().map(info).collect()
    }

    /// The users of this node, sorted by tenant and name.
    pub async fn users(&self) -> Vec<UserInfo> {
        let mut users: BTreeMap<(TenantId, UserId), (usize, HashSet<RoomId>)> = BTreeMap::new();
        for (topic, clients) in self.members().await {
            match topic.scope {
                Scope::User(user) => {
                    users.entry((topic.tenant, user)).or_default().0 += clients.len()
                }
                Scope::Room(room) => clients.into_iter().for_each(|user| {
                    users.entry((topic.tenant.clone(), user)).or_default().1.insert(room.clone());
                }),
                Scope::Client(_) | Scope::Everyone => {}
            }
        }
        let info = |((tenant, user), (connections, rooms)): (_, (_, HashSet<_>))| UserInfo {
            tenant,
            user,
            connections,
            rooms: rooms.len(),
        };
        users.into_iter().map(info).collect()
    }

    /// The topics of this node, each with the user of each of its connections.
    async fn members(&self) -> Vec<(Topic, Vec<UserId>)> {
        let mut all = Vec::new();
        for shard in &self.0.shards {
            let topics = shard.ask(|members| {
                let router = &members.router;
                let users = |topic| {
                    router
                        .members(topic)
                        .filter_map(|s| router.at(s))
                        .map(|s| s.user.clone())
                        .collect()
                };
                router.topics().map(|topic| (topic.clone(), users(topic))).collect::<Vec<_>>()
            });
            all.extend(topics.await.unwrap_or_default());
        }
        all
    }

    /// Says that a connection of a shard will be in these topics, and waits until they are subscribed.
    pub(crate) async fn want(&self, shard: usize, topics: Vec<Topic>) -> Result<usize, BusAway> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.wishes.send(Wish::Want { topics, shard, answer });
        answered.await.unwrap_or(Err(BusAway))
    }

    pub(crate) fn give_up(&self, shard: usize, topic: Topic) {
        let _ = self.0.wishes.send(Wish::Drop { topic, shard });
    }

    fn framing_number(&self, id: &'static str) -> usize {
        let mut framings = self.0.framings.lock().unwrap_or_else(PoisonError::into_inner);
        framings.iter().position(|known| *known == id).unwrap_or_else(|| {
            framings.push(id);
            framings.len() - 1
        })
    }
}

fn random_node() -> NodeId {
    NodeId::new(client_id().to_string()).expect("32 digits are a name")
}

/// How often a shutdown looks whether all are gone.
const SHUTDOWN_POLL: std::time::Duration = std::time::Duration::from_millis(20);
