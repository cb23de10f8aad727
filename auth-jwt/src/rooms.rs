//! Which rooms a token opens.

use async_trait::async_trait;
use tidings_core::{Action, Authorizer, Denied, Identity, Pattern, RoomId};

/// Opens the rooms that match a pattern of the token's `rooms` claim, a list of texts.
///
/// What a pattern means says [`Pattern`]. A `rooms` claim of another kind opens nothing. Publishing is
/// allowed to topics of matching rooms of the client's own tenant and to no other topic; whether the
/// client is in the room is for the handler to check.
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
        patterns.into_iter().any(|pattern| Pattern::new(pattern).matches(room.as_str()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{Claims, TenantId, Topic, UserId};

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
