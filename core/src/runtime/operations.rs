//! What takes time on a connection: the welcome, joins and leaves, renewals, the application's messages.

use std::sync::Arc;

use super::handler::{Context, Reply};
use super::observer::Event;
use super::replay::{Replaying, prove};
use super::shard::Joined;
use super::slot::gap_of;
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
pub(super) struct NotJoined(
    pub(super) ErrorCode,
    pub(super) &'static str,
    pub(super) Option<RoomId>,
);

/// Holds a connection and puts it into a room, without a word: what comes in the room from now on waits.
pub(super) async fn enter(
    context: &Context,
    topic: &Topic,
    wished: Wished,
) -> Result<Entered, NotJoined> {
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
pub(super) struct Entered {
    /// From where it reads the topics that it was in, unless a replay is under way.
    starts: Starts,
    /// Where the room stands, when anything is kept.
    here: Option<Mark>,
}

/// Asks whether there is place for a room and whether it may be joined, and has its topic subscribed.
pub(super) async fn allowed(
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

pub(super) fn too_many(room: Option<RoomId>) -> NotJoined {
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
pub(super) async fn joined(
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
    pub(super) fn gap(&self) -> GapReason {
        match self {
            Self::Marks(_) => GapReason::Trimmed,
            Self::Fresh | Self::Unreadable => GapReason::Cursor,
        }
    }
}

impl Context {
    /// Takes a topic in whose partition is away: it is not read, and the client is told so if it may have missed something.
    pub(super) fn pass_over(&self, resume: &mut Resume, topic: &Topic, start: &Start) {
        let partition = self.hub.0.bus.partition(topic);
        let from = match start {
            Start::Fresh => None,
            Start::Marks(marks) => Some(marks[usize::from(partition)]),
            Start::Unreadable => Some(Mark::NOWHERE),
        };
        resume.pass_over(topic, partition, from);
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

    pub(super) fn start(&self, cursor: Option<&str>) -> Start {
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
    pub(super) async fn tell(&self, messages: Vec<Outgoing>, gap: Option<GapReason>) {
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
