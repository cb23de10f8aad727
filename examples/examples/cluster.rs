//! Two nodes and a worker on one Redis: whoever publishes, every node that has a listener delivers.
//!
//! Run with: cargo run -p tidings-examples --example cluster [redis://HOST:PORT]
//!
//! Without a URL it starts a Redis of its own, which `redis-server` must be installed for. In production each of the
//! three is a process of its own; what they share is the URL.

#![expect(clippy::disallowed_methods, reason = "a program may spawn where it likes")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tidings_bus_redis::{RedisBus, RedisConfig};
use tidings_core::testing::{MemoryPipe, PipeClient};
use tidings_core::{
    AllowAll, Anonymous, ConnectOptions, Hub, Identity, Message, Publication, RoomId, TenantId,
    Topic, UserId,
};

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (_redis, url) = match std::env::args().nth(1) {
        Some(url) => (None, url),
        None => OwnRedis::start()?,
    };
    let (one, two, worker) = (node(&url).await?, node(&url).await?, node(&url).await?);
    let mut ada = client(&one, "ada").await?;
    let mut bob = client(&two, "bob").await?;

    // A worker has no connections, and need not know on which node anybody is.
    let lobby = Topic::room(TenantId::default(), RoomId::new("lobby")?);
    worker
        .publish(Publication::new(lobby.clone(), Message::of("news", &"from the worker")?))
        .await?;
    one.publish(Publication::new(lobby, Message::of("news", &"from node one")?)).await?;
    let bobs = Topic::user(TenantId::default(), UserId::new("bob")?);
    worker.publish(Publication::new(bobs, Message::of("news", &"for bob alone")?)).await?;

    for (name, client, messages) in [("ada", &mut ada, 2), ("bob", &mut bob, 3)] {
        for _ in 0..messages {
            println!("{name} hears {}", news(client).await?);
        }
    }
    Ok(())
}

/// A node as a server has it; a server also mounts transports, which feed it connections.
async fn node(url: &str) -> Result<Hub, Error> {
    let bus = RedisBus::connect(url, RedisConfig::default()).await?;
    Ok(Hub::builder(Arc::new(bus), Arc::new(Anonymous), Arc::new(AllowAll)).start().await?)
}

/// A connection in memory in place of a WebSocket, in the lobby.
async fn client(hub: &Hub, user: &str) -> Result<PipeClient, Error> {
    let identity = Identity::user(UserId::new(user)?);
    let attachment = hub.attach(identity, ConnectOptions::default(), MemoryPipe::info()).await?;
    let (server, mut client) = MemoryPipe::new(4096);
    tokio::spawn(attachment.serve(server));
    client.send(r#"{"type":"join:room","payload":{"roomId":"lobby"}}"#).await;
    while let Some(message) = client.next().await {
        if message.contains("room:joined") {
            return Ok(client);
        }
    }
    Err("the node ended the connection".into())
}

/// What the next news says.
async fn news(client: &mut PipeClient) -> Result<String, Error> {
    let text = client.next().await.ok_or("the node ended the connection")?;
    let message: serde_json::Value = serde_json::from_str(&text)?;
    Ok(message["payload"].as_str().unwrap_or_default().to_owned())
}

/// A Redis for the time of this example, on a socket in a folder of its own.
struct OwnRedis(Child, std::path::PathBuf);

impl OwnRedis {
    fn start() -> Result<(Option<Self>, String), Error> {
        let folder = std::env::temp_dir().join(format!("tidings-cluster-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let socket = folder.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
        let child = command.current_dir(&folder).stdout(Stdio::null()).spawn();
        let child =
            child.map_err(|error| format!("cannot run redis-server, install it: {error}"))?;
        let redis = Self(child, folder);
        while !socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok((Some(redis), format!("redis+unix://{}", socket.display())))
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}
