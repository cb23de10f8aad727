//! How a connection is taken in: who it is, its place in its topics, and that it is not one too many.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::attendance::{Attendance, Departure};
use super::clock;
use super::hub::Hub;
use super::observer::Event;
use super::outbox::Outbox;
use super::routed::Receiver;
use super::serve::Attachment;
use super::slot::Slot;
use super::spawn::{client_id, spawn};
use super::types::{AttachError, ConnectError, ConnectOptions};
use super::wish::BusAway;
use crate::machines::ConnectionKey;
use crate::{ConnectRequest, Identity, Outgoing, Topic, TransportInfo, UserId};

impl Hub {
    /// Takes in who sent a request, as [`authenticate`](Self::authenticate) and [`attach`](Self::attach) do with what
    /// the request asks for, both together within `handshake_deadline`.
    ///
    /// # Errors
    /// [`ConnectError`]: nothing was attached.
    pub async fn connect(
        &self,
        request: &ConnectRequest,
        info: TransportInfo,
    ) -> Result<Attachment, ConnectError> {
        let connecting = async {
            let identity = self.identify(request).await.map_err(ConnectError::Auth)?;
            let attached = self.take_in(identity, ConnectOptions::of(request), info).await;
            attached.map_err(ConnectError::Attach)
        };
        let connected = timeout(self.0.limits.handshake_deadline, connecting).await;
        connected.unwrap_or_else(|_| Err(ConnectError::Attach(self.too_late())))
    }

    /// Takes a connection in, within `handshake_deadline`: from now on it is in its topics, and `connected` waits for it.
    ///
    /// # Errors
    /// [`AttachError`]: nothing was attached.
    pub async fn attach(
        &self,
        identity: Identity,
        options: ConnectOptions,
        info: TransportInfo,
    ) -> Result<Attachment, AttachError> {
        let attached = self.take_in(identity, options, info);
        let attached = timeout(self.0.limits.handshake_deadline, attached).await;
        attached.unwrap_or_else(|_| Err(self.too_late()))
    }

    fn too_late(&self) -> AttachError {
        let error = AttachError::TimedOut;
        self.0.observer.on(Event::Refused { error });
        error
    }

    /// Takes a connection in, in a task of its own: whoever asks may go away in the middle, and what was begun must
    /// still be undone.
    async fn take_in(
        &self,
        identity: Identity,
        options: ConnectOptions,
        info: TransportInfo,
    ) -> Result<Attachment, AttachError> {
        let (hub, (answer, answered)) = (self.clone(), oneshot::channel());
        spawn(async move {
            let _ = answer.send(hub.try_attach(identity, options, info).await);
        });
        let attached = answered.await.unwrap_or_else(|_| {
            self.0.observer.on(Event::Panicked);
            Err(AttachError::Internal)
        });
        if let Err(error) = attached {
            self.0.observer.on(Event::Refused { error });
            return Err(error);
        }
        attached
    }

    async fn try_attach(
        &self,
        identity: Identity,
        options: ConnectOptions,
        info: TransportInfo,
    ) -> Result<Attachment, AttachError> {
        if self.is_draining() {
            return Err(AttachError::Draining);
        }
        if self.has_failed() {
            return Err(AttachError::Internal);
        }
        let who = Receiver {
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
            client: client_id(),
            previous: options.previous,
        };
        let topics = [
            Topic::user(who.tenant.clone(), who.user.clone()),
            Topic::client(who.tenant.clone(), who.client),
            Topic::everyone(who.tenant.clone()),
        ];
        let number = self.0.next_shard.fetch_add(1, Ordering::Relaxed) % self.0.shards.len();
        let shard = self.0.shards[number].clone();
        let wished = self.want(number, topics.to_vec()).await;
        let wished = wished.map_err(|BusAway| AttachError::BusAway)?;
        let mut counted = self.count_in(&topics[0], &who, wished.before).await?;
        // Who comes back is told `connected` once it is known what it missed.
        let resumes = self.resumes(&options);
        let heartbeat = self.0.limits.heartbeat.as_millis() as u64;
        let first =
            (!resumes).then(|| Outgoing::connected(who.client, &identity, heartbeat, false));
        let outbox = Arc::new(Outbox::new(
            self.0.limits.outbox_bytes,
            clock::monotonic(),
            self.0.counts.clone(),
        ));
        let number_of_framing = self.framing_number(info.framing.id);
        let observer = self.0.observer.clone();
        let slot = Slot::new(outbox.clone(), who.clone(), &info, number_of_framing, observer);
        let key = shard.ask(move |members| members.attach(slot, &topics, wished, first)).await;
        let key: ConnectionKey = key.ok_or(AttachError::Internal)?;
        counted.is_in = true;
        // Those who leave were counted before it came.
        if self.is_draining() {
            shard.run(move |members| members.detach(key, Departure::Left));
            return Err(AttachError::Draining);
        }
        Ok(Attachment::new(
            self.clone(),
            number,
            key,
            who,
            Arc::new(identity),
            outbox,
            options,
            info,
        ))
    }

    /// Counts a connection of a user over all nodes, or over this one while that cannot be known.
    async fn count_in<'a>(
        &'a self,
        topic: &Topic,
        who: &Receiver,
        before: usize,
    ) -> Result<Counted<'a>, AttachError> {
        let max = self.0.limits.connections_per_user;
        if max > 0 && before >= max {
            return Err(AttachError::TooMany);
        }
        let attendance = self.0.attendance.as_ref();
        attendance.inspect(|attendance| attendance.come(topic, &who.user));
        let (topic, user) = (topic.clone(), who.user.clone());
        let counted = Counted { attendance, topic, user, is_in: false };
        if max > 0
            && let Some(attendance) = attendance
            && let Some(tally) = attendance.claimed(&counted.topic, &counted.user).await
            && tally.after > max as u64
        {
            // What is claimed may be left of a node that died, or of a lease that ended: what all nodes have counts.
            match self.0.commands.count(&counted.topic).await {
                Some(connections) if connections <= max => {}
                Some(_) => return Err(AttachError::TooMany),
                None => return Err(AttachError::TooManyUnheard),
            }
        }
        Ok(counted)
    }
}

/// A connection on its way in that is counted: no longer, unless it is taken in.
struct Counted<'a> {
    attendance: Option<&'a Attendance>,
    topic: Topic,
    user: UserId,
    is_in: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(attendance) = self.attendance.filter(|_| !self.is_in) {
            attendance.leave(&self.topic, &self.user, Departure::Left);
        }
    }
}
