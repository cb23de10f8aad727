//! Who pays for requests that become no connection: the built program, real sockets.

mod support;

use support::{Client, Server, soon, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

const NO_HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n";

/// A socket that has sent so many requests at once, and the statuses of their answers.
async fn pipelined(server: &Server, request: &str, count: usize) -> (TcpStream, Vec<String>) {
    let mut socket = TcpStream::connect(server.address).await.expect("a connection");
    let all = request.repeat(count);
    let mut text = String::new();
    soon("all answers", async {
        let (mut read, mut write) = socket.split();
        let reading = async {
            let mut part = [0; 64 * 1024];
            while text.matches("HTTP/1.1 ").count() < count {
                let read = read.read(&mut part).await.expect("answers");
                if read == 0 {
                    return;
                }
                text += std::str::from_utf8(&part[..read]).expect("text");
            }
        };
        let _ = tokio::join!(write.write_all(all.as_bytes()), reading);
    })
    .await;
    let statuses = text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect();
    (socket, statuses)
}

async fn status_of_upgrade(server: &Server, peer: &str) -> u16 {
    let query = format!("?token={}", token("ada"));
    match Client::upgrade(server, &query, &[("x-real-ip", peer)]).await {
        Ok(mut client) => {
            assert_eq!(client.next_type().await, "connected");
            101
        }
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_flood_of_what_is_no_handshake_shuts_nobody_out() {
    let server = Server::start(&["accept_rate=1", "accept_burst=10"]);
    let (_socket, statuses) = pipelined(&server, NO_HANDSHAKE, 1000).await;
    assert_eq!(statuses, vec!["426"; 1000]);
    for peer in 0..5 {
        assert_eq!(status_of_upgrade(&server, &format!("192.0.2.{peer}")).await, 101);
        let (_socket, statuses) = pipelined(&server, NO_HANDSHAKE, 100).await;
        assert_eq!(statuses, vec!["426"; 100]);
    }
    // Connections, though, are counted.
    soon("the end of the places", async {
        while status_of_upgrade(&server, "192.0.2.1").await == 101 {}
    })
    .await;
}

#[tokio::test]
async fn bad_credentials_take_no_place() {
    let server = Server::start(&["accept_rate=1", "accept_burst=10"]);
    for _ in 0..50 {
        let peer = [("x-real-ip", "192.0.2.7")];
        let mut client = Client::upgrade(&server, "?token=bad", &peer).await.expect("an upgrade");
        assert_eq!(client.closed().await.0, 1008);
    }
    assert_eq!(status_of_upgrade(&server, "192.0.2.8").await, 101);
}

#[tokio::test]
async fn a_peer_whose_requests_come_to_nothing_is_refused_and_others_are_not() {
    let server = Server::start(&["peer_rate=1", "peer_burst=20"]);
    let request = "GET /events HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.7\r\n\r\n";
    // Each ends its connection.
    let mut unauthorized = 0;
    loop {
        let (_socket, statuses) = pipelined(&server, request, 1).await;
        match statuses[0].as_str() {
            "401" => unauthorized += 1,
            "200" => break,
            other => panic!("{other}"),
        }
    }
    assert!(unauthorized >= 20, "{unauthorized}");
    assert_eq!(status_of_upgrade(&server, "192.0.2.7").await, 503);
    assert_eq!(status_of_upgrade(&server, "192.0.2.8").await, 101);
    // Its own bucket fills again.
    soon("a place", async {
        while status_of_upgrade(&server, "192.0.2.7").await != 101 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_stranger_says_of_where_it_comes_from_counts_for_nothing() {
    // The tests come from a proxy's address, unless no address is one.
    let server =
        Server::with_flags(&["--proxy", "192.0.2.1", "--limit", "peer_rate=1,peer_burst=5"]);
    let request = NO_HANDSHAKE.replace("\r\n\r\n", "\r\nX-Real-IP: 192.0.2.7\r\n\r\n");
    let (_socket, statuses) = pipelined(&server, &request, 100).await;
    // It is held to the limit of the address that it has, and nobody else is.
    assert_eq!(statuses[..5], ["426"; 5]);
    assert_eq!(statuses.last().map(String::as_str), Some("503"));
    assert!(statuses.len() < 100, "{statuses:?}");
}
