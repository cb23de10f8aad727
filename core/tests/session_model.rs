//! A session answers as the protocol's table "From the client" says, whatever comes and whenever.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tidings_core::machines::{Effect, Input, Now, Operation, Outcome, Session};
use tidings_core::{
    CloseReason, CorrelationId, ErrorCode, Limits, Message, Outgoing, Payload, Verdict,
};

/// What a message means, by the table.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meaning {
    Pong,
    Join,
    Leave,
    Renew,
    Handle,
    Reserved,
    Forbidden,
    Invalid,
}

/// Type and payload as JSON, and what they mean.
const MESSAGES: &[(&str, &str, Meaning)] = &[
    (r#""ping""#, "", Meaning::Pong),
    (r#""ping""#, "[1]", Meaning::Pong),
    (r#""join:room""#, r#"{"roomId":"r"}"#, Meaning::Join),
    (r#""join:room""#, r#"{"roomId":"r","cursor":"c","presence":true,"x":1}"#, Meaning::Join),
    (r#""join:room""#, "", Meaning::Invalid),
    (r#""join:room""#, "null", Meaning::Invalid),
    (r#""join:room""#, r#"{"roomId":""}"#, Meaning::Invalid),
    (r#""join:room""#, r#"{"roomId":"r","presence":"yes"}"#, Meaning::Invalid),
    (r#""join:room""#, r#"{"roomId":"a\u0007"}"#, Meaning::Invalid),
    (r#""join:room""#, r#"["r",null,false,null]"#, Meaning::Invalid),
    (r#""join:room""#, r#"{"roomId":"r","token":5}"#, Meaning::Join),
    (r#""leave:room""#, r#"{"roomId":"r"}"#, Meaning::Leave),
    (r#""leave:room""#, r#"{"roomId":"r","cursor":1,"presence":"x"}"#, Meaning::Leave),
    (r#""leave:room""#, r#"["r"]"#, Meaning::Invalid),
    (r#""leave:room""#, r#"["r",null,null,null]"#, Meaning::Invalid),
    (r#""leave:room""#, r#"{"roomId":7}"#, Meaning::Invalid),
    (r#""token:renew""#, r#"{"token":"t"}"#, Meaning::Renew),
    (r#""token:renew""#, r#"{"token":""}"#, Meaning::Forbidden),
    (r#""token:renew""#, "{}", Meaning::Invalid),
    (r#""token:renew""#, r#"{"token":"t","roomId":5}"#, Meaning::Renew),
    (r#""token:renew""#, r#"["t"]"#, Meaning::Invalid),
    (r#""token:renew""#, r#"[null,null,null,"t"]"#, Meaning::Invalid),
    (r#""chat""#, r#"{"text":"hi"}"#, Meaning::Handle),
    (r#""chat""#, "", Meaning::Handle),
    (r#""room:message""#, "1.50", Meaning::Handle),
    (r#""connected""#, "", Meaning::Reserved),
    (r#""gap""#, "{}", Meaning::Reserved),
    (r#""room:joined""#, "", Meaning::Reserved),
    (r#""presence:x""#, "", Meaning::Reserved),
    (r#""server:x""#, "1", Meaning::Reserved),
    (r#""token:x""#, "", Meaning::Reserved),
    (r#""""#, "", Meaning::Invalid),
    ("5", "", Meaning::Invalid),
    (r#""a\u0000""#, "", Meaning::Invalid),
];
/// What is no message and has no id that could be read.
const BROKEN: &[&str] = &["", "[]", "null", "{", "\u{1}", r#"{"type":"ping","id":1} x"#];
/// Ids as written, and whether they are ids.
const IDS: &[(&str, bool)] = &[
    ("7", true),
    ("-1", true),
    (r#""a""#, true),
    (r#""\u0061""#, true),
    ("1.5", false),
    ("null", false),
    (r#""""#, false),
    ("[]", false),
];

#[derive(Debug, Clone)]
enum Op {
    Say {
        message: usize,
        id: Option<usize>,
        submitted: bool,
    },
    Break {
        text: usize,
        submitted: bool,
    },
    Finish {
        how: u8,
        expires_in: Option<u64>,
    },
    Pass {
        millis: u64,
    },
    /// To where the session wants to be woken, or a nanosecond short of it.
    Timeout {
        short: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..MESSAGES.len(), option::of(0..IDS.len()), any::<bool>())
            .prop_map(|(message, id, submitted)| Op::Say { message, id, submitted }),
        1 => (0..BROKEN.len(), any::<bool>()).prop_map(|(text, submitted)| Op::Break { text, submitted }),
        6 => (0..5_u8, option::of(0..1000_u64)).prop_map(|(how, expires_in)| Op::Finish { how, expires_in }),
        3 => (0..2000_u64).prop_map(|millis| Op::Pass { millis }),
        1 => (0..20_000_u64).prop_map(|millis| Op::Pass { millis }),
        1 => any::<bool>().prop_map(|short| Op::Timeout { short }),
    ]
}

struct World {
    session: Session,
    limits: Limits,
    now: Now,
    tokens: f64,
    refilled: Duration,
    refusals: Vec<Duration>,
    /// When the token ends and when that is announced; the latter only until it was.
    expiry: Option<(u64, Option<Duration>)>,
    running: Option<Operation>,
    closed: bool,
}

impl World {
    fn new(rate: u32, burst: u32, expires_in: Option<u64>) -> Self {
        let (mut limits, now) = (Limits::default(), start());
        (limits.message_rate, limits.message_burst) = (rate, burst);
        let expires_at = expires_in.map(|secs| now.unix.as_secs() + secs);
        let session = Session::new(now, &limits, expires_at);
        let mut world = Self {
            session,
            tokens: burst.into(),
            refilled: now.monotonic,
            limits,
            now,
            refusals: Vec::new(),
            expiry: None,
            running: None,
            closed: false,
        };
        world.expires(expires_at);
        world
    }

    fn expires(&mut self, at: Option<u64>) {
        self.expiry = at.map(|at| {
            let end = Duration::from_secs(at);
            let ahead = (end.saturating_sub(self.now.unix) / 10).min(Duration::from_secs(60));
            (at, Some(end - ahead))
        });
    }

    fn end(&self) -> Option<Duration> {
        self.expiry.map(|(at, _)| Duration::from_secs(at) + self.limits.token_leeway)
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time;
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Say { message, id, submitted } if self.running.is_none() => {
                let (kind, payload, mut meaning) = MESSAGES[message];
                let mut text = format!("{{\"type\":{kind}");
                if !payload.is_empty() {
                    text += &format!(",\"payload\":{payload}");
                }
                let id = id.map(|n| IDS[n]);
                if let Some((json, good)) = id {
                    text += &format!(",\"id\":{json}");
                    meaning = if good { meaning } else { Meaning::Invalid };
                }
                let id = id.filter(|(_, good)| *good).map(|(json, _)| json);
                self.say(text + "}", meaning, id, submitted);
            }
            Op::Break { text, submitted } if self.running.is_none() => {
                self.say(BROKEN[text].to_owned(), Meaning::Invalid, None, submitted);
            }
            Op::Say { .. } | Op::Break { .. } => {}
            Op::Finish { how, expires_in } => self.finish(how, expires_in),
            Op::Pass { millis } => {
                self.pass(Duration::from_millis(millis));
                self.tick();
            }
            Op::Timeout { short } => {
                let Some(wait) = self.session.next_timeout(self.now) else { return };
                let wait = if short { wait.saturating_sub(Duration::from_nanos(1)) } else { wait };
                self.pass(wait);
                self.tick();
            }
        }
    }

    fn tick(&mut self) {
        let effects = self.handle(Input::Tick);
        assert_eq!(effects, [], "time alone answers nothing");
    }

    /// Hands in what happened; answers the effects without those of the token's end, which it checks.
    fn handle(&mut self, input: Input) -> Vec<Effect> {
        if let Input::Finished(Outcome::Renewed(_, expires_at)) = &input {
            self.expires(*expires_at);
        }
        let mut effects = Vec::new();
        self.session.handle(self.now, input, &mut effects);
        if self.end().is_some_and(|end| self.now.unix >= end) {
            assert_eq!(effects.pop(), Some(Effect::Close(CloseReason::TOKEN_EXPIRED)));
            self.closed = true;
        }
        if let Some((at, warning)) = &mut self.expiry
            && warning.take_if(|warn_at| self.now.unix >= *warn_at).is_some()
        {
            let expiring = Outgoing::token("token:expiring", Some(*at));
            assert_eq!(effects.pop(), Some(Effect::Send(expiring)));
        }
        let expired = Effect::Close(CloseReason::TOKEN_EXPIRED);
        assert!(!effects.contains(&expired), "closed before its time");
        assert!(
            !effects.iter().any(|e| matches!(e, Effect::Send(m) if &*m.kind == "token:expiring"))
        );
        effects
    }

    fn check(&self) {
        assert_eq!(self.session.is_busy(), self.running.is_some());
        let wait = self.session.next_timeout(self.now);
        let warning = self.expiry.and_then(|(_, warning)| warning);
        match warning.or(self.end()) {
            None => assert_eq!(wait, None),
            Some(due) => {
                let wait = wait.expect("something will happen");
                assert!(self.now.unix + wait <= due, "it would sleep past {due:?}");
                assert!(wait > Duration::ZERO, "it would spin");
            }
        }
    }

    /// Whether the bucket lets one through; at the very edge either is right.
    fn passes(&mut self, refused: bool) {
        if self.limits.message_rate == 0 {
            return assert!(!refused, "a rate of 0 is none");
        }
        let time = (self.now.monotonic - self.refilled).as_secs_f64();
        self.refilled = self.now.monotonic;
        let filled = self.tokens + time * f64::from(self.limits.message_rate);
        self.tokens = filled.min(self.limits.message_burst.into());
        if refused {
            assert!(self.tokens < 1.0 + EDGE, "refused with {} to spend", self.tokens);
        } else {
            assert!(self.tokens > 1.0 - EDGE, "let through with {} to spend", self.tokens);
            self.tokens -= 1.0;
        }
    }

    fn say(&mut self, text: String, meaning: Meaning, id: Option<&str>, submitted: bool) {
        let text = Bytes::from(text);
        let input = if submitted { Input::Submitted(text) } else { Input::Message(text) };
        let mut effects = self.handle(input).into_iter();
        let first = effects.next();
        let refused = match &first {
            Some(Effect::Verdict(verdict)) if submitted => *verdict == Verdict::RateLimited,
            Some(Effect::Send(message)) => error_code(message) == Some("rate_limited"),
            _ => false,
        };
        self.passes(refused);
        if refused {
            if let Some(Effect::Send(message)) = first {
                assert_eq!(id_of(&message), id);
            }
            let window = Duration::from_secs(10);
            self.refusals.push(self.now.monotonic);
            self.refusals.retain(|at| self.now.monotonic - *at <= window);
            if self.refusals.len() >= 4 {
                assert_eq!(effects.next(), Some(Effect::Close(CloseReason::RATE_LIMITED)));
                self.closed = true;
            }
            return assert_eq!(effects.next(), None);
        }
        let answer = match (submitted, meaning) {
            (true, Meaning::Invalid) => {
                assert_eq!(first, Some(Effect::Verdict(Verdict::Invalid)));
                return assert_eq!(effects.next(), None);
            }
            // The handler may call it invalid yet.
            (true, Meaning::Handle) => first,
            (true, _) => {
                assert_eq!(first, Some(Effect::Verdict(Verdict::Accepted)));
                effects.next()
            }
            (false, _) => first,
        };
        assert_eq!(effects.next(), None, "one answer");
        self.answered(answer.expect("an answer"), meaning, id);
    }

    fn answered(&mut self, answer: Effect, meaning: Meaning, id: Option<&str>) {
        match answer {
            Effect::Send(message) => {
                assert_eq!(id_of(&message), id);
                match meaning {
                    Meaning::Pong => {
                        let ms = self.now.unix.as_millis();
                        assert_eq!(&*message.kind, "pong");
                        assert_eq!(payload(&message), format!("{{\"timestamp\":{ms}}}"));
                    }
                    Meaning::Reserved => assert_eq!(error_code(&message), Some("reserved_type")),
                    Meaning::Invalid => assert_eq!(error_code(&message), Some("invalid_message")),
                    Meaning::Forbidden => assert_eq!(error_code(&message), Some("forbidden")),
                    _ => panic!("{message:?} to {meaning:?}"),
                }
            }
            Effect::Start(operation) => {
                let (named, means) = match &operation {
                    Operation::Join(join) => {
                        assert_eq!(join.room.as_str(), "r");
                        assert_eq!(join.presence, join.cursor.is_some());
                        (&join.id, Meaning::Join)
                    }
                    Operation::Leave { id, .. } => (id, Meaning::Leave),
                    Operation::Renew { id, .. } => (id, Meaning::Renew),
                    Operation::Handle(message) => (&message.id, Meaning::Handle),
                    other => panic!("{other:?}"),
                };
                assert_eq!(means, meaning);
                assert_eq!(named.as_ref().map(CorrelationId::as_json), id);
                self.running = Some(operation);
            }
            other => panic!("{other:?} to {meaning:?}"),
        }
    }

    fn finish(&mut self, how: u8, expires_in: Option<u64>) {
        let Some(operation) = self.running.take() else { return };
        let id = match &operation {
            Operation::Join(join) => join.id.clone(),
            Operation::Handle(message) => message.id.clone(),
            Operation::Leave { id, .. } | Operation::Renew { id, .. } => id.clone(),
            other => panic!("{other:?}"),
        };
        let expires_at = expires_in.map(|secs| self.now.unix.as_secs() + secs);
        let reply = Message::empty("reply").expect("it is a type");
        let (outcome, kind) = match (operation, how) {
            (_, 0) => {
                let (code, text, room) = (ErrorCode::Unavailable, "not now", None);
                (Outcome::Failed { id: id.clone(), code, text, room }, Some("error"))
            }
            (Operation::Renew { .. }, _) => {
                (Outcome::Renewed(id.clone(), expires_at), Some("token:renewed"))
            }
            (Operation::Handle(_), 1 | 2) => {
                (Outcome::Handled(id.clone(), Some(reply)), Some("reply"))
            }
            (Operation::Handle(_), _) => {
                (Outcome::Handled(id.clone(), None), id.is_some().then_some("ok"))
            }
            _ => (Outcome::Answered, None),
        };
        let sent = self.handle(Input::Finished(outcome));
        assert_eq!(sent.len(), usize::from(kind.is_some()), "{sent:?}");
        for effect in sent {
            let Effect::Send(message) = effect else { panic!("{effect:?}") };
            assert_eq!((Some(&*message.kind), &message.id), (kind, &id));
        }
    }
}

fn start() -> Now {
    Now { monotonic: Duration::from_secs(3), unix: Duration::from_millis(1_700_000_000_250) }
}

fn id_of(message: &Outgoing) -> Option<&str> {
    message.id.as_ref().map(CorrelationId::as_json)
}

fn payload(message: &Outgoing) -> &str {
    let json = message.payload.as_ref().map_or(&b""[..], |p: &Payload| p.bytes());
    std::str::from_utf8(json).expect("JSON is UTF-8")
}

fn error_code(message: &Outgoing) -> Option<&str> {
    let code =
        payload(message).strip_prefix("{\"code\":\"").and_then(|rest| rest.split('"').next());
    code.filter(|_| &*message.kind == "error")
}

/// What two ways of counting in floating point may differ by.
const EDGE: f64 = 1e-6;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/proptest-regressions/session_model.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_session_keeps_the_table(
        rate in 0..6_u32,
        burst in 1..8_u32,
        expires_in in option::of(0..900_u64),
        ops in vec(op(), 1..120),
    ) {
        let mut world = World::new(rate, burst, expires_in);
        world.tick();
        for op in &ops {
            if world.closed {
                break;
            }
            world.check();
            world.run(op);
        }
    }
}
