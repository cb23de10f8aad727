//! The cursor rules as a random model: two nodes with [`Positions`], clients with [`Resume`], lost links, late answers, cuts,
//! late joins and pages, trimming and flushes. Whatever happens, a client gets every message in order and once per
//! connection, or a gap in its place.

mod client;
mod log;
mod node;
mod shard;

use proptest::prelude::*;

use client::Client;
use log::Log;
use node::Node;

/// Which accidents may happen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum World {
    /// Links die, clients are cut; the history keeps everything: no gap is allowed.
    Whole,
    /// History is also trimmed, and flushed.
    Lossy,
}

/// What happens next. The numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
enum Op {
    Publish(usize),
    Deliver(usize),
    Die(usize),
    Connect(usize),
    Look(usize),
    Read(usize, usize),
    Answer(usize, usize),
    Shard(usize, usize),
    Trim(usize),
    Flush,
    Renew,
    Sweep(usize),
    Cut(usize),
    Part(usize, usize),
    Garble(usize),
    Join(usize, usize),
    Leave(usize, usize),
    GoOn(usize, usize),
    Receive(usize, usize),
}

fn run(world: World, partitions: u16, shards: usize, script: &[Op]) {
    let mut log = Log::new(partitions);
    log.may_be_late = world == World::Lossy;
    let mut nodes = [Node::new(&log, shards), Node::new(&log, 1)];
    let mut clients: Vec<_> = (0..4).map(Client::new).collect();
    for &op in script {
        step(op, &mut log, &mut nodes, &mut clients);
    }
    // Calm: everything is answered, looked at and received.
    for _ in 0..40 {
        for node in &mut nodes {
            node.calm(&log);
        }
        for client in &mut clients {
            client.go_on(&mut nodes, &log, 100);
            client.receive(&mut nodes, usize::MAX);
        }
    }
    for client in &clients {
        client.check(&log, world != World::Lossy);
    }
    // Whatever was before, what is published now arrives without another look.
    (0..log::TOPICS).for_each(|topic| log.publish(topic, &mut nodes));
    for node in &mut nodes {
        node.settle(&log);
    }
    for client in &mut clients {
        client.receive(&mut nodes, usize::MAX);
        client.check_present(&log);
    }
}

fn step(op: Op, log: &mut Log, nodes: &mut [Node; 2], clients: &mut [Client]) {
    match op {
        Op::Publish(topic) => log.publish(topic, nodes),
        Op::Deliver(node) => nodes[node].deliver(log),
        Op::Die(node) => nodes[node].die(),
        Op::Connect(node) => nodes[node].connect(),
        Op::Look(node) => nodes[node].positions.look_at_all(),
        Op::Read(node, which) => nodes[node].read(log, which),
        Op::Answer(node, which) => nodes[node].answer(which),
        Op::Shard(node, which) => nodes[node].shard_step(which),
        Op::Trim(topic) => log.trim(topic),
        Op::Flush => log.flush(),
        Op::Renew => log.renew(),
        Op::Sweep(node) => nodes[node].sweep(),
        Op::Cut(client) => clients[client].cut(nodes),
        Op::Part(client, frames) => clients[client].part(nodes, frames),
        Op::Garble(client) => clients[client].garble(),
        Op::Join(client, which) => clients[client].join(nodes, which),
        Op::Leave(client, which) => clients[client].leave(nodes, which),
        Op::GoOn(client, budget) => clients[client].go_on(nodes, log, budget),
        Op::Receive(client, count) => clients[client].receive(nodes, count),
    }
}

fn script(world: World) -> impl Strategy<Value = Vec<Op>> {
    let (node, client, few) = (0usize..2, 0usize..4, 1usize..4);
    let lossy = move |op| if world == World::Lossy { op } else { Op::Publish(0) };
    let op = prop_oneof![
        40 => (0..log::TOPICS).prop_map(Op::Publish),
        60 => node.clone().prop_map(Op::Deliver),
        4 => node.clone().prop_map(Op::Die),
        15 => node.clone().prop_map(Op::Connect),
        5 => node.clone().prop_map(Op::Look),
        15 => (node.clone(), 0usize..64).prop_map(|(node, which)| Op::Read(node, which)),
        15 => (node.clone(), 0usize..64).prop_map(|(node, which)| Op::Answer(node, which)),
        3 => node.clone().prop_map(Op::Sweep),
        80 => (node, 0usize..8).prop_map(|(node, which)| Op::Shard(node, which)),
        4 => (0..log::TOPICS).prop_map(move |topic| lossy(Op::Trim(topic))),
        4 => Just(lossy(Op::Flush)),
        2 => Just(lossy(Op::Renew)),
        5 => client.clone().prop_map(Op::Cut),
        12 => (client.clone(), few.clone()).prop_map(|(client, few)| Op::Part(client, few)),
        4 => client.clone().prop_map(move |client| lossy(Op::Garble(client))),
        15 => (client.clone(), 0usize..15).prop_map(|(client, which)| Op::Join(client, which)),
        4 => (client.clone(), 0usize..5).prop_map(|(client, which)| Op::Leave(client, which)),
        140 => (client.clone(), few.clone()).prop_map(|(client, few)| Op::GoOn(client, few)),
        30 => (client, few).prop_map(|(client, few)| Op::Receive(client, few)),
    ];
    prop::collection::vec(op, 50..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_no_gap_told_while_history_keeps_everything(
        partitions in 1u16..3, shards in 1usize..3, script in script(World::Whole),
    ) {
        run(World::Whole, partitions, shards, &script);
    }

    #[test]
    fn what_is_lost_for_good_is_told_by_a_gap_in_its_place(
        partitions in 1u16..3, shards in 1usize..3, script in script(World::Lossy),
    ) {
        run(World::Lossy, partitions, shards, &script);
    }
}
