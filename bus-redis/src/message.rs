//! What a message looks like in a channel and in a topic's stream.
//!
//! A line of JSON, a line feed, and the payload's bytes as they are:
//!
//! ```text
//! {"type":"news"}
//! {"text":"hello"}
//! ```
//!
//! The line knows `type`, `payload` (`json` when not given, `binary` or `none`), `exceptClient`, `exceptUser` and
//! `conflate`. In a channel a kept message has one more line before it: offset, clock and epoch.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_core::json::Object;
use tidings_core::{
    Delivery, Except, Message, MessageType, Payload, Position, Publication, Topic, UserId,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Body::is_json")]
    payload: Body,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    except_client: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    except_user: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflate: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Body {
    #[default]
    Json,
    Binary,
    None,
}

impl Body {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }
}

/// Appends what is published of a publication: all but its topic, retention and idempotency key.
pub(crate) fn encode(publication: &Publication, bytes: &mut Vec<u8>) {
    let message = &publication.message;
    let client = match &publication.except {
        Some(Except::Client(client)) => Some(client.to_string().into()),
        _ => None,
    };
    let user = match &publication.except {
        Some(Except::User(user)) => Some(user.as_str().into()),
        _ => None,
    };
    let header = Header {
        kind: message.kind.as_str().into(),
        payload: match &message.payload {
            Some(Payload::Json(_)) => Body::Json,
            Some(Payload::Binary(_)) => Body::Binary,
            None => Body::None,
        },
        except_client: client,
        except_user: user,
        conflate: publication.conflation_key.as_deref().map(Cow::from),
    };
    serde_json::to_writer(&mut *bytes, &header).expect("strings and a vector do not fail");
    bytes.push(b'\n');
    if let Some(payload) = &message.payload {
        bytes.extend_from_slice(payload.bytes());
    }
}

/// Reads what came out of a channel; `None` when it is not a message.
pub(crate) fn decode(topic: Topic, bytes: Bytes) -> Option<Delivery> {
    let (position, bytes) = match bytes.first()? {
        b'{' => (None, bytes),
        _ => {
            let (line, rest) = split_line(&bytes)?;
            (Some(position(&line)?), rest)
        }
    };
    decode_at(topic, position, &bytes)
}

/// Reads a message whose place is known; `None` when it is not a message.
pub(crate) fn decode_at(
    topic: Topic,
    position: Option<Position>,
    bytes: &Bytes,
) -> Option<Delivery> {
    let (line, payload) = split_line(bytes)?;
    let Object(header): Object<Header<'_>> = serde_json::from_slice(&line).ok()?;
    let payload = match header.payload {
        Body::Json => Some(Payload::json(payload).ok()?),
        Body::Binary => Some(Payload::Binary(payload)),
        Body::None => None,
    };
    let message = Message { kind: MessageType::new(&header.kind).ok()?, payload };
    let mut publication = Publication::new(topic, message);
    publication.except = match (header.except_client, header.except_user) {
        (Some(client), _) => Some(Except::Client(client.parse().ok()?)),
        (None, Some(user)) => Some(Except::User(UserId::new(user).ok()?)),
        (None, None) => None,
    };
    publication.conflation_key = header.conflate.map(Cow::into_owned);
    let mut delivery = Delivery::of(&publication);
    delivery.position = position;
    Some(delivery)
}

fn split_line(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    Some((bytes.slice(..end), bytes.slice(end + 1..)))
}

fn position(line: &[u8]) -> Option<Position> {
    let mut numbers = std::str::from_utf8(line).ok()?.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let position = Position { offset: next()?, clock: next()?, epoch: next()? };
    numbers.next().is_none().then_some(position)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_core::{ClientId, RoomId, TenantId};

    use super::*;

    fn lobby() -> Topic {
        Topic::room(TenantId::default(), RoomId::new("lobby").expect("a name"))
    }

    fn read(text: &'static str) -> Option<Delivery> {
        decode(lobby(), Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn what_another_language_publishes_is_read() {
        let message = Message::json("news", r#"{"text":"hello"}"#).expect("a message");
        let expected = Delivery::of(&Publication::new(lobby(), message));
        assert_eq!(read("{\"type\":\"news\"}\n{\"text\":\"hello\"}"), Some(expected.clone()));
        let position = Position { offset: 3, clock: 7, epoch: u64::MAX };
        let mut kept = expected;
        kept.position = Some(position);
        let text = "3 7 18446744073709551615\n{\"type\":\"news\"}\n{\"text\":\"hello\"}";
        assert_eq!(read(text), Some(kept));
    }

    #[test]
    fn what_is_no_message_is_none() {
        for text in [
            "",
            "\n",
            "hello",
            "{}\n1",
            "{\"type\":\"a\"}",
            "{\"type\":\"a\"}\n",
            "{\"type\":\"a\"}\n{",
            "{\"type\":\"\"}\n1",
            "{\"type\":\"a\",\"payload\":\"x\"}\n1",
            "1 2 3\n[\"a\"]\n1",
            "1 2\n{\"type\":\"a\"}\n1",
            "1 2 3 4\n{\"type\":\"a\"}\n1",
            "{\"type\":\"a\",\"exceptClient\":\"x\"}\n1",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    fn publication() -> impl Strategy<Value = Publication> {
        let payload = prop_oneof![
            Just(None),
            proptest::collection::vec(any::<u8>(), 0..200)
                .prop_map(|b| Some(Payload::Binary(b.into()))),
            "\\PC*".prop_map(|s| Some(
                Payload::json(format!("{s:?}")).unwrap_or(Payload::Json("1".into()))
            )),
        ];
        let except = prop_oneof![
            Just(None),
            any::<u128>().prop_map(|b| Some(Except::Client(ClientId::from_bits(b)))),
            "\\PC{1,50}".prop_map(|n| Some(Except::User(UserId::new(n).expect("a name")))),
        ];
        let key = proptest::option::of("\\PC{0,20}");
        ("\\PC{1,30}", payload, except, key).prop_map(|(kind, payload, except, key)| {
            let kind = MessageType::new(kind).expect("a type");
            let mut publication = Publication::new(lobby(), Message { kind, payload });
            publication.except = except;
            publication.conflation_key = key;
            publication
        })
    }

    proptest! {
        #[test]
        fn a_publication_reads_back(publication in publication()) {
            let mut bytes = Vec::new();
            encode(&publication, &mut bytes);
            let read = decode(lobby(), bytes.into());
            prop_assert_eq!(read, Some(Delivery::of(&publication)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(lobby(), bytes.into());
        }
    }
}
