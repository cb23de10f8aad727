//! `POST /publish`: for back ends in any language.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings_core::json::{Object, present};
use tidings_core::{
    BusError, Except, Message, MessageType, Payload, Publication, PublishError, Receipt, RoomId,
    TenantId, Topic, UserId,
};

use crate::app::App;

/// Publishes one object or an array of them; answers an array, in order.
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let is_key = |key: &str| same_secret(key.as_bytes(), app.publish_key.as_bytes());
    if !bearer(&headers).is_some_and(is_key) {
        return (StatusCode::UNAUTHORIZED, "the publish key is missing or wrong\n").into_response();
    }
    let deadline = app.hub.limits().handshake_deadline;
    let body = match crate::body::read(body, MAX_BODY_BYTES, deadline).await {
        Ok(body) => body,
        Err(status) => return (status, "at most 1 MiB, within the deadline\n").into_response(),
    };
    let wanted: Vec<&RawValue> = match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(&body).map(|one| vec![one]).unwrap_or_default(),
        Some(b'[') => match serde_json::from_slice(&body) {
            Ok(many) => many,
            Err(_) => return not_json(),
        },
        _ => return not_json(),
    };
    match wanted.len() {
        0 if body.trim_ascii_start().starts_with(b"{") => return not_json(),
        n if n > MAX_PUBLICATIONS => {
            return (StatusCode::PAYLOAD_TOO_LARGE, "at most 1,000 publications\n").into_response();
        }
        _ if !app.hub.is_bus_up() => {
            return (StatusCode::SERVICE_UNAVAILABLE, "the bus is away\n").into_response();
        }
        _ => {}
    }
    let (mut good, mut answers) = (Vec::new(), Vec::with_capacity(wanted.len()));
    for one in wanted {
        answers.push(match read(one, &body) {
            Err(reason) => Some(failed("invalid_message", &reason)),
            Ok(publication) => {
                good.push(publication);
                None
            }
        });
    }
    let topics: Vec<_> = good.iter().map(|publication| publication.topic.clone()).collect();
    let published = app.hub.publish_all(good).await;
    if !published.is_empty() && published.iter().all(is_away) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the bus is away\n").into_response();
    }
    let mut published =
        published.into_iter().zip(topics).map(|(published, topic)| match published {
            Ok(receipt) => match app.hub.cursor_of(&topic, &receipt) {
                Some(cursor) => json!({ "cursor": cursor }),
                None => json!({}),
            },
            Err(error) => failed(code(&error), &error.to_string()),
        });
    let answers: Vec<_> =
        answers.into_iter().filter_map(|wrong| wrong.or_else(|| published.next())).collect();
    axum::Json(answers).into_response()
}

/// Whether it is certain that nothing was published since the bus is away. What the bus did not answer in time may
/// have been published, and is told in its place.
fn is_away(published: &Result<Receipt, PublishError>) -> bool {
    matches!(published, Err(PublishError::Bus(BusError::Unavailable(_))))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted<'a> {
    to: Object<To>,
    except: Option<Object<To>>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    tenant: Option<String>,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    room: Option<String>,
    user: Option<String>,
    client: Option<String>,
    everyone: Option<bool>,
}

fn read(one: &RawValue, body: &Bytes) -> Result<Publication, String> {
    let Object(wanted): Object<Wanted<'_>> =
        serde_json::from_str(one.get()).map_err(|e| e.to_string())?;
    let tenant =
        wanted.tenant.map(TenantId::new).transpose().map_err(|e| format!("tenant: {e}"))?;
    let topic = topic(wanted.to.0, tenant.unwrap_or_default())?;
    let kind = MessageType::new(&wanted.kind).map_err(|e| format!("type: {e}"))?;
    let payload = wanted.payload.map(|raw| Payload::json(body.slice_ref(raw.get().as_bytes())));
    let payload = payload.transpose().map_err(|e| format!("payload: {e}"))?;
    let mut publication = Publication::new(topic, Message { kind, payload });
    publication.except = wanted.except.map(|Object(who)| except(who)).transpose()?;
    publication.idempotency_key = wanted.idempotency_key;
    Ok(publication)
}

fn topic(to: To, tenant: TenantId) -> Result<Topic, String> {
    match to {
        To { room: Some(room), user: None, client: None, everyone: None } => RoomId::new(room)
            .map(|room| Topic::room(tenant, room))
            .map_err(|e| format!("to.room: {e}")),
        To { room: None, user: Some(user), client: None, everyone: None } => UserId::new(user)
            .map(|user| Topic::user(tenant, user))
            .map_err(|e| format!("to.user: {e}")),
        To { room: None, user: None, client: Some(client), everyone: None } => client
            .parse()
            .map(|client| Topic::client(tenant, client))
            .map_err(|e| format!("to.client: {e}")),
        To { room: None, user: None, client: None, everyone: Some(true) } => {
            Ok(Topic::everyone(tenant))
        }
        _ => Err("`to` takes one of `room`, `user`, `client` and `everyone: true`".to_owned()),
    }
}

fn except(except: To) -> Result<Except, String> {
    match except {
        To { room: None, user: Some(user), client: None, everyone: None } => {
            UserId::new(user).map(Except::User).map_err(|e| format!("except.user: {e}"))
        }
        To { room: None, user: None, client: Some(client), everyone: None } => {
            client.parse().map(Except::Client).map_err(|e| format!("except.client: {e}"))
        }
        _ => Err("`except` takes one of `user` and `client`".to_owned()),
    }
}

fn code(error: &PublishError) -> &'static str {
    match error {
        PublishError::Reserved => "reserved_type",
        PublishError::TooLarge { .. } => "too_large",
        PublishError::Forbidden => "forbidden",
        _ => "unavailable",
    }
}

fn failed(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

fn not_json() -> Response {
    (StatusCode::BAD_REQUEST, "the body must be a JSON object or an array of them\n")
        .into_response()
}

/// RFC 6750, section 2.1; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Compares in a time that does not tell where two secrets of one length differ.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// Longest body, and most publications in it (protocol, "Publishing over HTTP").
const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_PUBLICATIONS: usize = 1000;
