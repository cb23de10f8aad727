//! A WebSocket server with rooms: clients join a room, a POST publishes to it.
//!
//! Run with: cargo run -p tidings-examples --example quickstart [PORT]
//!
//! Connect a WebSocket client to `/ws?room=lobby`, then publish:
//! `curl -d '{"text":"hello"}' http://127.0.0.1:8080/rooms/lobby`

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use tidings_bus_memory::MemoryBus;
use tidings_core::{AllowAll, Anonymous, Hub, Message, Publication, RoomId, TenantId, Topic};
use tidings_transport_ws::WsConfig;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::builder(Arc::new(MemoryBus::default()), Arc::new(Anonymous), Arc::new(AllowAll));
    let app = axum::Router::new()
        .route("/ws", get(websocket))
        .route("/rooms/{room}", post(publish))
        .with_state(hub.start().await?);
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on ws://{}/ws", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn websocket(State(hub): State<Hub>, mut request: Request) -> Response {
    tidings_transport_ws::serve(&hub, &mut request, &WsConfig::default()).map(Body::from)
}

/// Publishes the body, which must be JSON, as `news` to everyone in the room.
async fn publish(State(hub): State<Hub>, Path(room): Path<String>, body: Bytes) -> StatusCode {
    let (Ok(room), Ok(message)) = (RoomId::new(room), Message::json("news", body)) else {
        return StatusCode::BAD_REQUEST;
    };
    match hub.publish(Publication::new(Topic::room(TenantId::default(), room), message)).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
