use super::*;
use futures_util::FutureExt as _;
use std::io::{Read, Write};
use tidings_core::Outgoing;
use tokio::io::{AsyncReadExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

type Duplex = WsTransport<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

const MAX: usize = 100_000;

fn over(io: DuplexStream) -> Duplex {
    let (read, write) = tokio::io::split(io);
    WsTransport::new(read, write, MAX)
}

/// A stream as one that never waits, for the client of another make.
#[derive(Debug)]
struct NonBlocking(DuplexStream);

fn at_once<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for NonBlocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        let mut cx = Context::from_waker(Waker::noop());
        at_once(Pin::new(&mut self.0).poll_read(&mut cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}

impl Write for NonBlocking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        at_once(Pin::new(&mut self.0).poll_write(&mut Context::from_waker(Waker::noop()), buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        at_once(Pin::new(&mut self.0).poll_flush(&mut Context::from_waker(Waker::noop())))
    }
}

/// A client of another make.
struct Client(WebSocket<NonBlocking>);

impl Client {
    fn over(io: DuplexStream) -> Self {
        Self(WebSocket::from_raw_socket(NonBlocking(io), Role::Client, None))
    }

    async fn send(&mut self, message: Message) {
        let queued = self.0.send(message);
        self.flush(queued).await;
    }

    async fn flush(&mut self, mut done: Result<(), Error>) {
        while matches!(&done, Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock) {
            tokio::task::yield_now().await;
            done = self.0.flush();
        }
        done.expect("sent");
    }

    async fn read(&mut self) -> Result<Message, Error> {
        loop {
            match self.0.read() {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::task::yield_now().await;
                }
                done => return done,
            }
        }
    }
}

async fn write_all<W: FrameWriter>(writer: &mut W, frames: &[Bytes]) {
    for frame in frames {
        let mut rest = frame.clone();
        while !rest.is_empty() {
            let taken = writer.write(&[rest.clone()]).await.expect("written");
            rest = rest.slice(taken..);
        }
    }
}

/// The next frame that is whole.
async fn whole<R: FrameReader>(reader: &mut R) -> Option<Result<Frame, ReadError>> {
    loop {
        match reader.next().await {
            Some(Ok(Frame::Part)) => {}
            frame => return frame,
        }
    }
}

#[tokio::test]
async fn a_client_of_another_make_exchanges_messages_pings_and_closes() {
    // So small that everything comes in pieces.
    let (ours, theirs) = tokio::io::duplex(37);
    let (mut reader, mut writer) = over(ours).split();
    let mut client = Client::over(theirs);
    let lengths = [0, 1, 125, 126, 5_000, 65_535, 65_536];

    let server = async {
        for length in lengths {
            match whole(&mut reader).await {
                Some(Ok(Frame::Message(text))) => assert_eq!(text.len(), length),
                other => panic!("{other:?}"),
            }
            write_all(&mut writer, &[(FRAMING.encode)(&Outgoing::pong(length as u64))]).await;
        }
        match whole(&mut reader).await {
            Some(Ok(Frame::Respond(pong))) => write_all(&mut writer, &[pong]).await,
            other => panic!("{other:?}"),
        }
        write_all(&mut writer, &[Bytes::from_static(FRAMING.heartbeat)]).await;
        assert!(matches!(whole(&mut reader).await, Some(Ok(Frame::Alive))));
        assert!(matches!(whole(&mut reader).await, Some(Ok(Frame::Close(4000)))));
        assert!(reader.next().await.is_none());
        writer.close(&CloseReason::of_peer(4000)).await;
    };
    let peer = async {
        for length in lengths {
            client.send(Message::text("x".repeat(length))).await;
            let text = client.read().await.expect("an answer").into_text().expect("text");
            let expected = format!(r#"{{"type":"pong","payload":{{"timestamp":{length}}}}}"#);
            assert_eq!(text.as_str(), expected);
        }
        client.send(Message::Ping(Bytes::from_static(b"are you there"))).await;
        let pong = client.read().await.expect("a pong");
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"are you there")));
        assert!(client.read().await.expect("a ping").is_ping());
        let pong = client.0.flush();
        client.flush(pong).await;
        let bye = CloseFrame { code: CloseCode::Library(4000), reason: "done".into() };
        client.send(Message::Close(Some(bye))).await;
        let answer = client.read().await.expect("a close");
        let bye = CloseFrame { code: CloseCode::Library(4000), reason: "".into() };
        assert_eq!(answer, Message::Close(Some(bye)));
        assert!(matches!(client.read().await, Err(Error::ConnectionClosed)));
    };
    tokio::join!(server, peer);
}

#[tokio::test]
async fn frames_come_before_the_error_and_nothing_after_it_until_the_end() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let (mut reader, _writer) = over(ours).split();
    theirs.write_all(b"\x81\x81\0\0\0\0a\x82\x80\0\0\0\0\x81\x80\0\0\0\0").await.expect("written");
    assert!(matches!(reader.next().await, Some(Ok(Frame::Message(text))) if text == "a"));
    assert!(matches!(reader.next().await, Some(Err(ReadError::Unsupported))));
    assert_eq!(reader.next().now_or_never().map(drop), None, "the peer has not ended");
    theirs.write_all(b"\x81\x81\0\0\0\0b").await.expect("it is read");
    drop(theirs);
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn the_end_of_the_stream_is_the_end() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let (mut reader, _writer) = over(ours).split();
    drop(theirs);
    assert!(reader.next().await.is_none(), "nobody said why");
}

