//! Server-Sent Events: the stream of one client as an HTTP body.
//!
//! ```
//! use std::sync::Arc;
//!
//! use http_body_util::BodyExt;
//! use tidings_bus_memory::MemoryBus;
//! use tidings_core::{AllowAll, Anonymous, Hub};
//! use tidings_transport_sse::{SseConfig, serve, submit};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(Arc::new(MemoryBus::default()), Arc::new(Anonymous), Arc::new(AllowAll));
//! let (hub, config) = (hub.start().await?, SseConfig::default());
//!
//! // What an HTTP server does with each request to `/events`.
//! let request = http::Request::get("/events?room=lobby").body(())?;
//! let answer = serve(&hub, request, &config).await;
//! assert_eq!(answer.headers()["content-type"], "text/event-stream");
//! let mut body = answer.into_body();
//! # let mut text = String::new();
//! # while !text.contains("clientId") {
//! let event = body.frame().await.expect("a stream goes on")?;
//! # text += std::str::from_utf8(event.data_ref().expect("data"))?;
//! # }
//! # let client = text.split_once("\"clientId\":\"").expect("an id").1.split_once('"').expect("an id").0;
//!
//! // And with each to `/events/<clientId>`, by which the client speaks.
//! let ping = r#"{"type":"ping"}"#.to_owned();
//! let request = http::Request::post(format!("/events/{client}")).body(ping)?;
//! assert_eq!(submit(&hub, client, request, &config).await.status(), http::StatusCode::ACCEPTED);
//! # Ok(())
//! # }
//! ```
//!
//! Mounted elsewhere, [`SseTransport::new`] makes both ends of one stream: the [`Transport`](tidings_core::Transport)
//! that core serves, and the [`SseBody`] that goes into the answer ([`stream_response`]). Between
//! them lies a bounded pipe, so that a client which reads slowly is felt by core and by no one else.
//!
//! This crate refuses to listen, to route and to know who somebody is. An HTTP server that keeps the socket of a client
//! which reads nothing is told to cut it by [`Hangup`].

mod answer;
mod config;
mod connection;
mod endpoint;
mod framing;
mod hangup;
mod pipe;
mod response;

pub use config::SseConfig;
pub use connection::{SseReader, SseTransport, SseWriter};
pub use endpoint::{serve, submit};
pub use framing::{ENVELOPE, FRAMING};
pub use hangup::Hangup;
pub use pipe::SseBody;
pub use response::{closing_response, stream_response};
