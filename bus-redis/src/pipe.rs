//! A connection on which a node publishes: what is sent does not wait for the answers to what was sent before.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use redis::Value;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Opener, Stream};
use crate::fault::{Failure, Fault};
use crate::resp::{Commands, read};
use crate::server::told;
use crate::spawn::Task;
use crate::url::{Address, Login};

/// The sending end. Clones are the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    calls: mpsc::UnboundedSender<Call>,
}

#[derive(Debug)]
struct Call {
    commands: Commands,
    answer: oneshot::Sender<Value>,
}

/// A call whose answers are still to come.
struct Sent {
    answers: usize,
    /// The first error of a command, or else the last answer.
    outcome: Option<Value>,
    answer: oneshot::Sender<Value>,
}

impl Pipe {
    /// Connects and logs in; the task is over when the connection is.
    pub(crate) async fn open(opener: &Opener, address: &Address) -> Result<(Self, Task), Failure> {
        opener.in_time(address, Self::open_now(opener, address)).await
    }

    async fn open_now(opener: &Opener, address: &Address) -> Result<(Self, Task), Failure> {
        let stream = opener.stream(address).await?;
        let (sender, calls) = mpsc::unbounded_channel();
        let pipe = Self { calls: sender };
        let driver = Task::spawn(drive(stream, calls));
        let mut first = login(&opener.login);
        // Were MULTI refused later, what follows it would be done and EXEC would say that it was not.
        first.add([b"MULTI"]);
        first.add([b"EXEC"]);
        match told(pipe.ask(first).await?) {
            Err(Failure { fault: Fault::NoPermission, text }) => {
                let text = format!("{text}: publishing takes MULTI and EXEC, grant +@transaction");
                Err(Failure::new(Fault::NoPermission, text))
            }
            told => told.map(|_| (pipe, driver)),
        }
    }

    /// Sends commands, in the order of the calls; each call's place is taken when it is first polled. The first error
    /// that one of them was answered, or else the last answer.
    ///
    /// What is under way is bounded by who calls: a publisher has few calls open, each of bounded size.
    pub(crate) async fn ask(&self, commands: Commands) -> Result<Value, Failure> {
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::away("the connection to Redis was lost");
        self.calls.send(Call { commands, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

fn login(login: &Login) -> Commands {
    let mut commands = Commands::default();
    match (&login.username, &login.password) {
        (Some(username), Some(password)) => {
            commands.add([b"AUTH", username.as_bytes(), password.as_bytes()]);
        }
        (None, Some(password)) => commands.add([b"AUTH", password.as_bytes()]),
        (_, None) => {}
    }
    if login.database > 0 {
        commands.add([b"SELECT", login.database.to_string().as_bytes()]);
    }
    commands
}

async fn drive(stream: Box<dyn Stream>, mut calls: mpsc::UnboundedReceiver<Call>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut output, mut input) = (BytesMut::new(), BytesMut::with_capacity(READ));
    let mut sent = VecDeque::new();
    let mut waits = false;
    loop {
        tokio::select! {
            call = calls.recv() => {
                let Some(call) = call else { return };
                waits = true;
                sent.push_back(begin(&mut output, call));
                while let Ok(call) = calls.try_recv() {
                    sent.push_back(begin(&mut output, call));
                }
            }
            left = leave(&mut writer, &mut output), if waits => {
                if left.is_err() {
                    return;
                }
                waits = false;
            }
            read = reader.read_buf(&mut input) => {
                if !matches!(read, Ok(1..)) || answer(&mut input, &mut sent).is_none() {
                    return;
                }
                input.reserve(READ);
            }
        }
    }
}

/// Writes it all. What a TLS stream has taken is not sent before a flush.
async fn leave(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<()> {
    writer.write_all_buf(output).await?;
    writer.flush().await
}

fn begin(output: &mut BytesMut, Call { commands, answer }: Call) -> Sent {
    output.extend_from_slice(commands.bytes());
    Sent { answers: commands.count(), outcome: None, answer }
}

/// Gives what came to whoever asked; `None` when it is no answer, or nobody asked.
fn answer(input: &mut BytesMut, sent: &mut VecDeque<Sent>) -> Option<()> {
    let mut used = 0;
    while let Some((value, length)) = read(&input[used..]).ok()? {
        used += length;
        let call = sent.front_mut()?;
        call.answers -= 1;
        if !matches!(call.outcome, Some(Value::ServerError(_))) {
            call.outcome = Some(value);
        }
        if call.answers == 0
            && let Some(Sent { outcome: Some(value), answer, .. }) = sent.pop_front()
        {
            // Nobody waits any more when the caller's deadline has passed.
            let _ = answer.send(value);
        }
    }
    let _ = input.split_to(used);
    Some(())
}

/// Bytes read at a time.
const READ: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use tidings_redis_testing::in_time;
    use tokio::io::{AsyncRead, DuplexStream, ReadBuf};

    use super::*;

    /// Takes all it is given and passes on what there is room for, as TLS does: the rest goes with a flush.
    struct Buffered {
        stream: DuplexStream,
        waits: BytesMut,
    }

    impl Buffered {
        fn pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while !self.waits.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waits))?;
                let _ = self.waits.split_to(written);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Buffered {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, into)
        }
    }

    impl AsyncWrite for Buffered {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.waits.extend_from_slice(bytes);
            let _ = self.pass_on(cx)?;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.pass_on(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_stream_has_taken_leaves_it_without_another_call() {
        let (stream, mut server) = tokio::io::duplex(1000);
        let (sender, calls) = mpsc::unbounded_channel();
        let pipe = Pipe { calls: sender };
        let _driver =
            Task::spawn(drive(Box::new(Buffered { stream, waits: BytesMut::new() }), calls));
        for _ in 0..2 {
            let mut commands = Commands::default();
            commands.add([b"PUBLISH", b"room", &[b'x'; 10_000]]);
            let length = commands.bytes().len();
            let asked = pipe.ask(commands);
            let served = async {
                server.read_exact(&mut vec![0; length]).await.expect("the whole of it");
                server.write_all(b":1\r\n").await.expect("it is read");
            };
            let answered = async { tokio::join!(asked, served).0.expect("an answer") };
            assert_eq!(in_time("an answer", answered).await, Value::Int(1));
        }
    }
}
