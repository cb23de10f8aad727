//! The accept loop: hyper with every deadline that it needs, and sockets tuned for pushing.

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// Serves `router` on `listener` for ever. A request whose head is not there within `deadline` is cut.
pub(crate) async fn serve(listener: TcpListener, router: Router, deadline: std::time::Duration) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: give connections time to end.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let _ = tidings_transport_ws::tune(&socket);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(deadline)
                .max_buf_size(MAX_HEAD_BYTES);
            let _ = http.serve_connection(TokioIo::new(socket), service).with_upgrades().await;
        });
    }
}

/// Longest head of a request, tokens and cookies included.
const MAX_HEAD_BYTES: usize = 32 * 1024;
