//! Buses that misbehave in ways that the memory bus does not: they hang, or one partition floods the node.

#![cfg(feature = "testing")]
#![expect(clippy::disallowed_methods, reason = "a test serves its connections")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusInterest, BusLink, CloseReason, ConnectOptions,
    Delivery, History, Hub, Limits, Presence, Publication, Receipt, Scope, StartError, Topic,
};
use tokio::sync::watch;
use tokio::time::Instant;

use support::*;

/// What the bus does wrong now.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    ConnectHangs,
    SubscribeHangs,
    HistoryHangs,
    HistoryIsSlow,
}

/// A bus of two partitions that hangs as it is told. On the first, when `floods`, one message comes without end.
#[derive(Debug)]
struct Faulty {
    bus: MemoryBus,
    fault: watch::Sender<Fault>,
    floods: bool,
    /// Topics that are being read, and the most that were at a time.
    reading: AtomicUsize,
    most: AtomicUsize,
}

impl Faulty {
    fn new(bus: MemoryBus, floods: bool) -> Arc<Self> {
        let (reading, most) = <(AtomicUsize, AtomicUsize)>::default();
        Arc::new(Self { bus, fault: watch::channel(Fault::None).0, floods, reading, most })
    }

    /// Hangs, for whoever begins to wait now, for ever. Who hangs is a receiver.
    async fn meet(fault: &watch::Sender<Fault>, hangs: Fault) {
        if *fault.borrow() == hangs {
            let _hanging = fault.subscribe();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Bus for Faulty {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        self.bus.publish(batch).await
    }

    fn partitions(&self) -> u16 {
        if self.floods { 2 } else { 1 }
    }

    fn partition(&self, topic: &Topic) -> u16 {
        let calm = matches!(&topic.scope, Scope::Room(room) if room.as_str() == "calm");
        (self.floods && calm).into()
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        Self::meet(&self.fault, Fault::ConnectHangs).await;
        let BusLink { interest, deliveries } = self.bus.connect(0).await?;
        let interest = Box::new(Interest(interest, self.fault.clone()));
        if self.floods && partition == 0 {
            let flood = Delivery::of(&news(&room("flood"), 0));
            let flood = stream::repeat_with(move || Ok(flood.clone()));
            let both = stream::select(deliveries, flood);
            return Ok(BusLink { interest, deliveries: Box::pin(both) });
        }
        Ok(BusLink { interest, deliveries })
    }

    fn history(&self) -> Option<&dyn History> {
        self.bus.history().map(|_| self as &dyn History)
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.bus.presence()
    }
}

#[async_trait]
impl History for Faulty {
    async fn cursor_key(&self) -> Result<[u8; 16], BusError> {
        self.bus.history().expect("it is there").cursor_key().await
    }

    async fn tops(&self, partition: u16, topics: &[Topic]) -> Result<tidings_core::Tops, BusError> {
        Self::meet(&self.fault, Fault::HistoryHangs).await;
        self.bus.history().expect("it is there").tops(partition, topics).await
    }

    async fn after(
        &self,
        topic: &Topic,
        clock: u64,
        limit: u32,
    ) -> Result<tidings_core::HistoryPage, BusError> {
        Self::meet(&self.fault, Fault::HistoryHangs).await;
        if *self.fault.borrow() == Fault::HistoryIsSlow {
            self.most.fetch_max(1 + self.reading.fetch_add(1, SeqCst), SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.reading.fetch_sub(1, SeqCst);
        }
        self.bus.history().expect("it is there").after(topic, clock, limit).await
    }
}

struct Interest(Box<dyn BusInterest>, watch::Sender<Fault>);

#[async_trait]
impl BusInterest for Interest {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        Faulty::meet(&self.1, Fault::SubscribeHangs).await;
        self.0.subscribe(topics).await
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), BusError> {
        self.0.unsubscribe(topics).await
    }
}

async fn start(bus: &Arc<Faulty>) -> Result<Hub, StartError> {
    Hub::builder(bus.clone(), Arc::new(Anonymous), Arc::new(AllowAll)).shards(1).start().await
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_is_tried_again() {
    let bus = Faulty::new(MemoryBus::default(), false);
    let hub = start(&bus).await.expect("the bus is there");
    bus.fault.send_replace(Fault::ConnectHangs);
    bus.bus.cut_links();
    until(async || !hub.is_bus_up()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bus.fault.send_replace(Fault::None);
    until(async || hub.is_bus_up()).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_does_not_hang() {
    for fault in [Fault::ConnectHangs, Fault::HistoryHangs] {
        let bus = Faulty::new(MemoryBus::default(), false);
        bus.fault.send_replace(fault);
        let start_time = Instant::now();
        let error = start(&bus).await.expect_err("the bus hangs");
        assert!(matches!(error, StartError::Bus(BusError::TimedOut)), "{error:?}");
        assert_eq!(start_time.elapsed().as_secs(), Limits::default().bus_deadline.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_place_cannot_be_read_is_unavailable_in_time() {
    let bus = Faulty::new(MemoryBus::default(), false);
    let hub = start(&bus).await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    bus.fault.send_replace(Fault::HistoryHangs);
    let start_time = Instant::now();
    client.say(r#"{"type":"join:room","payload":{"roomId":"a"}}"#).await;
    assert_eq!(client.next("error").await["payload"]["code"], "unavailable");
    assert_eq!(start_time.elapsed().as_secs(), Limits::default().bus_deadline.as_secs());
    bus.fault.send_replace(Fault::None);
    client.join("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_sent_a_newer_cursor_when_it_heard_none_for_so_long() {
    let hub = start(&Faulty::new(MemoryBus::default(), false)).await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    let age = Limits::default().cursor_age;
    for n in 0..3 {
        tokio::time::sleep(age - Duration::from_secs(5)).await;
        publish(&hub, news(&everyone(), n)).await;
        client.hears(n).await;
    }
    let heard = Instant::now();
    tokio::time::sleep(age - Duration::from_secs(5)).await;
    client.next("cursor").await;
    let waited = heard.elapsed();
    assert!(waited >= age && waited < age + Duration::from_secs(10), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_hangs_is_a_lost_link() {
    let bus = Faulty::new(MemoryBus::default(), false);
    let hub = start(&bus).await.expect("the bus is there");
    bus.fault.send_replace(Fault::SubscribeHangs);
    let refused = attach(&hub, "u");
    assert!(refused.await.is_err(), "the subscription hangs");
    until(async || !hub.is_bus_up()).await;
    bus.fault.send_replace(Fault::None);
    until(async || hub.is_bus_up()).await;
    attach(&hub, "u").await.expect("the bus is there");
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_cut_while_the_bus_hangs_leaves_no_topic() {
    let bus = Faulty::new(MemoryBus::default(), false);
    let hub = start(&bus).await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    bus.fault.send_replace(Fault::SubscribeHangs);
    client.say(r#"{"type":"join:room","payload":{"roomId":"r"}}"#).await;
    until(async || bus.fault.receiver_count() > 0).await;
    assert_eq!(hub.disconnect(user("u"), CloseReason::DISCONNECTED).await, Ok(1));
    client.ended().await;
    bus.fault.send_replace(Fault::None);
    until(async || !hub.is_bus_up()).await;
    until(async || hub.is_bus_up()).await;
    let receipt = hub.publish(news(&room("r"), 0)).await.expect("the bus is there");
    assert_eq!(receipt.links, Some(0), "nobody is in the room");
}

#[tokio::test(start_paused = true)]
async fn a_question_about_the_history_that_hangs_is_asked_again() {
    let bus = Faulty::new(MemoryBus::default(), false);
    let hub = start(&bus).await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    publish(&hub, news(&room("r"), 0)).await;
    client.hears(0).await;
    bus.fault.send_replace(Fault::HistoryHangs);
    // Lost on the way; the next shows it, and has to wait for it.
    bus.bus.drop_next(1);
    publish(&hub, news(&room("r"), 1)).await;
    publish(&hub, news(&room("r"), 2)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bus.fault.send_replace(Fault::None);
    tokio::time::sleep(Limits::default().bus_deadline).await;
    client.hears(1).await;
    client.hears(2).await;
}

#[tokio::test]
async fn a_partition_that_floods_keeps_no_other_waiting() {
    let bus = Faulty::new(MemoryBus::without_history(), true);
    let hub = start(&bus).await.expect("the bus is there");
    let mut client = Client::connect(&hub, "u").await;
    client.join("calm").await;
    for n in 0..10 {
        publish(&hub, news(&room("calm"), n)).await;
        client.hears(n).await;
    }
}

#[tokio::test]
async fn clients_that_come_and_go_without_end_keep_no_message_waiting() {
    let bus = MemoryBus::default();
    let hub = hub(&bus).await;
    let mut client = Client::connect(&hub, "u").await;
    client.join("r").await;
    let (going_on, stop) = watch::channel(true);
    let herd = (0..200).map(|n| {
        let (hub, stop) = (hub.clone(), stop.clone());
        tokio::spawn(async move {
            while *stop.borrow() {
                drop(attach(&hub, &format!("herd {n}")).await);
            }
        })
    });
    let herd: Vec<_> = herd.collect();
    for n in 0..100 {
        publish(&hub, news(&room("r"), n)).await;
        client.hears(n).await;
    }
    going_on.send_replace(false);
    for one in herd {
        one.await.expect("it stops");
    }
}

/// However many come back at once, the store is asked for some topics at a time.
#[tokio::test(start_paused = true)]
async fn a_herd_that_comes_back_does_not_bury_the_store() {
    let bus = Faulty::new(MemoryBus::default(), false);
    let builder = Hub::builder(bus.clone(), Arc::new(Anonymous), Arc::new(AllowAll));
    let hub = builder.start().await.expect("the bus is there");
    let mut cursors = Vec::new();
    for n in 0..200 {
        cursors.push(Client::connect(&hub, &format!("u{n}")).await.cursor.clone());
    }
    bus.fault.send_replace(Fault::HistoryIsSlow);
    let back = cursors.into_iter().enumerate().map(|(n, cursor)| {
        let hub = hub.clone();
        tokio::spawn(async move {
            let options = ConnectOptions { cursor, ..ConnectOptions::default() };
            let (_, connected) = Client::connect_with(&hub, &format!("u{n}"), options).await;
            assert_eq!(connected["payload"]["recovered"], true);
        })
    });
    for client in back.collect::<Vec<_>>() {
        client.await.expect("it is let in");
    }
    assert_eq!(bus.most.load(SeqCst), 32);
}
