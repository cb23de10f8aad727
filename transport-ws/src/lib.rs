//! WebSocket connections (RFC 6455, the server's side, without extensions).
//!
//! [`accept`] answers the opening handshake, [`upgraded`] waits for hyper to hand over the
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
