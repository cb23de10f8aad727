//! A WebSocket server that sends every message back: the transport without a hub. Conformance suites drive it.
//!
//! Run with: cargo run -p tidings-transport-ws --example echo -- 127.0.0.1:9001
#![expect(clippy::disallowed_methods, reason = "a program may spawn where it likes")]

use std::convert::Infallible;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidings_core::{CloseReason, Frame, FrameReader, FrameWriter, Transport};
use tidings_transport_ws::{WsConfig, accept, upgraded};
use tokio::net::TcpListener;

/// Longest message, in bytes.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("echo: ws://{}/", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            let http =
                http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
            let _ = http.with_upgrades().await;
        });
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(match accept(&mut request, &WsConfig::default()) {
        Ok((response, upgrade)) => {
            tokio::spawn(async move {
                if let Ok(transport) = upgraded(upgrade, MESSAGE_BYTES).await {
                    // A client that is gone hears nothing more.
                    let _ = echo(transport).await;
                }
            });
            response.map(|()| String::new())
        }
        Err(refusal) => refusal,
    })
}

async fn echo(transport: impl Transport) -> io::Result<()> {
    let (mut reader, mut writer) = transport.split();
    let reason = loop {
        match reader.next().await {
            Some(Ok(Frame::Message(text))) => send(&mut writer, text_frame(&text)).await?,
            Some(Ok(Frame::Respond(pong))) => send(&mut writer, pong).await?,
            Some(Ok(Frame::Close(code))) => break CloseReason::of_peer(code),
            Some(Ok(_)) => {}
            Some(Err(error)) => match CloseReason::of_read_error(&error) {
                Some(reason) => break reason,
                None => return Ok(()),
            },
            None => return Ok(()),
        }
    };
    writer.close(&reason).await;
    while let Some(Ok(_)) = reader.next().await {}
    Ok(())
}

async fn send(writer: &mut impl FrameWriter, mut frame: Bytes) -> io::Result<()> {
    while !frame.is_empty() {
        let taken = writer.write(&[frame.clone()]).await?;
        frame = frame.slice(taken..);
    }
    Ok(())
}

/// A text frame of a server (RFC 6455, section 5.2).
fn text_frame(text: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(text.len() + 10);
    frame.put_u8(0x81);
    match text.len() {
        length @ 0..=125 => frame.put_u8(length as u8),
        length @ 126..=0xffff => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        length => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    frame.put_slice(text);
    frame.freeze()
}
