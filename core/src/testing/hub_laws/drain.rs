//! A node that goes away while its clients hear and others publish.

use std::time::Duration;

use super::scene::*;
use crate::testing::bus_laws::BusFixture;
use crate::testing::script::in_background;

/// Who leaves a draining node has heard everything until then, is told when to come back, and loses nothing on another
/// node.
pub async fn who_leaves_a_draining_node_loses_nothing<F: BusFixture>() {
    let fixture = F::start().await;
    let (going, staying) = (hub(&fixture.bus()).await, hub(&fixture.bus()).await);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = Client::connect(&going, &format!("u{n}")).await;
        client.join("r").await;
        clients.push(client);
    }
    let (drain, node) = (going.clone(), staying.clone());
    let moves = clients.into_iter().enumerate().map(|(n, client)| {
        let (node, user) = (node.clone(), format!("u{n}"));
        in_background(async move { moves(client, &node, &user).await })
    });
    let moves: Vec<_> = moves.collect();
    let drained = in_background(async move { drain.drain(Duration::from_secs(1)).await });
    for n in 0..MESSAGES {
        publish(&staying, news(&room("r"), n)).await;
    }
    for left in moves {
        in_time(left).await.expect("it lost nothing");
    }
    in_time(drained).await.expect("the drain ends");
    assert!(going.is_draining() && !going.is_ready());
    assert!(attach(&going, "late").await.is_err());
}

/// Hears messages in order until it must leave, and the rest on the other node.
async fn moves(mut client: Client, other: &crate::Hub, user: &str) {
    let mut expected = 0;
    let told = loop {
        let text = in_time(client.pipe.next()).await.expect("it is told before the end");
        let message: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        if message["type"] == "server:draining" {
            break message;
        }
        assert_eq!((&message["type"], &message["payload"]), (&"news".into(), &expected.into()));
        client.cursor = message["cursor"].as_str().map(str::to_owned);
        expected += 1;
    };
    assert!(told["payload"]["reconnectAfterMs"].is_u64(), "{told}");
    assert_eq!(client.ended().await, Some(1012));
    let (mut client, connected) = Client::connect_with(other, user, client.back(&["r"])).await;
    assert_eq!(connected["payload"]["recovered"], true);
    client.next("room:joined").await;
    for n in expected..MESSAGES {
        client.hears(n).await;
    }
}

const CLIENTS: u32 = 10;
const MESSAGES: u32 = 200;
