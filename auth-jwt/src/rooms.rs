//! Which rooms a token opens.

use async_trait::async_trait;
use tidings_core::{Action, Authorizer, Denied, Identity, RoomId};

/// Opens the rooms that match a pattern of the token's `rooms` claim, a list of texts.
///
/// In a pattern `*` stands for any run of characters, also an empty one; all else is literal.
/// A `rooms` claim of another kind opens nothing. Publishing is allowed to topics of matching rooms
/// of the client's own tenant and to no other topic; whether the client is in the room is for the
/// handler to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoomPatterns {
    /// Whether a token without a `rooms` claim opens every room; otherwise it opens none.
    pub open: bool,
}

impl RoomPatterns {
    fn opens(self, who: &Identity, room: &RoomId) -> bool {
        if !who.claims.has("rooms") {
            return self.open;
        }
        let patterns: Vec<String> = who.claims.get("rooms").unwrap_or_default();
        patterns.iter().any(|pattern| matches(pattern, room.as_str()))
    }
}

#[async_trait]
impl Authorizer for RoomPatterns {
    async fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        let room = match action {
            Action::Join(room) => Some(room),
            Action::Publish(topic) if topic.tenant == who.tenant => topic.as_room(),
            _ => None,
        };
        let allowed = room.is_some_and(|room| self.opens(who, room));
        if allowed { Ok(()) } else { Err(Denied::Forbidden) }
    }
}

/// Whether the whole of `name` matches, without backtracking: between the first and the last
/// literal each one takes the earliest place it finds.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let between = name.strip_prefix(first).and_then(|name| name.strip_suffix(last));
    let Some(mut between) = between else { return false };
    for literal in middle.split('*') {
        match between.split_once(literal) {
            _ if literal.is_empty() => {}
            Some((_, after)) => between = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{Claims, TenantId, Topic, UserId};

    #[test]
    fn a_star_is_any_run_and_all_else_is_literal() {
        for (pattern, name) in [
            ("*", "anything"),
            ("**", "a"),
            ("a", "a"),
            ("a*", "a"),
            ("*a", "a"),
            ("a*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("*b*", "abc"),
            ("org.*", "org.x"),
            ("*ü", "grün-ü"),
            ("a*a", "aa"),
            ("ab*ba*ab", "abbaab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("a", "ab"),
            ("a", "A"),
            ("a*", "ba"),
            ("*a", "ab"),
            ("a*a", "a"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("org.*", "orgx"),
            ("?", "a"),
            ("[a]", "a"),
            ("a*x*b", "ab"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    fn who(claims: &str) -> Identity {
        let claims = Claims::new(claims.to_owned()).expect("an object");
        Identity { claims, ..Identity::user(UserId::new("ada").expect("a name")) }
    }

    #[tokio::test]
    async fn a_token_opens_the_rooms_it_names() {
        let room = RoomId::new("team-1").expect("a name");
        for (claims, closed, open) in [
            ("{}", false, true),
            (r#"{"rooms":["team-*"]}"#, true, true),
            (r#"{"rooms":["x","team-1"]}"#, true, true),
            (r#"{"rooms":[]}"#, false, false),
            (r#"{"rooms":["other"]}"#, false, false),
            (r#"{"rooms":"team-1"}"#, false, false),
            (r#"{"rooms":null}"#, false, false),
            (r#"{"rooms":["team-1",7]}"#, false, false),
        ] {
            for (door, expected) in [(false, closed), (true, open)] {
                let answer = RoomPatterns { open: door };
                let answer = answer.authorize(&who(claims), Action::Join(&room)).await;
                assert_eq!(answer.is_ok(), expected, "{claims} open={door}");
            }
        }
    }

    #[tokio::test]
    async fn one_publishes_to_matching_rooms_of_ones_own_tenant_alone() {
        let ada = who(r#"{"rooms":["*"]}"#);
        let room = |tenant| Topic::room(tenant, RoomId::new("r").expect("a name"));
        let elsewhere = TenantId::new("other").expect("a name");
        for (topic, allowed) in [
            (room(TenantId::default()), true),
            (room(elsewhere), false),
            (Topic::everyone(TenantId::default()), false),
            (Topic::user(TenantId::default(), ada.user.clone()), false),
        ] {
            let answer = RoomPatterns { open: true };
            let answer = answer.authorize(&ada, Action::Publish(&topic)).await;
            assert_eq!(answer.is_ok(), allowed, "{topic:?}");
        }
    }
}
