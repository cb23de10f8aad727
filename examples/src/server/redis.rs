//! What the bus on Redis has counted, for `/metrics`.

use tidings_bus_redis::RedisStats;

use crate::metrics::Text;

/// Appends the families of the bus. They tell how a node stands with Redis, and why publications were not accepted.
pub(crate) fn write(stats: &RedisStats, text: &mut Text) {
    let answers = stats.servers.iter().filter(|server| server.away.is_none()).count();
    for (name, kind, help, value) in [
        ("servers", "gauge", "Servers that this node commands.", stats.servers.len() as u64),
        ("servers_up", "gauge", "Those of them that answer.", answers as u64),
        ("links", "gauge", "Links that are up.", stats.links),
        ("links_ended_total", "counter", "Links that ended.", stats.links_ended),
        ("probes_missed_total", "counter", "Probes that did not come back.", stats.probes_missed),
        ("reconnects_total", "counter", "Command connections opened again.", stats.reconnects),
        ("subscriptions", "gauge", "Topics that links are subscribed to.", stats.subscriptions),
        ("publish_bytes", "gauge", "Bytes of publications without an answer.", stats.publish_bytes),
        ("queue_bytes", "gauge", "Bytes of deliveries not read yet.", stats.queue_bytes),
        ("malformed_total", "counter", "What arrived and was no message.", stats.malformed),
    ] {
        let name = format!("redis_{name}");
        text.family(&name, help, kind);
        text.sample(&name, None, value as f64);
    }
    let name = "redis_publish_errors_total";
    text.family(name, "Publications that were not accepted, by reason.", "counter");
    for (reason, count) in stats.publish_errors.iter() {
        text.sample(name, Some(("reason", reason)), count as f64);
    }
}
