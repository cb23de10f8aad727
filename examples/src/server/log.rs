//! `--log`: a line to stderr for each request and for each end of a connection. No line holds a credential.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tidings_core::{Event, ForeignOrigin, Observer, redact_query};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// What the hub tells: all of it is counted, and with `--log` the ends of connections are written.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: bool,
}

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        self.metrics.on_event(event);
        match event {
            Event::Closed { transport, reason, lasted, .. } if self.log => {
                let code = reason.map_or("none".to_owned(), |reason| reason.code.to_string());
                eprintln!("{transport} closed {code} {}ms", lasted.as_millis());
            }
            Event::Authenticated { outcome: Err(error) } if self.log => eprintln!("auth {error}"),
            Event::LinkLost { partition } => eprintln!("bus link {partition} lost"),
            _ => {}
        }
    }
}

/// Writes method, path, status and milliseconds of a request.
pub(crate) async fn line(request: Request, next: Next) -> Response {
    let (method, target) = (request.method().clone(), redact_query(&request.uri().to_string()));
    let begun = Instant::now();
    let response = next.run(request).await;
    let foreign = response.extensions().get::<ForeignOrigin>();
    let why = foreign.map(|why| format!(" {why}")).unwrap_or_default();
    let status = response.status().as_u16();
    eprintln!("{method} {target} {status} {}ms{why}", begun.elapsed().as_millis());
    response
}
