//! WebSocket connections (RFC 6455, the server's side, without extensions).
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//!
//! use futures_util::StreamExt;
//! use hyper::{server::conn::http1, service::service_fn};
//! use hyper_util::rt::TokioIo;
//! use tidings_bus_memory::MemoryBus;
//! use tidings_core::{AllowAll, Anonymous, Hub};
//! use tidings_transport_ws::{WsConfig, serve};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(Arc::new(MemoryBus::default()), Arc::new(Anonymous), Arc::new(AllowAll));
//! let (hub, config) = (hub.start().await?, WsConfig::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! tokio::spawn(async move {
//!     let (socket, _) = listener.accept().await.expect("a connection");
//!     let answer = service_fn(|mut request| {
//!         let response = serve(&hub, &mut request, &config);
//!         async { Ok::<_, Infallible>(response) }
//!     });
//!     http1::Builder::new().serve_connection(TokioIo::new(socket), answer).with_upgrades().await
//! });
//!
//! let socket = tokio::net::TcpStream::connect(address).await?;
//! let url = format!("ws://{address}/ws?room=lobby");
//! let (mut client, _) = tokio_tungstenite::client_async(url, socket).await?;
//! let first = client.next().await.expect("a message")?;
//! assert!(first.to_text()?.contains("connected"));
//! # Ok(())
//! # }
//! ```
//!
//! [`serve`] is the whole endpoint, for any server on hyper. In parts, [`accept`] answers the opening handshake, [`upgraded`] waits for hyper to hand over the
//! connection, and the [`WsTransport`] it gives is served by core. Whoever has a byte stream of
//! another make builds a [`WsTransport`] from its two halves.
//!
//! It refuses to listen, to route and to authenticate. An idle connection owns no buffer: bytes
//! are read into one buffer per thread, and only an unfinished message is kept.

mod codec;
mod config;
mod connection;
mod endpoint;
mod framing;
mod handshake;
mod upgrade;

pub use codec::Decoder;
pub use config::WsConfig;
pub use connection::{WsReader, WsTransport, WsWriter};
pub use endpoint::serve;
pub use framing::{FRAMING, close_frame};
pub use handshake::{SUBPROTOCOL, accept};
pub use upgrade::{ReadSide, WriteSide, tune, upgraded};
