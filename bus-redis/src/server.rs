//! A server as this node commands it: a connection for publications and one for all else, opened again for ever.

use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::connection::{Opened, Opener};
use crate::fault::{Failure, Fault};
use crate::partition::Question;
use crate::pipe::Pipe;
use crate::place::Place;
use crate::resp::Commands;
use crate::run::{Info, Run, is_durable};
use crate::sabotage::Protection;
use crate::script::{PUBLISH, Script};
use crate::spawn::{Task, jitter};
use crate::stats::{Counters, bump};
use crate::url::Address;

/// A server, or the seat of one that Sentinel fills.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    _supervisor: Task,
}

#[derive(Debug)]
struct Shared {
    opener: Arc<Opener>,
    counters: Arc<Counters>,
    place: Place,
    state: watch::Sender<State>,
    /// Somebody needs the connection now: no waiting for the next attempt.
    wanted: Notify,
    /// The connections up to this number are no good, and why the last is not.
    suspected: watch::Sender<(u64, Failure)>,
}

#[derive(Debug, Clone)]
enum State {
    /// An attempt is under way, and there is no reason yet to believe that it fails.
    Connecting,
    Up(Session),
    /// The last attempt failed; another will follow.
    Away(Failure),
}

/// The connections for commands while they live: one for publications, one for all else.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) address: Address,
    pub(crate) run: Run,
    redis: MultiplexedConnection,
    pipe: Pipe,
    number: u64,
}

impl Server {
    /// Starts to connect. Must be called within a runtime.
    pub(crate) fn start(opener: Arc<Opener>, counters: Arc<Counters>, place: Place) -> Arc<Self> {
        let shared = Arc::new(Shared {
            opener,
            counters,
            place,
            state: watch::Sender::new(State::Connecting),
            wanted: Notify::new(),
            suspected: watch::Sender::new((0, Failure::timed_out())),
        });
        Arc::new(Self { _supervisor: Task::spawn(supervise(shared.clone())), shared })
    }

    /// What the configuration calls it.
    pub(crate) fn name(&self) -> String {
        self.shared.place.to_string()
    }

    /// Why it does not answer, if it does not.
    pub(crate) fn away(&self) -> Option<String> {
        match &*self.shared.state.borrow() {
            State::Up(_) => None,
            State::Connecting => Some("connecting".to_owned()),
            State::Away(failure) => Some(failure.text().to_owned()),
        }
    }

    /// Fails while the server is away.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &*self.shared.state.borrow() {
            State::Away(failure) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// The connection; waits while it is being opened, fails at once while the server is away.
    pub(crate) async fn session(&self) -> Result<Session, Failure> {
        self.settled(self.shared.state.subscribe()).await
    }

    /// The connection; makes an attempt where none is under way and waits for its outcome.
    pub(crate) async fn reach(&self) -> Result<Session, Failure> {
        let mut state = self.shared.state.subscribe();
        if matches!(&*state.borrow_and_update(), State::Away(_)) {
            self.shared.wanted.notify_one();
            let _ = timeout(self.shared.opener.config.deadline, state.changed()).await;
        }
        self.settled(state).await
    }

    async fn settled(&self, mut state: watch::Receiver<State>) -> Result<Session, Failure> {
        let settled = state.wait_for(|state| !matches!(state, State::Connecting));
        let settled = timeout(self.shared.opener.config.deadline, settled).await;
        match settled.as_ref().map(|state| state.as_deref()) {
            Ok(Ok(State::Up(session))) => Ok(session.clone()),
            Ok(Ok(State::Away(failure))) => Err(failure.clone()),
            _ => Err(Failure::away(format!("{} is being connected", self.name()))),
        }
    }

    /// Waits until another server than the one at `address` is commanded.
    pub(crate) async fn left(&self, address: &Address) {
        let mut state = self.shared.state.subscribe();
        let elsewhere = |state: &State| matches!(state, State::Up(now) if now.address != *address);
        let _ = state.wait_for(elsewhere).await;
    }

    /// Gives the connection up and opens another.
    pub(crate) fn suspect(&self, session: &Session, why: Failure) {
        if self.shared.opener.config.lacks(Protection::Suspicion) {
            return;
        }
        self.shared.suspected.send_if_modified(|suspected| {
            let newer = suspected.0 < session.number;
            if newer {
                *suspected = (session.number, why);
            }
            newer
        });
    }

    /// One command.
    pub(crate) async fn call(&self, session: &Session, command: &Cmd) -> Result<Value, Failure> {
        let answer = session.redis.clone().send_packed_command(command).await;
        self.judge(session, answer.and_then(Value::extract_error).map_err(Failure::from))
    }

