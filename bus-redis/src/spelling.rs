//! How topics are spelled in names of channels and keys, so that none can be taken for another.
//!
//! `r:TENANT:ROOM`, `u:TENANT:USER`, `c:TENANT:CLIENT` and `e:TENANT:`. Every byte of a name that is not a
//! letter or digit of ASCII, `-`, `.`, `_` or `~` is written `%XX`; the default tenant is empty.

use tidings_core::{RoomId, Scope, TenantId, Topic, UserId};

/// The topic as it stands in channels and keys.
pub(crate) fn spell(topic: &Topic) -> String {
    let mut text = String::with_capacity(32);
    spell_into(topic, &mut text);
    text
}

pub(crate) fn spell_into(topic: &Topic, text: &mut String) {
    let tenant = topic.tenant.name().unwrap_or_default();
    let kind = match &topic.scope {
        Scope::Room(_) => 'r',
        Scope::User(_) => 'u',
        Scope::Client(_) => 'c',
        _ => 'e',
    };
    text.push(kind);
    text.push(':');
    escape(tenant, text);
    text.push(':');
    match &topic.scope {
        Scope::Room(room) => escape(room.as_str(), text),
        Scope::User(user) => escape(user.as_str(), text),
        Scope::Client(client) => text.push_str(&client.to_string()),
        _ => {}
    }
}

/// The topic that is spelled so; `None` when none is.
pub(crate) fn read(text: &str) -> Option<Topic> {
    let mut parts = text.split(':');
    let (kind, tenant, name) = (parts.next()?, parts.next()?, parts.next()?);
    let tenant = match tenant {
        "" => TenantId::default(),
        tenant => TenantId::new(unescape(tenant)?).ok()?,
    };
    let topic = match kind {
        "r" => Topic::room(tenant, RoomId::new(unescape(name)?).ok()?),
        "u" => Topic::user(tenant, UserId::new(unescape(name)?).ok()?),
        "c" => Topic::client(tenant, name.parse().ok()?),
        "e" if name.is_empty() => Topic::everyone(tenant),
        _ => return None,
    };
    parts.next().is_none().then_some(topic)
}

/// Appends a name with everything but letters, digits and `-._~` as `%XX`.
pub(crate) fn escape(name: &str, text: &mut String) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Reads `%XX`; `None` when an escape is broken or the bytes are not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        (bytes, rest) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |d: &u8| char::from(*d).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                (bytes, tail)
            }
            (b'%', _) => return None,
            (byte, tail) => {
                bytes.push(*byte);
                (bytes, tail)
            }
        };
    }
    String::from_utf8(bytes).ok()
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_core::ClientId;

    use super::*;

    #[test]
    fn known_topics_are_spelled_as_documented() {
        let acme = TenantId::new("acme").expect("a name");
        let lobby = RoomId::new("the lobby: *").expect("a name");
        assert_eq!(spell(&Topic::room(acme.clone(), lobby.clone())), "r:acme:the%20lobby%3A%20%2A");
        assert_eq!(spell(&Topic::room(TenantId::default(), lobby)), "r::the%20lobby%3A%20%2A");
        assert_eq!(spell(&Topic::everyone(acme)), "e:acme:");
    }

    #[test]
    fn what_no_topic_is_spelled_like_is_none() {
        for text in [
            "", "r", "r:", "r::", "x::a", "r::a:b", "r::%", "r::%4", "r::%zz", "e::a", "c::0",
            "r::%FF", "r::%0A",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        let hostile = proptest::sample::select(vec![
            "*", "?", ":", "{}", "{a}", "[a-z]", " ", "%", "%41", "ä",
        ]);
        prop_oneof![hostile.prop_map(str::to_owned), "\\PC{1,60}"]
            .prop_filter("a name", |n| RoomId::new(n).is_ok())
    }

    fn topic() -> impl Strategy<Value = Topic> {
        let tenant = prop_oneof![
            Just(TenantId::default()),
            name().prop_map(|n| TenantId::new(n).expect("a name"))
        ];
        (tenant, name(), 0..4, any::<u128>()).prop_map(|(tenant, name, kind, bits)| match kind {
            0 => Topic::room(tenant, RoomId::new(name).expect("a name")),
            1 => Topic::user(tenant, UserId::new(name).expect("a name")),
            2 => Topic::client(tenant, ClientId::from_bits(bits)),
            _ => Topic::everyone(tenant),
        })
    }

    proptest! {
        #[test]
        fn a_topic_reads_back_and_nothing_escapes(topic in topic()) {
            let text = spell(&topic);
            prop_assert_eq!(read(&text), Some(topic));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%:".contains(&b)));
            prop_assert_eq!(text.matches(':').count(), 2);
        }

        #[test]
        fn two_topics_are_never_spelled_alike(a in topic(), b in topic()) {
            prop_assert_eq!(a == b, spell(&a) == spell(&b));
        }
    }
}