#[tokio::test]
async fn bytes_of_a_message_are_told_and_nothing_when_there_are_none() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let (mut reader, _writer) = over(ours).split();
    // One message, and the beginning of the next.
    theirs.write_all(b"\x81\x81\0\0\0\0a\x81").await.expect("written");
    assert!(matches!(reader.next().await, Some(Ok(Frame::Message(text))) if text == "a"));
    for part in [b"\x81".as_slice(), b"\0\0\0\0"] {
        assert!(matches!(reader.next().await, Some(Ok(Frame::Part))));
        assert!(reader.next().now_or_never().is_none(), "once per read");
        theirs.write_all(part).await.expect("written");
    }
    assert!(matches!(reader.next().await, Some(Ok(Frame::Part))));
    theirs.write_all(b"b").await.expect("written");
    assert!(matches!(reader.next().await, Some(Ok(Frame::Message(text))) if text == "b"));
    assert!(reader.next().now_or_never().is_none());
    theirs.write_all(b"\x88\x80\0\0\0\0").await.expect("written");
    assert!(matches!(reader.next().await, Some(Ok(Frame::Close(1005)))));
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn what_was_read_ahead_comes_first_and_may_end_within_a_frame() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let ahead = Bytes::from_static(b"\x81\x81\0\0\0\0a\x81\x82\0\0");
    let (mut reader, _writer) = over(ours).with_read_ahead(&ahead).split();
    theirs.write_all(b"\0\0bc").await.expect("written");
    for expected in ["a", "bc"] {
        let frame = whole(&mut reader).await;
        assert!(matches!(frame, Some(Ok(Frame::Message(text))) if text == expected));
    }
}

#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let (mut reader, _writer) = over(ours).split();
    for byte in b"\x81\x82\0\0\0\0h" {
        theirs.write_all(&[*byte]).await.expect("written");
        tokio::select! {
            biased;
            frame = whole(&mut reader) => panic!("{frame:?}"),
            () = std::future::ready(()) => {}
        }
    }
    theirs.write_all(b"i").await.expect("written");
    assert!(matches!(whole(&mut reader).await, Some(Ok(Frame::Message(text))) if text == "hi"));
    assert_eq!(reader.frames.capacity(), 0);
}

/// Takes up to `room` bytes and then none, in vectored writes.
struct Narrow {
    taken: Vec<u8>,
    room: usize,
}

impl AsyncWrite for Narrow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(b)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = all.len().min(self.room);
        self.room -= taken;
        self.taken.extend_from_slice(&all[..taken]);
        if taken == 0 { Poll::Pending } else { Poll::Ready(Ok(taken)) }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_write_takes_what_fits_of_up_to_64_frames() {
    let frames: Vec<Bytes> = (0..65).map(|n| Bytes::from(vec![n])).collect();
    let mut writer = WsWriter { io: Narrow { taken: Vec::new(), room: 70 } };
    assert_eq!(writer.try_write(&frames).expect("written"), 64);
    assert_eq!(writer.try_write(&frames).expect("written"), 6);
    assert_eq!(writer.try_write(&frames).expect("nothing fits"), 0);
    assert_eq!(writer.io.taken[64..], [0, 1, 2, 3, 4, 5]);
    writer.io.room = 1;
    assert_eq!(writer.try_write(&[]).expect("nothing to write"), 0);
    assert_eq!(writer.try_write(&[Bytes::new(), frames[9].clone()]).expect("written"), 1);
}

#[tokio::test]
async fn a_dead_stream_is_an_error_and_a_close_sends_the_whole_frame_then_ends() {
    let (ours, mut theirs) = tokio::io::duplex(3);
    let (_reader, mut writer) = over(ours).split();
    let mut got = Vec::new();
    let (read, ()) =
        tokio::join!(theirs.read_to_end(&mut got), writer.close(&CloseReason::TOO_SLOW));
    assert_eq!(read.expect("the end"), got.len());
    assert_eq!(got, close_frame(&CloseReason::TOO_SLOW));

    let (ours, theirs) = tokio::io::duplex(3);
    let (_reader, mut writer) = over(ours).split();
    drop(theirs);
    assert!(writer.try_write(&[Bytes::from_static(b"x")]).is_err());
    assert!(writer.write(&[Bytes::from_static(b"x")]).await.is_err());
    writer.close(&CloseReason::NORMAL).await;
}

#[tokio::test]
async fn a_read_of_many_frames_is_decoded_in_batches() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (mut reader, _writer) = over(ours).split();
    let pings = b"\x89\x80\0\0\0\0".repeat(10_000);
    theirs.write_all(&pings).await.expect("written");
    for _ in 0..10_000 {
        assert!(matches!(whole(&mut reader).await, Some(Ok(Frame::Respond(_)))));
        assert!(reader.frames.len() <= MAX_FRAMES, "{}", reader.frames.len());
    }
    assert!(reader.undecoded.is_empty());
    theirs.write_all(b"\x81\x81\0\0\0\0x").await.expect("written");
    assert!(matches!(whole(&mut reader).await, Some(Ok(Frame::Message(text))) if text == "x"));
    drop(theirs);
    assert!(reader.next().await.is_none());
}
