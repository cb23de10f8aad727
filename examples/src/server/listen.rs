//! The accept loop: hyper with every deadline that it needs, and sockets tuned for pushing.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidings_transport_sse::Hangup;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::files::Spare;
use crate::log::say;
use crate::metrics::Metrics;
use crate::peer;

/// How connections are taken.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// Until when the head of a connection's first request must be there.
    pub(crate) first_head: Duration,
    /// Until when that of a later one must be there. Proxies keep connections without requests for a minute or more.
    pub(crate) next_head: Duration,
    /// Who says by `X-Real-IP` where a client is.
    pub(crate) proxies: Vec<IpAddr>,
    /// Which files are not for clients.
    pub(crate) spare: Spare,
    pub(crate) metrics: Arc<Metrics>,
}

/// Among the extensions of a request: it came by one of the last files, which are for probes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastFiles;

/// Listens with room for a herd: a SYN that finds the queue full is sent again after a second, or three, or seven.
///
/// # Errors
/// The address, and why it cannot be listened on.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|e: io::Error| format!("cannot listen on {address}: {e}"))
}

/// Serves `router` on `listener` until `end`; then the requests under way are answered. Among the extensions of a
/// request is where it came from, and how its connection is cut.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    door: Door,
    end: impl Future<Output = ()>,
) {
    let (last, lasts) = watch::channel(());
    let mut end = std::pin::pin!(end);
    let mut told = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((socket, _)) if socket.as_raw_fd() >= door.spare.none_from => {
                door.metrics.not_accepted("files");
                tell(&mut told, &"out of files: a connection was dropped; raise `ulimit -n`");
            }
            Ok((socket, peer)) => {
                tokio::spawn(connection(socket, peer, router.clone(), door.clone(), lasts.clone()));
            }
            Err(error) => {
                door.metrics.not_accepted("error");
                tell(&mut told, &format_args!("cannot accept: {error}"));
                if !is_of_one_connection(&error) {
                    // Out of files or memory: give connections time to end.
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop((listener, lasts));
    let _ = last.send(());
    let _ = tokio::time::timeout(LAST_REQUESTS, last.closed()).await;
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    door: Door,
    mut lasts: watch::Receiver<()>,
) {
    let _ = tidings_transport_ws::tune(&socket);
    let is_last = socket.as_raw_fd() >= door.spare.from;
    let (first_head, next_head) = match is_last {
        true => (LAST_FILES, LAST_FILES),
        false => (door.first_head, door.next_head),
    };
    let (routes, hangup) = (TowerToHyperService::new(router), Hangup::default());
    let cut = hangup.clone();
    let has_asked = Arc::new(AtomicBool::new(false));
    let asks = has_asked.clone();
    let service = service_fn(move |mut request: hyper::Request<_>| {
        asks.store(true, Relaxed);
        let client = peer::client(request.headers(), peer, &door.proxies);
        let extensions = request.extensions_mut();
        extensions.insert(hangup.clone());
        if let Some(client) = client {
            extensions.insert(client);
        }
        if is_last {
            extensions.insert(LastFiles);
        }
        routes.call(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(next_head);
    http.max_buf_size(MAX_HEAD_BYTES).max_header_size(MAX_HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let silent = async {
        sleep(first_head).await;
        if has_asked.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = &mut connection => return,
        () = silent => return,
        () = cut.asked() => return,
        _ = lasts.changed() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! { _ = connection => {}, () = cut.asked() => {} }
}

/// Whether an error is of the connection that was to be accepted, so that the next one may be good.
fn is_of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | PermissionDenied
    )
}

/// Says so, once a second at most; `/metrics` counts all.
fn tell(told: &mut Option<Instant>, what: &dyn std::fmt::Display) {
    if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
        *told = Some(Instant::now());
        say(format_args!("tidings-server: {what}"));
    }
}

/// Connections that wait to be accepted at most; on Linux `net.core.somaxconn` is a bound too.
const BACKLOG: u32 = 4096;
/// Longest head of a request, tokens and cookies included; beyond it 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How long the requests under way at the end may take.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// How long a connection by one of the last files may take to ask.
const LAST_FILES: Duration = Duration::from_secs(1);
