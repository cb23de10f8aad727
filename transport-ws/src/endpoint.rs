//! A whole WebSocket endpoint: from the request to a connection that a hub serves.
#![expect(clippy::disallowed_methods, reason = "a connection is a task of its own")]

use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use tidings_core::{CloseReason, ConnectRequest, FrameReader, FrameWriter, Hub, Transport};
use tokio::time::timeout;

use crate::{WsConfig, accept, upgraded};

/// Answers the opening handshake and serves the connection in a task of its own.
///
/// A browser cannot read the status of a refused upgrade. So the upgrade is completed for whoever
/// asks from an allowed origin, and refused credentials get a close code: 1008 `Unauthorized` or
/// `Invalid token`, 1013 when they cannot be checked, 4009 for too many connections of one user (1013 while some of
/// those are of a node that is not heard from).
///
/// A node that drains, or is asked beyond `accept_rate` or `peer_rate`, answers 503 with `Retry-After` before it
/// looks at anything else: a proxy then tries another node.
pub fn serve<B>(hub: &Hub, request: &mut Request<B>, config: &WsConfig) -> Response<String> {
    let connect = ConnectRequest::read(request, &config.cookie);
    let admission = match hub.admit(connect.peer.map(|peer| peer.ip())) {
        Ok(admission) => admission,
        Err(reason) => return unavailable(&reason),
    };
    let (response, upgrade) = match accept(request, config) {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal,
    };
    let hub = hub.clone();
    tokio::spawn(async move {
        let Ok(transport) = upgraded(upgrade, hub.limits().message_bytes).await else { return };
        match hub.connect(&connect, transport.info()).await {
            Ok(attachment) => {
                admission.keep();
                // Another task, since this one is as large as a handshake needs.
                tokio::spawn(attachment.serve(transport));
            }
            Err(error) => {
                drop(admission);
                let reason = error.close_reason();
                let (mut reader, mut writer) = transport.split();
                let _ = timeout(hub.limits().close_deadline, async {
                    writer.close(&reason).await;
                    // A socket that is closed over unread bytes is reset, and the reason lost.
                    while reader.next().await.is_some() {}
                })
                .await;
            }
        }
    });
    response.map(|()| String::new())
}

fn unavailable(reason: &CloseReason) -> Response<String> {
    let mut response = Response::new(reason.reason.to_string());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let seconds = reason.reconnect_after.unwrap_or_default().as_secs_f64().ceil();
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds as u64));
    // It is to go elsewhere; its socket is wanted for others.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
