//! A bus of one's own: links are bounded channels, and topics are sets beside them.
//!
//! Run with: cargo run -p tidings-examples --example custom_bus
//!
//! A bus that reaches other processes implements the same methods over a broker. That this one keeps
//! their promises is proven by `tidings_core::bus_laws!` in `examples/tests/custom_bus.rs`.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::poll_fn};
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusInterest, BusLink, Delivery, History, Hub, Message,
    Presence, Publication, Receipt, RoomId, TenantId, Topic,
};
use tokio::sync::mpsc::{Sender, channel};

/// Hubs on clones of it are the nodes of one cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelBus(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<u64, Link>,
    next_id: u64,
    away: bool,
}

/// A link ends when this is dropped: its stream gives what is queued, and then its end.
#[derive(Debug)]
struct Link {
    topics: HashSet<Topic>,
    queue: Sender<Delivery>,
}

impl ChannelBus {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bus away, or brings it back. In both cases all links end.
    pub(crate) fn set_available(&self, available: bool) {
        let mut state = self.state();
        state.away = !available;
        state.links.clear();
    }
}

#[async_trait]
impl Bus for ChannelBus {
    /// One lock over the batch gives all links one order.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let mut state = self.state();
        batch.iter().map(|publication| state.publish(publication)).collect()
    }

    fn partitions(&self) -> u16 {
        1
    }

    fn partition(&self, _topic: &Topic) -> u16 {
        0
    }

    async fn connect(&self, _partition: u16) -> Result<BusLink, BusError> {
        let (queue, mut deliveries) = channel(QUEUED);
        let mut state = self.state();
        if state.away {
            return Err(away());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.links.retain(|_, link| !link.queue.is_closed());
        state.links.insert(id, Link { topics: HashSet::new(), queue });
        Ok(BusLink {
            interest: Box::new(LinkInterest(self.clone(), id)),
            deliveries: poll_fn(move |cx| deliveries.poll_recv(cx)).map(Ok).boxed(),
        })
    }

    fn history(&self) -> Option<&dyn History> {
        None
    }

    fn presence(&self) -> Option<&dyn Presence> {
        None
    }
}

impl State {
    fn publish(&mut self, publication: &Publication) -> Result<Receipt, BusError> {
        if self.away {
            return Err(away());
        }
        let (delivery, mut links) = (Delivery::of(publication), 0);
        self.links.retain(|_, link| {
            let wanted = link.topics.contains(&delivery.topic);
            let taken = wanted && link.queue.try_send(delivery.clone()).is_ok();
            links += u32::from(taken);
            // A publisher waits for nobody: a full link ends, and core connects a new one.
            taken || !wanted
        });
        Ok(Receipt::handed_to(links))
    }
}

struct LinkInterest(ChannelBus, u64);

impl LinkInterest {
    fn change(&self, change: impl FnOnce(&mut HashSet<Topic>)) -> Result<(), BusError> {
        let mut state = self.0.state();
        change(&mut state.links.get_mut(&self.1).ok_or_else(away)?.topics);
        Ok(())
    }
}

#[async_trait]
impl BusInterest for LinkInterest {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        self.change(|wanted| wanted.extend(topics.iter().cloned()))
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        self.change(|wanted| wanted.retain(|topic| !topics.contains(topic)))
    }
}

fn away() -> BusError {
    BusError::Unavailable("its links have ended".to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = ChannelBus::default();
    let lobby = Topic::room(TenantId::default(), RoomId::new("lobby")?);
    let mut link = bus.connect(0).await?;
    link.interest.subscribe(std::slice::from_ref(&lobby)).await?;
    let hub = Hub::builder(Arc::new(bus.clone()), Arc::new(Anonymous), Arc::new(AllowAll));
    let hub = hub.start().await?;
    hub.publish(Publication::new(lobby, Message::empty("news")?)).await?;
    let delivery = link.deliveries.next().await.ok_or("the link has ended")??;
    println!("the other node hears {}", delivery.message.kind.as_str());
    bus.set_available(false);
    println!("its link has ended: {}", link.deliveries.next().await.is_none());
    Ok(())
}

/// Deliveries that wait for one link.
const QUEUED: usize = 4096;
