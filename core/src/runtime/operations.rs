//! What takes time on a connection: the welcome, joins and leaves, renewals, the application's messages.

use std::collections::HashSet;
use std::sync::Arc;

use super::handler::{Context, Reply};
use super::observer::Event;
use super::replay::{Replaying, prove};
use super::shard::Joined;
use super::slot::gap_of;
use super::types::ConnectOptions;
use super::wish::{BusAway, Wished};
use crate::machines::{Resume, Starts};
use crate::session::{JoinRequest, Outcome};
use crate::{
    Action, ClientMessage, CloseReason, ConnectRequest, CorrelationId, Denied, ErrorCode,
    GapReason, Identity, Mark, Outgoing, RoomId, Scope, Token, Topic,
};

/// How an operation changes the connection besides its outcome.
pub(crate) enum Done {
    Outcome(Outcome),
    /// It is done, and the connection goes on with what it has missed.
    Replaying(Outcome, Resume),
    /// The handler has returned; the replay goes on, if there is one.
    Handled(Outcome, Option<Replaying>),
    /// There is a new token; these rooms it does not open, and they have been left.
    Renewed(Arc<Identity>, Vec<Topic>, Outcome),
    Close(CloseReason),
}

/// Where a client says that it stands.
pub(crate) enum Start {
    /// Nowhere: it begins now.
    Fresh,
    Marks(Box<[Mark]>),
    /// It gave a cursor that is none here.
    Unreadable,
}

