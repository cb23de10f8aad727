//! The administrators' port.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_bus_redis::RedisBus;
use tidings_core::json::Object;
use tidings_core::{CloseReason, TenantId, Topic, UserId, origin_passes};

use crate::app::App;
use crate::metrics::Gauges;

type Shared = State<Arc<App>>;

/// All that administrators see.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("../../page/admin.html")) }))
        .route("/stats", get(stats))
        .route("/rooms", get(rooms))
        .route("/users", get(users))
        .route("/disconnect", post(disconnect))
        .route("/metrics", get(metrics))
        .with_state(app)
}

async fn stats(State(app): Shared) -> Json<Value> {
    let stats = app.hub.stats().await;
    let count = |name| stats.connections.get(name).copied().unwrap_or(0);
    Json(json!({
        "nodeId": app.hub.node_id().as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": app.started.elapsed().as_secs(),
        "connections": {"websocket": count("websocket"), "sse": count("sse")},
        "users": stats.users,
        "rooms": stats.rooms,
        "queuedBytes": stats.queued_bytes,
        "bus": {"kind": app.cli.bus.split(['+', ':']).next(), "state": if app.hub.is_bus_up() { "up" } else { "away" }},
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    tenant: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// Where a page ended; `next` is this in base64, so that it passes through any URL.
type Key = (String, String);

impl Page {
    fn read(page: Result<Query<Self>, QueryRejection>) -> Result<(Self, Option<Key>), String> {
        let Query(page) = page.map_err(|e| format!("{}; {PARAMETERS}", e.body_text()))?;
        if page.limit == Some(0) {
            return Err("`limit` is at least 1".to_owned());
        }
        let after = page.after.as_ref().map(|after| {
            let bytes = URL_SAFE_NO_PAD.decode(after).ok()?;
            let (tenant, name) = std::str::from_utf8(&bytes).ok()?.split_once('\0')?;
            Some((tenant.to_owned(), name.to_owned()))
        });
        match after {
            Some(None) => Err("`after` takes what another answer said as `next`".to_owned()),
            after => Ok((page, after.flatten())),
        }
    }

    /// The rows of this page, which are sorted by tenant and name, and `next` when more follow.
    fn cut(&self, name: &str, after: Option<&Key>, rows: &[(Key, Value)]) -> Value {
        let wanted =
            |((tenant, _), _): &&(Key, Value)| self.tenant.as_ref().is_none_or(|t| t == tenant);
        let later = |(key, _): &&(Key, Value)| after.is_none_or(|after| key > after);
        let limit = self.limit.unwrap_or(DEFAULT_ROWS).min(MAX_ROWS);
        let mut found: Vec<_> = rows.iter().filter(wanted).filter(later).take(limit + 1).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let mut page = json!({name: found.iter().map(|(_, row)| row).collect::<Vec<_>>()});
        if let Some(((tenant, last), _)) = found.last().filter(|_| more) {
            page["next"] = json!(URL_SAFE_NO_PAD.encode(format!("{tenant}\0{last}")));
        }
        page
    }
}

async fn rooms(State(app): Shared, page: Result<Query<Page>, QueryRejection>) -> Response {
    let (page, after) = match Page::read(page) {
        Ok(read) => read,
        Err(why) => return bad(&why),
    };
    let rows = app.hub.rooms().await.into_iter().map(|room| {
        let row = json!({"room": room.room.as_str(), "connections": room.connections, "users": room.users});
        row_of(&room.tenant, room.room.as_str(), row)
    });
    Json(page.cut("rooms", after.as_ref(), &rows.collect::<Vec<_>>())).into_response()
}

async fn users(State(app): Shared, page: Result<Query<Page>, QueryRejection>) -> Response {
    let (page, after) = match Page::read(page) {
        Ok(read) => read,
        Err(why) => return bad(&why),
    };
    let rows = app.hub.users().await.into_iter().map(|user| {
        let row = json!({"user": user.user.as_str(), "connections": user.connections, "rooms": user.rooms});
        row_of(&user.tenant, user.user.as_str(), row)
    });
    Json(page.cut("users", after.as_ref(), &rows.collect::<Vec<_>>())).into_response()
}

fn row_of(tenant: &TenantId, name: &str, mut row: Value) -> (Key, Value) {
    tenant.name().into_iter().for_each(|tenant| row["tenant"] = json!(tenant));
    ((tenant.name().unwrap_or_default().to_owned(), name.to_owned()), row)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    user: Option<String>,
    client: Option<String>,
    tenant: Option<String>,
    reason: Option<String>,
}

async fn disconnect(State(app): Shared, request: Request) -> Response {
    // A page of anyone could post here from an administrator's browser.
    if !origin_passes(&request, &[]) {
        return refusal(StatusCode::FORBIDDEN, "this origin may not disconnect anybody");
    }
    let deadline = app.hub.limits().handshake_deadline;
    let body = match crate::body::read(request.into_body(), MAX_BODY_BYTES, deadline).await {
        Ok(body) => body,
        Err(status) => return refusal(status, "at most 64 KiB, within the deadline"),
    };
    let wanted: Disconnect = match serde_json::from_slice(&body) {
        Ok(Object(wanted)) => wanted,
        Err(error) => return bad(&format!("the body is not what this takes: {error}")),
    };
    let topic = match wanted.topic() {
        Ok(topic) => topic,
        Err(why) => return bad(&why),
    };
    let reason = CloseReason::DISCONNECTED;
    let reason = wanted.reason.map_or(reason.clone(), |text| reason.with_text(&text));
    match app.hub.disconnect(topic, reason).await {
        Ok(disconnected) => Json(json!({"disconnected": disconnected})).into_response(),
        Err(error) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{error}; repeat it until it is answered with 200"),
        ),
    }
}

impl Disconnect {
    fn topic(&self) -> Result<Topic, String> {
        let tenant = self.tenant.as_ref().map(TenantId::new).transpose();
        let tenant = tenant.map_err(|e| format!("`tenant`: {e}"))?.unwrap_or_default();
        match (&self.user, &self.client) {
            (Some(user), None) => UserId::new(user)
                .map(|user| Topic::user(tenant, user))
                .map_err(|e| format!("`user`: {e}")),
            (None, Some(client)) => client
                .parse()
                .map(|client| Topic::client(tenant, client))
                .map_err(|e| format!("`client`: {e}")),
            _ => Err("give either `user` or `client`".to_owned()),
        }
    }
}

async fn metrics(State(app): Shared) -> Response {
    let gauges = Gauges {
        stats: app.hub.stats().await,
        bus_up: app.hub.is_bus_up(),
        draining: app.hub.is_draining(),
        uptime: app.started.elapsed(),
        redis: app.redis.as_ref().map(RedisBus::stats),
    };
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, app.metrics.text(&gauges)).into_response()
}

fn bad(why: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, why)
}

fn refusal(status: StatusCode, why: &str) -> Response {
    let code = match status {
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "invalid_request",
    };
    (status, Json(json!({"error": {"code": code, "message": why}}))).into_response()
}

const PARAMETERS: &str = "the parameters are `tenant`, `after` and `limit`";
/// Rows of a page when the request names no limit, and at most.
const DEFAULT_ROWS: usize = 100;
const MAX_ROWS: usize = 1000;
const MAX_BODY_BYTES: usize = 64 * 1024;
