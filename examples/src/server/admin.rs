//! The administrators' port.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_auth_jwt::Jwks;
use tidings_bus_redis::RedisBus;
use tidings_core::json::Object;
use tidings_core::{CloseReason, NameError, Page, TenantId, Topic, UserId, check_origin};

use crate::app::App;
use crate::metrics::Gauges;
use crate::peer::{host_name, is_loopback};

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
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Refuses pages of others: this port asks for no key, and a browser takes any page's requests here, also by a name that
/// its owner lets lead here (DNS rebinding).
async fn guard(State(app): Shared, request: Request, next: Next) -> Response {
    let own = app.cli.admin_listen.ip();
    let is_own = |host: &str| {
        let ip: Option<IpAddr> = host.parse().ok();
        is_loopback(host)
            || ip.is_some_and(|ip| ip == own || own.is_unspecified())
            || app.cli.admin_host.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    if !host_name(request.headers()).is_some_and(is_own) {
        let why =
            "this `Host` is not the admin port's; a name that leads here is given by --admin-host";
        return refusal(StatusCode::FORBIDDEN, why);
    }
    if check_origin(&request, &[]).is_err() {
        return refusal(StatusCode::FORBIDDEN, "this origin is not the admin port's");
    }
    next.run(request).await
}

async fn stats(State(app): Shared) -> Json<Value> {
    let stats = app.hub.stats();
    let count = |name| stats.connections.get(name).copied().unwrap_or(0);
    let state = match app.hub.partitions_away().is_empty() {
        true => "up",
        false if app.hub.is_bus_up() => "partly away",
        false => "away",
    };
    Json(json!({
        "nodeId": app.hub.node_id().as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": app.started.elapsed().as_secs(),
        "connections": {"websocket": count("websocket"), "sse": count("sse")},
        "users": stats.users,
        "rooms": stats.rooms,
        "queuedBytes": stats.queued_bytes,
        "bus": {"kind": app.cli.bus.split(['+', ':']).next(), "state": state},
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tenant: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

impl Wanted {
    /// What a request asks for: one entry more than the page has, so that it is known whether more follow.
    fn read<N: FromStr>(wanted: Result<Query<Self>, QueryRejection>) -> Result<Page<N>, String> {
        let Query(wanted) = wanted.map_err(|e| format!("{}; {PARAMETERS}", e.body_text()))?;
        if wanted.limit == Some(0) {
            return Err("`limit` is at least 1".to_owned());
        }
        let mut page = Page::default();
        let tenant = wanted.tenant.as_deref().map(tenant_named).transpose();
        page.tenant = tenant.map_err(|e| format!("`tenant`: {e}"))?;
        page.limit = Some(wanted.limit.unwrap_or(DEFAULT_ROWS).min(MAX_ROWS) + 1);
        if let Some(after) = wanted.after {
            let wrong = || "`after` takes what another answer said as `next`".to_owned();
            page.after = Some(place(&after).ok_or_else(wrong)?);
        }
        Ok(page)
    }
}

/// The default tenant is written as nothing.
fn tenant_named(name: &str) -> Result<TenantId, NameError> {
    if name.is_empty() { Ok(TenantId::default()) } else { TenantId::new(name) }
}

/// Where a page ended, in base64 so that it passes through any URL.
fn place<N: FromStr>(next: &str) -> Option<(TenantId, N)> {
    let bytes = URL_SAFE_NO_PAD.decode(next).ok()?;
    let (tenant, name) = std::str::from_utf8(&bytes).ok()?.split_once('\0')?;
    Some((tenant_named(tenant).ok()?, name.parse().ok()?))
}

async fn rooms(State(app): Shared, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let page = match Wanted::read(wanted) {
        Ok(page) => page,
        Err(why) => return bad(&why),
    };
    let rows = app.hub.list_rooms(&page).await.into_iter().map(|room| {
        let row = json!({"room": room.room.as_str(), "connections": room.connections, "users": room.users});
        (room.tenant, room.room.to_string(), row)
    });
    cut("rooms", page.limit, rows.collect())
}

async fn users(State(app): Shared, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let page = match Wanted::read(wanted) {
        Ok(page) => page,
        Err(why) => return bad(&why),
    };
    let rows = app.hub.list_users(&page).await.into_iter().map(|user| {
        let row = json!({"user": user.user.as_str(), "connections": user.connections, "rooms": user.rooms});
        (user.tenant, user.user.to_string(), row)
    });
    cut("users", page.limit, rows.collect())
}

/// The rows of a page, each with its tenant, and `next` when there was one more.
fn cut(name: &str, limit: Option<usize>, mut rows: Vec<(TenantId, String, Value)>) -> Response {
    let more = Some(rows.len()) == limit;
    if more {
        rows.pop();
    }
    let last = rows.last().filter(|_| more);
    let next = last.map(|(tenant, last, _)| {
        URL_SAFE_NO_PAD.encode(format!("{}\0{last}", tenant.name().unwrap_or_default()))
    });
    let rows = rows.into_iter().map(|(tenant, _, mut row)| {
        tenant.name().into_iter().for_each(|tenant| row["tenant"] = json!(tenant));
        row
    });
    let mut page = json!({name: rows.collect::<Vec<_>>()});
    next.into_iter().for_each(|next| page["next"] = json!(next));
    Json(page).into_response()
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
        stats: app.hub.stats(),
        partitions_away: app.hub.partitions_away().len(),
        draining: app.hub.is_draining(),
        uptime: app.started.elapsed(),
        redis: app.redis.as_ref().map(RedisBus::stats),
        keys: app.keys.as_ref().and_then(Jwks::age),
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