/// A room that could not be joined, and what the client is told.
struct NotJoined(ErrorCode, &'static str, Option<RoomId>);

/// What comes after `connected`: the handler, then the rooms that were named.
pub(crate) async fn welcome(context: Context, number: usize, options: ConnectOptions) -> Done {
    let start = context.start(options.cursor.as_deref());
    if context.hub.resumes(&options) {
        return welcome_back(&context, number, options, start).await;
    }
    if matches!(start, Start::Unreadable) {
        context.tell(vec![Outgoing::gap(None, GapReason::Cursor)], Some(GapReason::Cursor)).await;
    }
    let handling = context.handling(None);
    if let Err(reason) = handling.accept().await {
        return Done::Close(reason);
    }
    let Ok(replay) = handling.handled().await else { return Done::Close(CloseReason::INTERNAL) };
    let mut replay = replay.map(Replaying::stop);
    for room in named(&context, options.rooms) {
        let failed = match room {
            Err(failed) => Some(failed),
            Ok(room) => {
                let (cursor, presence) = (options.cursor.clone(), options.presence);
                let request = JoinRequest { room, cursor, presence, id: None };
                let outcome;
                (outcome, replay) = join(&context, number, request, replay).await;
                match outcome {
                    Outcome::Failed { code: ErrorCode::Unavailable, .. } => {
                        return Done::Close(CloseReason::TRY_AGAIN_LATER);
                    }
                    Outcome::Failed { code, text, room, .. } => Some(NotJoined(code, text, room)),
                    _ => None,
                }
            }
        };
        if let Some(NotJoined(code, text, room)) = failed {
            context.tell(vec![Outgoing::error(code, text, room.as_ref())], None).await;
        }
    }
    match replay {
        // A room that shows who is there was entered held, and goes on as a replay does.
        Some(resume) => Done::Replaying(Outcome::Answered, resume),
        None => Done::Outcome(Outcome::Answered),
    }
}

/// A client comes back: before it is told so, its rooms are joined and what it missed is found. When its cursor cannot
/// be read it begins here, and its own cursor stays nowhere until it was told so of every topic.
async fn welcome_back(
    context: &Context,
    number: usize,
    options: ConnectOptions,
    start: Start,
) -> Done {
    let tenant = &context.identity.tenant;
    let own = [
        Topic::user(tenant.clone(), context.identity.user.clone()),
        Topic::everyone(tenant.clone()),
    ];
    let mut rooms = Vec::new();
    for room in named(context, options.rooms) {
        rooms.push(match room {
            Err(failed) => Err(failed),
            Ok(room) => match allowed(context, number, &room).await {
                Err(failed) => Err(failed),
                Ok((topic, wished)) => enter(context, &topic, wished).await.map(|_| topic),
            },
        });
        // Were it to go on without a room, its cursor would pass what it misses there.
        if matches!(rooms.last(), Some(Err(NotJoined(ErrorCode::Unavailable, ..)))) {
            return Done::Close(CloseReason::TRY_AGAIN_LATER);
        }
    }
    let topics = || own.iter().chain(rooms.iter().filter_map(|room| room.as_ref().ok()));
    let (kept, lost): (Vec<_>, Vec<_>) = topics().partition(|topic| context.hub.keeps(topic));
    let (kept, away): (Vec<_>, Vec<_>) =
        kept.into_iter().partition(|topic| context.hub.is_linked(topic));
    let lost_by = start.gap();
    let Some(mut resume) = context.begin(&start, kept).await else {
        return Done::Close(CloseReason::INTERNAL);
    };
    for topic in away {
        context.pass_over(&mut resume, topic, &start);
    }
    if prove(context, &mut resume).await.is_err() {
        return Done::Close(CloseReason::TRY_AGAIN_LATER);
    }
    let recovered = lost.is_empty() && resume.is_recovered(None);
    let heartbeat = context.hub.0.limits.heartbeat.as_millis() as u64;
    let connected = Outgoing::connected(context.client, &context.identity, heartbeat, recovered);
    let connected = context.with_cursor(connected, &resume.marks());
    let key = context.key;
    context.shard.ask(move |members| members.open(key, &connected)).await;
    let handling = context.handling(Some(Replaying::new(resume)));
    if let Err(reason) = handling.accept().await {
        return Done::Close(reason);
    }
    // A replay goes on through each join.
    let Ok(Some(replay)) = handling.handled().await else {
        return Done::Close(CloseReason::INTERNAL);
    };
    let mut resume = replay.stop();
    if lost_by == GapReason::Cursor || own.iter().any(|topic| !context.hub.keeps(topic)) {
        context.tell(vec![Outgoing::gap(None, lost_by)], Some(lost_by)).await;
        resume.told_of_own();
    }
    for room in &rooms {
        match room {
            Err(NotJoined(code, text, room)) => {
                context.tell(vec![Outgoing::error(*code, text, room.as_ref())], None).await;
            }
            Ok(topic) => {
                let recovered = resume.is_recovered(Some(topic));
                joined(context, topic, recovered, options.presence, None, &resume).await;
                if !context.hub.keeps(topic) {
                    context.tell(vec![gap_of(topic, lost_by)], Some(lost_by)).await;
                }
            }
        }
    }
    Done::Replaying(Outcome::Answered, resume)
}

/// The rooms that a URL names, each once and as many as a connection may be in. The others are refused here, since each
/// that is looked at costs a question to the authorizer and a subscription.
fn named(context: &Context, names: Vec<String>) -> Vec<Result<RoomId, NotJoined>> {
    let max = context.hub.0.limits.rooms_per_connection;
    let (mut seen, mut good) = (HashSet::new(), 0);
    let mut look = |name: String| {
        let room = room_of(&name)?;
        if max > 0 && good == max {
            return Err(too_many(Some(room)));
        }
        good += 1;
        Ok(room)
    };
    names.into_iter().filter(|name| seen.insert(name.clone())).map(&mut look).collect()
}

fn room_of(name: &str) -> Result<RoomId, NotJoined> {
    let wrong = "a room's name has 1 to 255 bytes and no control characters";
    RoomId::new(name).map_err(|_| NotJoined(ErrorCode::InvalidMessage, wrong, None))
}

/// Holds a connection and puts it into a room, without a word: what comes in the room from now on waits.
async fn enter(context: &Context, topic: &Topic, wished: Wished) -> Result<Entered, NotJoined> {
    let (key, max, of) = (context.key, context.hub.0.limits.rooms_per_connection, topic.clone());
    let entered = context.shard.ask(move |members| {
        let was_in = members.router.is_member(key, &of);
        let joined = members.join_room(key, &of, wished, max, None);
        matches!(joined, Joined::In).then(|| {
            let mut starts = members.pull(key);
            let here = starts.topics.get(&of).copied();
            if !was_in {
                starts.topics.remove(&of);
            }
            Entered { starts, here }
        })
    });
    entered.await.flatten().ok_or_else(|| too_many(topic.as_room().cloned()))
}

/// What a held connection was when it entered a room.
struct Entered {
    /// From where it reads the topics that it was in, unless a replay is under way.
    starts: Starts,
    /// Where the room stands, when anything is kept.
    here: Option<Mark>,
}

/// Asks whether there is place for a room and whether it may be joined, and has its topic subscribed.
async fn allowed(
    context: &Context,
    number: usize,
    room: &RoomId,
) -> Result<(Topic, Wished), NotJoined> {
    let (key, max, topic) =
        (context.key, context.hub.0.limits.rooms_per_connection, context.room(room.clone()));
    let has_place = context.shard.look(move |members| members.has_place(key, &topic, max)).await;
    if has_place == Some(false) {
        return Err(too_many(Some(room.clone())));
    }
    let fail = |code, text| Err(NotJoined(code, text, Some(room.clone())));
    match context.hub.authorize(&context.identity, Action::Join(room)).await {
        Ok(()) => {}
        Err(Denied::Forbidden) => return fail(ErrorCode::Forbidden, "this room may not be joined"),
        Err(Denied::Unavailable) => {
            return fail(ErrorCode::Unavailable, "cannot be decided now, try again");
        }
    }
    let topic = context.room(room.clone());
    match context.hub.want(number, vec![topic.clone()]).await {
        Ok(wished) => Ok((topic, wished)),
        Err(BusAway) => fail(ErrorCode::Unavailable, "the bus is away, try again"),
    }
}

fn too_many(room: Option<RoomId>) -> NotJoined {
    NotJoined(ErrorCode::TooManyRooms, "this connection is in too many rooms", room)
}

/// Joins a room. With a cursor, or while a replay is under way, the connection then pulls all its topics.
pub(crate) async fn join(
    context: &Context,
    number: usize,
    request: JoinRequest,
    resume: Option<Resume>,
) -> (Outcome, Option<Resume>) {
    let JoinRequest { room, cursor, presence, id } = request;
    let start = context.start(cursor.as_deref());
    let is_new = !context.is_in(&room).await;
    // Who is there is read while the connection is in the room already, so that nobody comes unnoticed.
    let shows = presence && context.hub.shows(&context.room(room.clone()));
    let resumes = match start {
        Start::Fresh => false,
        Start::Marks(_) => true,
        Start::Unreadable => context.hub.keeps(&context.room(room.clone())),
    };
    let pulls = resume.is_some() || is_new && (shows || resumes);
    let failed = |NotJoined(code, text, room), id| Outcome::Failed { id, code, text, room };
    let (topic, wished) = match allowed(context, number, &room).await {
        Ok(allowed) => allowed,
        Err(not) => return (failed(not, id), resume),
    };
    if !pulls {
        let unreadable = matches!(start, Start::Unreadable);
        match join_live(context, &topic, wished, presence, id.clone(), unreadable).await {
            Joined::In => return (Outcome::Answered, None),
            Joined::TooManyRooms => return (failed(too_many(Some(room)), id), None),
        }
    }
    match enter(context, &topic, wished).await {
        Err(not) => (failed(not, id), resume),
        Ok(entered) => {
            let resume = pull_room(context, &topic, presence, id, start, entered, resume).await;
            (Outcome::Answered, Some(resume))
        }
    }
}

async fn join_live(
    context: &Context,
    topic: &Topic,
    wished: Wished,
    presence: bool,
    id: Option<CorrelationId>,
    unreadable: bool,
) -> Joined {
    let Some(room) = topic.as_room() else { return Joined::In };
    let members = context.members(topic, presence).await;
    let answer = Outgoing::room_joined(room, false, members.as_deref()).answering(id);
    let (key, max) = (context.key, context.hub.0.limits.rooms_per_connection);
    let of = topic.clone();
    let joined =
        context.shard.ask(move |members| members.join_room(key, &of, wished, max, Some(answer)));
    let joined = joined.await.unwrap_or(Joined::In);
    if matches!(joined, Joined::In) && unreadable {
        let gap = vec![gap_of(topic, GapReason::Cursor)];
        context.tell(gap, Some(GapReason::Cursor)).await;
    }
    joined
}

/// A held connection has entered a room: what it missed there is found, and it is told that it is in.
async fn pull_room(
    context: &Context,
    topic: &Topic,
    presence: bool,
    id: Option<CorrelationId>,
    start: Start,
    Entered { starts, here }: Entered,
    resume: Option<Resume>,
) -> Resume {
    let mut resume = resume.unwrap_or_else(|| context.resume(starts));
    if resume.has(topic) {
        joined(context, topic, false, presence, id, &resume).await;
        return resume;
    }
    let partition = context.hub.0.bus.partition(topic);
    let has_marks = matches!(start, Start::Marks(_));
    let (mut recovered, mut untold) = (false, !matches!(start, Start::Fresh));
    if context.hub.keeps(topic) && !context.hub.is_linked(topic) {
        context.pass_over(&mut resume, topic, &start);
        untold = false;
    } else if let Some(here) = here.filter(|_| context.hub.keeps(topic)) {
        match &start {
            Start::Marks(marks) => {
                resume.add(topic.clone(), partition, marks[usize::from(partition)])
            }
            Start::Fresh | Start::Unreadable => resume.go_on(topic.clone(), partition, here),
        }
        if prove(context, &mut resume).await.is_ok() {
            recovered = has_marks && resume.is_recovered(Some(topic));
        } else {
            // What was missed cannot be read now; what comes from here on is read later.
            resume.remove(topic);
            resume.go_on(topic.clone(), partition, here);
            if has_marks {
                resume.miss(topic, GapReason::Outage);
            }
        }
        if matches!(start, Start::Unreadable) {
            resume.miss(topic, GapReason::Cursor);
        }
        untold = false;
    }
    joined(context, topic, recovered, presence, id, &resume).await;
    if untold {
        let gap = start.gap();
        context.tell(vec![gap_of(topic, gap)], Some(gap)).await;
    }
    resume
}

/// `room:joined`, with the cursor of the replay that is under way.
async fn joined(
    context: &Context,
    topic: &Topic,
    recovered: bool,
    presence: bool,
    id: Option<CorrelationId>,
    resume: &Resume,
) {
    let Some(room) = topic.as_room() else { return };
    let members = context.members(topic, presence).await;
    let answer = Outgoing::room_joined(room, recovered, members.as_deref()).answering(id);
    context.tell(vec![context.with_cursor(answer, &resume.marks())], None).await;
}

pub(crate) async fn leave(
    context: &Context,
    room: RoomId,
    id: Option<CorrelationId>,
    reason: Option<&str>,
) {
    let (key, topic) = (context.key, context.room(room.clone()));
    let left = Outgoing::room_left(&room, reason).answering(id);
    context.shard.ask(move |members| members.leave_room(key, topic, &left)).await;
}

/// A renewal presents the token alone: what the first request said besides is not kept.
pub(crate) async fn renew(context: Context, token: Token, id: Option<CorrelationId>) -> Done {
    let failed =
        |code, text| Done::Outcome(Outcome::Failed { id: id.clone(), code, text, room: None });
    let request = ConnectRequest { token: Some(token), ..ConnectRequest::default() };
    let identity = match context.hub.authenticate(&request).await {
        Ok(identity) => identity,
        Err(crate::AuthError::Unavailable(_)) => {
            return failed(ErrorCode::Unavailable, "the token cannot be checked now");
        }
        Err(_) => {
            return failed(
                ErrorCode::Forbidden,
                "the token is not valid; the old one stays in use",
            );
        }
    };
    if (&identity.tenant, &identity.user) != (&context.identity.tenant, &context.identity.user) {
        return failed(
            ErrorCode::Forbidden,
            "the token is of another user or tenant; the old one stays in use",
        );
    }
    let (key, mut left) = (context.key, Vec::new());
    let rooms =
        context.shard.ask(move |m| m.router.topics_of(key).cloned().collect::<Vec<Topic>>()).await;
    for topic in rooms.unwrap_or_default() {
        let Scope::Room(room) = topic.scope else { continue };
        if context.hub.authorize(&identity, Action::Join(&room)).await == Err(Denied::Forbidden) {
            left.push(context.room(room.clone()));
            leave(&context, room, None, Some("forbidden")).await;
        }
    }
    let expires_at = identity.expires_at;
    Done::Renewed(Arc::new(identity), left, Outcome::Renewed(id, expires_at))
}

pub(crate) async fn handle(context: &Context, message: ClientMessage) -> Outcome {
    let id = message.id;
    match context.hub.0.handler.on_message(context, &message.message).await {
        Ok(Reply::None) if id.is_none() => Outcome::Answered,
        Ok(Reply::None) => Outcome::Handled(id, None),
        Ok(Reply::Message(reply)) => Outcome::Handled(id, Some(reply)),
        Ok(Reply::Unknown) => Outcome::Failed {
            id,
            code: ErrorCode::UnknownType,
            text: "no handler knows this type",
            room: None,
        },
        Err(error) => {
            let (code, text) = error.told();
            Outcome::Failed { id, code, text, room: None }
        }
    }
}

impl Start {
    /// Of what is not kept, why it may be missing.
    fn gap(&self) -> GapReason {
        match self {
            Self::Marks(_) => GapReason::Trimmed,
            Self::Fresh | Self::Unreadable => GapReason::Cursor,
        }
    }
}

impl Context {
    /// A replay of these topics, which are kept, of a client that comes back; `None` when the shard is gone.
    async fn begin(&self, start: &Start, topics: Vec<&Topic>) -> Option<Resume> {
        let partition = |topic: &Topic| self.hub.0.bus.partition(topic);
        if let Start::Marks(marks) = start {
            let mut resume = Resume::new(marks.clone());
            for topic in topics {
                let from = marks[usize::from(partition(topic))];
                resume.add(topic.clone(), partition(topic), from);
            }
            return Some(resume);
        }
        let key = self.key;
        let here = self.shard.ask(move |members| members.pull(key)).await?;
        let mut resume = Resume::new(vec![Mark::NOWHERE; here.marks.len()]);
        for topic in topics {
            resume.go_on(topic.clone(), partition(topic), *here.topics.get(topic)?);
            resume.miss(topic, GapReason::Cursor);
        }
        Some(resume)
    }

    /// Takes a topic in whose partition is away: it is not read, and the client is told so if it may have missed something.
    fn pass_over(&self, resume: &mut Resume, topic: &Topic, start: &Start) {
        let partition = self.hub.0.bus.partition(topic);
        let from = match start {
            Start::Fresh => None,
            Start::Marks(marks) => Some(marks[usize::from(partition)]),
            Start::Unreadable => Some(Mark::NOWHERE),
        };
        resume.pass_over(topic.clone(), partition, from);
    }

    /// A replay of all the topics of an open connection that are kept.
    fn resume(&self, Starts { marks, topics }: Starts) -> Resume {
        let mut resume = Resume::new(marks);
        for (topic, from) in topics.into_iter().filter(|(topic, _)| self.hub.keeps(topic)) {
            let partition = self.hub.0.bus.partition(&topic);
            resume.go_on(topic, partition, from);
        }
        resume
    }

    fn start(&self, cursor: Option<&str>) -> Start {
        let Some(cursor) = cursor else { return Start::Fresh };
        match self.hub.read_cursor(&self.identity.tenant, cursor) {
            Some(marks) => Start::Marks(marks),
            None => Start::Unreadable,
        }
    }

    pub(crate) fn with_cursor(&self, mut message: Outgoing, marks: &[Mark]) -> Outgoing {
        let kept = self.hub.0.kept.as_ref();
        message.cursor = kept.map(|kept| kept.key.write(&self.identity.tenant, marks).into());
        message
    }

    /// Says something in the connection's one order; a gap is also observed.
    async fn tell(&self, messages: Vec<Outgoing>, gap: Option<GapReason>) {
        let key = self.key;
        self.shard.ask(move |members| members.send(key, &messages)).await;
        if let Some(reason) = gap {
            self.hub.0.observer.on(Event::Gap { reason, connections: 1 });
        }
    }

    /// Who is in a room, when that is asked and the room shows it; from then on the client is told who comes and goes.
    async fn members(&self, topic: &Topic, presence: bool) -> Option<Vec<String>> {
        if !presence || !self.hub.shows(topic) {
            return None;
        }
        let (key, room) = (self.key, topic.clone());
        self.shard.ask(move |members| members.watch(key, room)).await;
        if let Some(attendance) = self.hub.0.attendance.as_ref().filter(|a| a.attends(topic)) {
            attendance.claimed(topic, &self.identity.user).await;
        }
        let members = self.hub.present(topic).await.ok()?;
        Some(members.iter().map(ToString::to_string).collect())
    }
}
