//! The administrators' port.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::{CloseReason, TenantId, Topic, UserId};

use crate::app::App;

type Shared = State<Arc<App>>;

/// All that administrators see.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
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
        "bus": {"kind": "memory", "state": if app.hub.is_bus_up() { "up" } else { "away" }},
    }))
}

#[derive(Deserialize)]
struct Page {
    tenant: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

impl Page {
    /// The rows of this page, sorted by tenant and name, and the key of its last when more follow.
    fn cut(&self, rows: Vec<(TenantId, String, Value)>) -> (Vec<Value>, Option<String>) {
        let key = |tenant: &TenantId, name: &str| {
            format!("{}\u{0}{name}", tenant.name().unwrap_or_default())
        };
        let wanted = |(tenant, name, _): &(TenantId, String, Value)| {
            self.tenant.as_deref().is_none_or(|t| tenant.name().unwrap_or_default() == t)
                && self.after.as_deref().is_none_or(|after| key(tenant, name).as_str() > after)
        };
        let limit = self.limit.unwrap_or(DEFAULT_ROWS).clamp(1, MAX_ROWS);
        let mut rows: Vec<_> = rows.into_iter().filter(wanted).collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(tenant, name, _)| key(tenant, name));
        (rows.into_iter().map(|(_, _, row)| row).collect(), next)
    }
}

async fn rooms(State(app): Shared, Query(page): Query<Page>) -> Json<Value> {
    let rows = app.hub.rooms().await.into_iter().map(|room| {
        let row = json!({"room": room.room.as_str(), "connections": room.connections, "users": room.users});
        let row = with_tenant(row, &room.tenant);
        (room.tenant, room.room.to_string(), row)
    });
    let (rows, next) = page.cut(rows.collect());
    Json(with_next(json!({"rooms": rows}), next))
}

async fn users(State(app): Shared, Query(page): Query<Page>) -> Json<Value> {
    let rows = app.hub.users().await.into_iter().map(|user| {
        let row = json!({"user": user.user.as_str(), "connections": user.connections, "rooms": user.rooms});
        let row = with_tenant(row, &user.tenant);
        (user.tenant, user.user.to_string(), row)
    });
    let (rows, next) = page.cut(rows.collect());
    Json(with_next(json!({"users": rows}), next))
}

fn with_tenant(mut row: Value, tenant: &TenantId) -> Value {
    tenant.name().into_iter().for_each(|name| row["tenant"] = json!(name));
    row
}

fn with_next(mut page: Value, next: Option<String>) -> Value {
    next.into_iter().for_each(|next| page["next"] = json!(next));
    page
}

#[derive(Deserialize)]
struct Disconnect {
    user: Option<String>,
    client: Option<String>,
    tenant: Option<String>,
    reason: Option<String>,
}

async fn disconnect(State(app): Shared, Json(wanted): Json<Disconnect>) -> Response {
    let tenant = wanted.tenant.map(TenantId::new).transpose();
    let (Ok(tenant), user, client) =
        (tenant, wanted.user.map(UserId::new), wanted.client.map(|c| c.parse()))
    else {
        return (StatusCode::BAD_REQUEST, "`tenant` is no name\n").into_response();
    };
    let tenant = tenant.unwrap_or_default();
    let topic = match (user, client) {
        (Some(Ok(user)), None) => Topic::user(tenant, user),
        (None, Some(Ok(client))) => Topic::client(tenant, client),
        _ => return (StatusCode::BAD_REQUEST, "give either `user` or `client`\n").into_response(),
    };
    let reason = CloseReason::DISCONNECTED;
    let reason = wanted.reason.map_or(reason.clone(), |text| reason.with_text(&text));
    Json(json!({"disconnected": app.hub.disconnect(topic, reason).await})).into_response()
}

async fn metrics(State(app): Shared) -> String {
    let stats = app.hub.stats().await;
    let mut text = String::from("# TYPE tidings_connections gauge\n");
    for name in ["websocket", "sse"] {
        let count = stats.connections.get(name).copied().unwrap_or(0);
        let _ = writeln!(text, "tidings_connections{{transport=\"{name}\"}} {count}");
    }
    let gauges = [
        ("users", stats.users),
        ("rooms", stats.rooms),
        ("queued_bytes", stats.queued_bytes),
        ("bus_up", usize::from(app.hub.is_bus_up())),
    ];
    for (name, value) in gauges {
        let _ = write!(text, "# TYPE tidings_{name} gauge\ntidings_{name} {value}\n");
    }
    text
}

/// Rows of a page when the request names no limit, and at most.
const DEFAULT_ROWS: usize = 100;
const MAX_ROWS: usize = 1000;
