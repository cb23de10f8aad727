//! A worker: it publishes how far its job is, and holds no connections.
//!
//! Run with: cargo run -p tidings-examples --example worker
//!
//! The memory bus joins hubs of one process. With a bus that reaches other processes, the same
//! worker is a process of its own.

use std::sync::Arc;
use std::time::Duration;

use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, Bus, BusError, Hub, Message, Publication, PublishError, TenantId, Topic,
    UserId,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Arc::new(MemoryBus::default());
    let ada = Topic::user(TenantId::default(), UserId::new("ada")?);

    // This link stands for the node that ada is connected to.
    let mut node = bus.connect(0).await?;
    node.interest.subscribe(std::slice::from_ref(&ada)).await?;

    // Nobody connects to a worker, so nobody is authenticated; and one shard is enough.
    let worker = Hub::builder(bus, Arc::new(Anonymous), Arc::new(AllowAll)).shards(1);
    let worker = worker.start().await?;
    for percent in [0, 50, 100] {
        let message = Message::of("job:progress", &serde_json::json!({"percent": percent}))?;
        // Where the bus keeps history, a repeat under the same key is delivered once.
        let publication = Publication::new(ada.clone(), message);
        let publication = publication.idempotency_key(format!("job-7-{percent}"));
        let nodes = publish(&worker, publication).await?;
        println!("{percent} %: handed to {nodes} node");
    }
    Ok(())
}

/// Publishes, again and again while the bus is away; to how many nodes it went.
async fn publish(worker: &Hub, publication: Publication) -> Result<u32, PublishError> {
    let mut pause = Duration::from_millis(100);
    for _ in 1..ATTEMPTS {
        match worker.publish(publication.clone()).await {
            Err(PublishError::Bus(BusError::Unavailable(_) | BusError::TimedOut)) => {
                tokio::time::sleep(pause).await
            }
            answer => return answer.map(|receipt| receipt.links.unwrap_or_default()),
        }
        pause *= 2;
    }
    worker.publish(publication).await.map(|receipt| receipt.links.unwrap_or_default())
}

const ATTEMPTS: u32 = 5;
