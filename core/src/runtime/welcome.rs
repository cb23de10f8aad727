//! The welcome of a connection: what comes after `connected`, and how a client that comes back is told what it missed.

use std::collections::HashSet;

use super::handler::Context;
use super::operations::{Done, NotJoined, Start, allowed, enter, join, joined, too_many};
use super::replay::{Replaying, prove};
use super::slot::gap_of;
use super::types::ConnectOptions;
use crate::machines::Resume;
use crate::session::{JoinRequest, Outcome};
use crate::{CloseReason, ErrorCode, GapReason, Mark, Outgoing, RoomId, Topic};

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
}
