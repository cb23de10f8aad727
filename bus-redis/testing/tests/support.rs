//! The test support does what it says, so that a fault test that passes has met its fault.

#![expect(clippy::disallowed_methods, reason = "a test has tasks")]

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidings_redis_testing::{
    Cluster, Options, Proxy, Redis, Reply, SentinelTrio, Traffic, in_time, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_killed_redis_forgets_and_a_persistent_one_does_not() {
    for (options, kept) in [(Options::default(), false), (Options::default().persistent(), true)] {
        let mut redis = Redis::start(options).await;
        let address = redis.address();
        redis.cli(&["SET", "key", "value"]).await.ok();
        redis.kill9();
        let error = redis.try_cli(&["PING"]).await.expect_err("it is dead");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        redis.restart().await;
        assert_eq!(redis.address(), address);
        assert_eq!(redis.cli(&["GET", "key"]).await.is_nil(), !kept);
        redis.terminate().await;
        assert!(redis.try_cli(&["PING"]).await.is_err());
    }
}

#[tokio::test]
async fn a_stopped_redis_is_silent_until_it_goes_on() {
    let redis = Redis::start(Options::default()).await;
    redis.sigstop();
    let mut ping = std::pin::pin!(redis.try_cli(&["PING"]));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut ping).await.is_err());
    redis.sigcont();
    assert_eq!(in_time("the answer", ping).await.expect("it lives"), Reply::Text("PONG".into()));
}

#[tokio::test]
async fn a_password_holds_and_changes() {
    let mut redis = Redis::start(Options::default().password("first")).await;
    assert!(redis.url().starts_with("redis://:first@127.0.0.1:"), "{}", redis.url());
    redis.set_password("second").await;
    redis.kill9();
    redis.restart().await;
    assert!(
        matches!(redis.cli(&["AUTH", "first"]).await, Reply::Error(e) if e.starts_with("WRONGPASS"))
    );
    redis.set("maxmemory", "4194304");
    redis.kill9();
    redis.restart().await;
    assert_eq!(redis.info("memory").await["maxmemory"], "4194304");
}

#[tokio::test]
async fn tls_is_trusted_by_its_authority() {
    let redis = Redis::start(Options::default().tls()).await;
    let (url, certificates) = redis.tls_url();
    let address = url.strip_prefix("rediss://").expect("a URL").to_owned();
    let mut client = Command::new("openssl");
    client.args(["s_client", "-verify_return_error", "-quiet", "-verify_ip", "127.0.0.1"]);
    client.args(["-connect", &address, "-CAfile"]).arg(&certificates.authority);
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"PING\r\nQUIT\r\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "+PONG\r\n+OK\r\n");
}

#[tokio::test]
async fn a_trio_promotes_its_replica() {
    let mut trio = SentinelTrio::start(Options::default()).await;
    assert_eq!(trio.primary().await, 0);
    trio.servers[0].kill9();
    trio.promoted(1).await;
    trio.servers[0].restart().await;
    trio.settled().await;
    assert!(!trio.servers[0].is_primary().await);
}

#[tokio::test]
async fn a_cluster_moves_slots_and_promotes() {
    let mut cluster = Cluster::start(Options::default()).await;
    let slot = cluster.slot("key").await;
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    cluster.nodes[from].cli(&["SET", "key", "value"]).await.ok();
    cluster.move_slot(slot, to).await;
    assert_eq!(cluster.nodes[to].cli(&["GET", "key"]).await.text(), "value");
    let moved = cluster.nodes[from].cli(&["GET", "key"]).await;
    assert!(matches!(moved, Reply::Error(e) if e.starts_with("MOVED")));
    // Its replica has the key before it dies.
    until("the copy", async || cluster.nodes[to + 3].cli(&["DBSIZE"]).await.int() == 1).await;
    cluster.nodes[to].kill9();
    until("the promotion", async || cluster.owner(slot).await == to + 3).await;
    let promoted = &cluster.nodes[to + 3];
    until("the key", async || promoted.cli(&["GET", "key"]).await == Reply::Text("value".into()))
        .await;
}

#[tokio::test]
async fn a_proxy_passes_drops_resets_and_refuses() {
    let mut proxy = Proxy::to(echo().await).await;
    let mut client = TcpStream::connect(proxy.address()).await.expect("it listens");
    assert_eq!(echoed(&mut client).await, 5);
    proxy.set(Traffic::Delay(Duration::from_millis(10)));
    assert_eq!(echoed(&mut client).await, 5);
    for traffic in [Traffic::Drop, Traffic::DropAnswers, Traffic::DropRequests] {
        proxy.set(traffic);
        let mut lost = TcpStream::connect(proxy.address()).await.expect("it listens");
        assert!(is_silent(&mut lost).await, "{traffic:?}");
        proxy.set(Traffic::Pass);
        assert!(is_silent(&mut lost).await, "{traffic:?}: it stays dead");
        assert!(is_silent(&mut client).await, "{traffic:?}: so does one that had nothing to say");
        client = TcpStream::connect(proxy.address()).await.expect("it listens");
        assert_eq!(echoed(&mut client).await, 5);
    }
    proxy.reset();
    let error = client.read(&mut [0]).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut client = TcpStream::connect(proxy.address()).await.expect("it listens");
    assert_eq!(echoed(&mut client).await, 5);
    proxy.finish();
    assert_eq!(echoed(&mut client).await, 0);
    until("all to end", async || proxy.connections() == 0).await;
    proxy.refuse().await;
    let error = TcpStream::connect(proxy.address()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    proxy.accept().await;
    let mut client = TcpStream::connect(proxy.address()).await.expect("it listens");
    assert_eq!(echoed(&mut client).await, 5);
}

/// A server that answers what it is told.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// How many bytes of an answer come, 0 at the end.
async fn echoed(client: &mut TcpStream) -> usize {
    let _ = client.write_all(b"hello").await;
    in_time("the answer", client.read(&mut [0; 16])).await.expect("no reset")
}

/// Whether no answer comes for a while.
async fn is_silent(client: &mut TcpStream) -> bool {
    let _ = client.write_all(b"hello").await;
    tokio::time::timeout(Duration::from_millis(300), client.read(&mut [0; 16])).await.is_err()
}
