//! A connection on which a node publishes: what is sent does not wait for the answers to what was sent before.

use std::collections::VecDeque;

use bytes::BytesMut;
use redis::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Opener, Stream};
use crate::fault::Failure;
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
        let login = login(&opener.login);
        if login.count() > 0 {
            told(pipe.ask(login).await?)?;
        }
        Ok((pipe, driver))
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
    loop {
        tokio::select! {
            call = calls.recv() => {
                let Some(call) = call else { return };
                sent.push_back(begin(&mut output, call));
                while let Ok(call) = calls.try_recv() {
                    sent.push_back(begin(&mut output, call));
                }
            }
            written = writer.write_buf(&mut output), if !output.is_empty() => {
                if !matches!(written, Ok(1..)) {
                    return;
                }
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
