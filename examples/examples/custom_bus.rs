//! A bus of one's own: it hands everything to a `MemoryBus` and keeps count by type.
//!
//! Run with: cargo run -p tidings-examples --example custom_bus
//!
//! A bus that reaches other processes implements the same methods; the laws in
//! `tidings_core::testing::bus_laws!` test whether it keeps their promises.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, BusLink, History, Hub, Message, Presence, Publication,
    Receipt, RoomId, TenantId, Topic,
};

#[derive(Debug, Default)]
struct CountingBus {
    inner: MemoryBus,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl CountingBus {
    fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Bus for CountingBus {
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Receipt, BusError>> {
        let kinds: Vec<_> = batch.iter().map(|p| p.message.kind.as_str().to_owned()).collect();
        let answers = self.inner.publish(batch).await;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, answer) in kinds.into_iter().zip(&answers) {
            if answer.is_ok() {
                *counts.entry(kind).or_default() += 1;
            }
        }
        answers
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }

    fn partition(&self, topic: &Topic) -> u16 {
        self.inner.partition(topic)
    }

    async fn connect(&self, partition: u16) -> Result<BusLink, BusError> {
        self.inner.connect(partition).await
    }

    fn history(&self) -> Option<&dyn History> {
        self.inner.history()
    }

    fn presence(&self) -> Option<&dyn Presence> {
        self.inner.presence()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Arc::new(CountingBus::default());
    let hub = Hub::builder(bus.clone(), Arc::new(Anonymous), Arc::new(AllowAll)).start().await?;

    let lobby = Topic::room(TenantId::default(), RoomId::new("lobby")?);
    for kind in ["news", "weather", "news"] {
        hub.publish(Publication::new(lobby.clone(), Message::empty(kind)?)).await?;
    }

    for (kind, count) in bus.counts() {
        println!("{kind}: {count}");
    }
    Ok(())
}
