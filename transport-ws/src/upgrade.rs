//! From hyper's hands into ours.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::WsTransport;

/// Waits until hyper has sent the answer and hands over the connection.
///
/// A plain TCP connection that hyper was given as `TokioIo<TcpStream>`, by itself or by the server of
/// hyper-util that axum uses, is taken out and tuned by [`tune`]; any other one, as of TLS, is used as it is.
///
/// # Errors
/// The connection broke before, or was never one that can be upgraded.
pub async fn upgraded(
    on: OnUpgrade,
    max_message_bytes: usize,
) -> io::Result<WsTransport<ReadSide, WriteSide>> {
    let upgraded = on.await.map_err(io::Error::other)?;
    match plain(upgraded) {
        Ok((stream, read_ahead)) => {
            // An untuned connection works as well; a broken one shows when it is read.
            let _ = tune(&stream);
            let (read, write) = stream.into_split();
            let (read, write) = (ReadSide(Read::Tcp(read)), WriteSide(Write::Tcp(write)));
            let transport = WsTransport::new(read, write, max_message_bytes);
            Ok(transport.with_read_ahead(&read_ahead))
        }
        Err(upgraded) => {
            let io = Flushing { io: TokioIo::new(upgraded), dirty: false };
            let (read, write) = tokio::io::split(io);
            let (read, write) = (ReadSide(Read::Other(read)), WriteSide(Write::Other(write)));
            Ok(WsTransport::new(read, write, max_message_bytes))
        }
    }
}

/// The TCP connection within, and what was read of it already.
fn plain(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    let parts = auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded)?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// Sets `TCP_NODELAY`, and where the system has them `TCP_NOTSENT_LOWAT` to 16 KiB, so that a reader
/// that has stopped is noticed before the kernel has taken megabytes for it, and `TCP_USER_TIMEOUT` to
/// 30 s, so that one that acknowledges nothing is given up then and not after many minutes.
///
/// # Errors
/// The system's, as when the connection is broken.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    {
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    }
    Ok(())
}

#[cfg(any(target_os = "android", target_os = "linux"))]
const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;
#[cfg(any(target_os = "android", target_os = "linux"))]
const USER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The reading half of a connection from hyper.
pub struct ReadSide(Read);

enum Read {
    Tcp(OwnedReadHalf),
    Other(ReadHalf<Flushing<TokioIo<Upgraded>>>),
}

impl AsyncRead for ReadSide {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Read::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Read::Other(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl fmt::Debug for ReadSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadSide")
    }
}

/// The writing half of a connection from hyper.
pub struct WriteSide(Write);

enum Write {
    Tcp(OwnedWriteHalf),
    Other(WriteHalf<Flushing<TokioIo<Upgraded>>>),
}

impl AsyncWrite for WriteSide {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Write::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Write::Other(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Write::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Write::Other(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Write::Tcp(io) => io.is_write_vectored(),
            Write::Other(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Write::Tcp(io) => Pin::new(io).poll_flush(cx),
            Write::Other(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Write::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Write::Other(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for WriteSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteSide")
    }
}

/// A stream that may keep what it took until it is flushed, as TLS does: it is flushed after each
/// write, and while something is left, whenever it is read, since the reader is always waited for.
struct Flushing<T> {
    io: T,
    /// Whether the last flush was not finished.
    dirty: bool,
}

impl<T: AsyncWrite + Unpin> Flushing<T> {
    fn try_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.dirty = match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => {
                flushed?;
                false
            }
            Poll::Pending => true,
        };
        Ok(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Flushing<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.dirty {
            self.try_flush(cx)?;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Flushing<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.try_flush(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.try_flush(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
