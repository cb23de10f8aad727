"""`/metrics` as Prometheus' own parser reads it: python metrics.py http://127.0.0.1:ADMIN"""

import sys
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

with urlopen(sys.argv[1] + "/metrics", timeout=10) as answer:
    kind = answer.headers["Content-Type"]
    text = answer.read().decode()

families = {family.name: family for family in text_string_to_metric_families(text)}
assert kind.startswith("text/plain; version=0.0.4"), kind
print("ok - metrics: the content type")
untyped = [name for name, family in families.items() if family.type == "unknown" or not family.documentation]
assert len(families) > 20 and not untyped, untyped
print("ok - metrics: every family has a type and a help")
connections = {s.labels["transport"]: s.value for s in families["tidings_connections"].samples}
assert set(connections) == {"websocket", "sse"}, connections
print("ok - metrics: connections by transport")
received = families["tidings_messages_received"].samples[0]
assert received.name == "tidings_messages_received_total" and received.value > 0, received
judged = {s.labels["outcome"] for s in families["tidings_authentications"].samples}
assert "accepted" in judged, judged
print("ok - metrics: counters count")
buckets = [s.value for s in families["tidings_publish_seconds"].samples if s.name.endswith("_bucket")]
assert buckets == sorted(buckets) and len(buckets) > 5, buckets
print("ok - metrics: the buckets of the histogram rise")
