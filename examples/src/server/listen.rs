//! The accept loop: hyper with every deadline that it needs, and sockets tuned for pushing.

use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidings_transport_sse::Hangup;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Serves `router` on `listener` until `end`; then the requests under way are answered. A request whose head is not
/// there within `deadline` is cut. Among its extensions is where it came from, and how its connection is cut.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    deadline: Duration,
    end: impl Future<Output = ()>,
) {
    let (last, lasts) = watch::channel(());
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let Ok((socket, peer)) = accepted else {
            // Out of file descriptors, most likely: give connections time to end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = tidings_transport_ws::tune(&socket);
        let (routes, hangup) = (TowerToHyperService::new(router.clone()), Hangup::default());
        let cut = hangup.clone();
        let service = service_fn(move |mut request| {
            request.extensions_mut().insert(hangup.clone());
            request.extensions_mut().insert(peer);
            routes.call(request)
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(deadline).max_buf_size(MAX_HEAD_BYTES);
        let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
        let mut lasts = lasts.clone();
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = &mut connection => return,
                () = cut.asked() => return,
                _ = lasts.changed() => connection.as_mut().graceful_shutdown(),
            }
            tokio::select! { _ = connection => {}, () = cut.asked() => {} }
            drop(lasts);
        });
    }
    drop((listener, lasts));
    let _ = last.send(());
    let _ = tokio::time::timeout(LAST_REQUESTS, last.closed()).await;
}

/// Longest head of a request, tokens and cookies included.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How long the requests under way at the end may take.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