    /// A script, loaded where the server does not know it.
    pub(crate) async fn run(
        &self,
        session: &Session,
        script: &Script,
        question: &Question,
    ) -> Result<Value, Failure> {
        let answer = session.redis.clone().send_packed_command(&script.by_hash(question)).await;
        let answer = match answer.and_then(Value::extract_error) {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                session.redis.clone().send_packed_command(&script.by_text(question)).await
            }
            answer => answer,
        };
        self.judge(session, answer.and_then(Value::extract_error).map_err(Failure::from))
    }

    /// Commands from `MULTI` to `EXEC`: what each answered, or the first error.
    pub(crate) async fn transact(
        &self,
        session: &Session,
        commands: Commands,
    ) -> Result<Value, Failure> {
        self.judge(session, session.pipe.ask(commands).await.and_then(told))
    }

    /// The publishing script, in order with transactions.
    pub(crate) async fn publish(
        &self,
        session: &Session,
        question: &Question,
    ) -> Result<Value, Failure> {
        let answer = match session.pipe.ask(Commands::from(&PUBLISH.by_hash(question))).await {
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {
                session.pipe.ask(Commands::from(&PUBLISH.by_text(question))).await
            }
            answer => answer,
        };
        self.judge(session, answer.and_then(told))
    }

    fn judge<T>(&self, session: &Session, answer: Result<T, Failure>) -> Result<T, Failure> {
        answer.map_err(|failure| match failure.fault {
            // It was sent, so it may have been done.
            Fault::Away => Failure::new(Fault::TimedOut, failure.text()),
            _ => {
                if failure.is_fatal() {
                    self.suspect(session, failure.clone());
                }
                failure
            }
        })
    }
}

/// An error as a failure.
pub(crate) fn told(answer: Value) -> Result<Value, Failure> {
    match answer {
        Value::ServerError(error) => Err(Failure::answered(&error)),
        answer => Ok(answer),
    }
}

async fn supervise(shared: Arc<Shared>) {
    let (mut backoff, mut was_up) = (FIRST_BACKOFF, false);
    for number in 1.. {
        match open(&shared, number).await {
            Ok((session, [commands, publications])) => {
                backoff = FIRST_BACKOFF;
                if replace(&mut was_up, true) {
                    bump(&shared.counters.reconnects);
                }
                let address = session.address.clone();
                let run = session.run.clone();
                shared.state.send_replace(State::Up(session));
                let mut suspected = shared.suspected.subscribe();
                let state = tokio::select! {
                    () = commands => State::Connecting,
                    () = publications => State::Connecting,
                    () = replaced(&shared, &address, &run) => State::Connecting,
                    why = suspected.wait_for(|suspected| suspected.0 >= number) => {
                        why.map_or(State::Connecting, |why| State::Away(why.1.clone().unsent()))
                    }
                };
                shared.state.send_replace(state);
            }
            Err(failure) => {
                shared.state.send_replace(State::Away(failure));
                if was_up && shared.opener.config.lacks(Protection::Persistence) {
                    return;
                }
                tokio::select! {
                    () = sleep(jitter(backoff)) => {}
                    () = shared.wanted.notified() => {}
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
            }
        }
    }
}

/// Waits until another server has taken the place; for ever where none can. It is asked for whenever a Sentinel says so,
/// and now and then, since what they say may be lost.
async fn replaced(shared: &Shared, address: &Address, run: &Run) {
    let interval = shared.opener.config.probe_interval;
    let never = interval.is_zero() || shared.opener.config.lacks(Protection::Replaced);
    if never || !shared.place.may_change() {
        return std::future::pending().await;
    }
    let told = Arc::new(Notify::new());
    let _listening = shared.place.listen(&shared.opener, &told);
    loop {
        let _ = timeout(interval, told.notified()).await;
        for likelier in shared.place.find(&shared.opener).await.unwrap_or_default() {
            if likelier == *address {
                break;
            }
            // A Sentinel may be behind and name what is no primary any more, or call the same one otherwise.
            let Ok(mut opened) = shared.opener.open_primary(&likelier, None).await else {
                continue;
            };
            match Info::ask(&mut opened.redis).await {
                Ok(info) if run.is_of(&info) => break,
                Ok(_) => return,
                Err(_) => {}
            }
        }
    }
}

/// The connections, and the tasks that end with them, to the likeliest place where a primary takes them.
async fn open(shared: &Shared, number: u64) -> Result<(Session, [Task; 2]), Failure> {
    let mut outcome = Err(Failure::away("nobody knows where it is"));
    for address in shared.place.find(&shared.opener).await? {
        outcome = open_at(shared, number, address).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn open_at(
    shared: &Shared,
    number: u64,
    address: Address,
) -> Result<(Session, [Task; 2]), Failure> {
    let Opened { mut redis, driver } = shared.opener.open_primary(&address, None).await?;
    let info = Info::ask(&mut redis).await?;
    shared.opener.refuse_eviction(&address, &info)?;
    let durable = match shared.opener.config.durable {
        Some(durable) => durable,
        None => shared.place.is_fixed() && is_durable(&mut redis, &info).await,
    };
    let run = Run::read(&info, &address, durable)?;
    // So that no call of several under way is refused for want of it. Who may not load it runs it by its text.
    let _ = redis.send_packed_command(&PUBLISH.load()).await;
    let (pipe, publications) = Pipe::open(&shared.opener, &address).await?;
    let mut ask = Commands::default();
    ask.add([b"INFO", b"server"]);
    let info = Info::from(&told(pipe.ask(ask).await?)?);
    // In front of a server there may be something that leads connections now here, now there.
    if Run::read(&info, &address, durable)? != run {
        return Err(Failure::away(format!("{address} is another server each time")));
    }
    Ok((Session { address, run, redis, pipe, number }, [driver, publications]))
}

/// The first wait after a failed attempt, about; it doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
