use super::*;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tidings_core::{CloseReason, Frame, FrameReader, FrameWriter, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{FRAMING, WsConfig, accept, close_frame};

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What serves one request.
#[derive(Debug, Clone, Copy)]
enum Server {
    /// hyper's own.
    Plain,
    /// That of hyper-util, which `axum::serve` uses.
    Auto,
}

/// Serves one request over `io` and gives the transport that comes of it.
async fn serve<T>(io: T, server: Server) -> io::Result<WsTransport<ReadSide, WriteSide>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let accepted = Arc::new(Mutex::new(None));
    let service = service_fn(|mut request: Request<Incoming>| {
        let (response, on) = match accept(&mut request, &WsConfig::default()) {
            Ok((response, on)) => (response.map(|()| String::new()), Some(on)),
            Err(refusal) => (refusal, None),
        };
        *accepted.lock().expect("not poisoned") = on;
        std::future::ready(Ok::<Response<String>, Infallible>(response))
    });
    match server {
        Server::Plain => {
            let http = hyper::server::conn::http1::Builder::new();
            http.serve_connection(io, service).with_upgrades().await.expect("served");
        }
        Server::Auto => {
            let http = auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            http.serve_connection_with_upgrades(io, service).await.expect("served");
        }
    }
    let on = accepted.lock().expect("not poisoned").take().expect("accepted");
    upgraded(on, 1000).await
}

/// Sends the request and a message at once, then sees what comes back.
async fn talk<C: AsyncRead + AsyncWrite + Unpin>(mut client: C) {
    let at_once = [REQUEST, b"\x81\x82\0\0\0\0h"].concat();
    client.write_all(&at_once).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a response"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    client.write_all(b"i").await.expect("written");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, [FRAMING.heartbeat, &close_frame(&CloseReason::RESTART)].concat());
}

async fn answer(transport: WsTransport<ReadSide, WriteSide>) {
    let (mut reader, mut writer) = transport.split();
    assert!(matches!(reader.next().await, Some(Ok(Frame::Part))));
    assert!(matches!(reader.next().await, Some(Ok(Frame::Message(text))) if text == "hi"));
    let ping = [Bytes::from_static(FRAMING.heartbeat)];
    assert_eq!(writer.try_write(&ping).expect("written"), FRAMING.heartbeat.len());
    writer.close(&CloseReason::RESTART).await;
}

#[tokio::test]
async fn a_tcp_connection_is_taken_out_and_tuned_with_what_was_read_ahead() {
    for kind in [Server::Plain, Server::Auto] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await;
        let (stream, _) = listener.accept().await.expect("accepted");
        let server = async {
            let transport = serve(TokioIo::new(stream), kind).await.expect("upgraded");
            let (reader, _) = transport.halves();
            let Read::Tcp(read) = &reader.0 else { panic!("not taken out of {kind:?}") };
            let stream: &TcpStream = read.as_ref();
            assert!(stream.nodelay().expect("an option"));
            #[cfg(target_os = "linux")]
            {
                let socket = socket2::SockRef::from(stream);
                assert_eq!(socket.tcp_notsent_lowat().expect("an option"), NOTSENT_LOWAT_BYTES);
                assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(USER_TIMEOUT));
            }
            answer(transport).await;
        };
        tokio::join!(server, talk(client.expect("connected")));
    }
}

#[tokio::test]
async fn any_other_stream_is_used_as_it_is() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let server = async {
        let transport = serve(TokioIo::new(ours), Server::Plain).await.expect("upgraded");
        assert!(matches!(transport.halves().0.0, Read::Other(_)));
        answer(transport).await;
    };
    tokio::join!(server, talk(theirs));
}

#[tokio::test]
async fn a_request_that_hyper_did_not_serve_cannot_be_upgraded() {
    assert!(upgraded(hyper::upgrade::on(Request::new(())), 1000).await.is_err());
}

/// Takes everything and sends it only when it is flushed, which takes two tries.
struct Lazy {
    kept: usize,
    sent: usize,
    tries: usize,
}

impl AsyncRead for Lazy {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Lazy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept += buf.len();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tries += 1;
        if self.tries % 2 == 1 {
            return Poll::Pending;
        }
        self.sent += std::mem::take(&mut self.kept);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_a_stream_keeps_is_sent_when_it_is_read() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut io = Flushing { io: Lazy { kept: 0, sent: 0, tries: 0 }, dirty: false };
    assert!(matches!(Pin::new(&mut io).poll_write(&mut cx, b"abc"), Poll::Ready(Ok(3))));
    assert_eq!((io.io.sent, io.dirty), (0, true));
    let mut space = [0; 8];
    for tries in [2, 2] {
        let mut buf = ReadBuf::new(&mut space);
        assert!(Pin::new(&mut io).poll_read(&mut cx, &mut buf).is_pending());
        assert_eq!((io.io.sent, io.io.tries, io.dirty), (3, tries, false));
    }
}
