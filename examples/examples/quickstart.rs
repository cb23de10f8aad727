//! A WebSocket server with rooms: clients join a room, a POST publishes to it.
//!
//! Run with: cargo run -p tidings-examples --example quickstart [PORT]
//!
//! Connect a WebSocket client to `/ws?room=lobby`, then publish:
//! `curl -d '{"text":"hello"}' http://127.0.0.1:8080/rooms/lobby`
#![expect(clippy::disallowed_methods, reason = "a program may spawn where it likes")]

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use http::StatusCode;
use tidings_bus_memory::MemoryBus;
use tidings_core::{
    AllowAll, Anonymous, ConnectOptions, ConnectRequest, Hub, Message, Publication, RoomId,
    TenantId, Topic, Transport,
};
use tidings_transport_ws::{WsConfig, accept, tune, upgraded};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::builder(Arc::new(MemoryBus::default()), Arc::new(Anonymous), Arc::new(AllowAll));
    let hub = hub.start().await?;
    let app = axum::Router::new()
        .route("/ws", get(websocket))
        .route("/rooms/{room}", post(publish))
        .with_state(hub);
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on ws://{}/ws", listener.local_addr()?);
    // An untuned connection works as well, only slower.
    let listener = listener.tap_io(|socket| drop(tune(socket)));
    Ok(axum::serve(listener, app).await?)
}

/// Answers the handshake at once; the connection is taken in and served in a task of its own.
async fn websocket(State(hub): State<Hub>, mut request: Request) -> Response {
    let connect = ConnectRequest::read(&request, "");
    let (response, upgrade) = match accept(&mut request, &WsConfig::default()) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.map(Body::from),
    };
    tokio::spawn(async move {
        let Ok(transport) = upgraded(upgrade, hub.limits().message_bytes).await else { return };
        let Ok(identity) = hub.authenticate(&connect).await else { return };
        let rooms = connect.query("room").map(Cow::into_owned).collect();
        let options = ConnectOptions { rooms, ..ConnectOptions::default() };
        if let Ok(attached) = hub.attach(identity, options, transport.info()).await {
            attached.serve(transport).await;
        }
    });
    response.map(|()| Body::empty())
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
