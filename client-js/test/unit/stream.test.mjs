import assert from "node:assert/strict";
import { test } from "node:test";

import { network } from "./network.mjs";
import { pass, settle, start } from "./support.mjs";

async function startStream(t, options = {}) {
  const net = network();
  const started = await start(t, { transport: "sse", token: "t", fetch: net.fetch, ...options });
  return { net, ...started };
}

test("the stream is asked for beside the WebSocket, with envelopes and the token in a header", async (t) => {
  const { net } = await startStream(t, { rooms: ["r1"], cursor: "c1" });
  const { url, headers } = net.last();
  assert.equal(url.origin + url.pathname, "https://example.org/events");
  assert.deepEqual([...url.searchParams], [["envelope", "1"], ["cursor", "c1"], ["room", "r1"]]);
  assert.equal(headers.Authorization, "Bearer t");
});

test("events arrive whatever their type, in whatever pieces", async (t) => {
  const { net, client, events } = await startStream(t);
  await net.last().text("retry: 2000\n\n");
  await net.last().open();
  assert.equal(client.state, "open");
  assert.equal(client.transport, "sse");
  const text = 'event: chat\nid: c9\ndata: {"type":"chat",\ndata:  "cursor":"c9","payload":"grüße\u2028 🎉"}\n\n: ping\n\n';
  for (const byte of new TextEncoder().encode(text)) net.last().controller.enqueue(Uint8Array.of(byte));
  await settle();
  await settle();
  assert.deepEqual(events.at(-1), { type: "chat", cursor: "c9", payload: "grüße\u2028 🎉" });
  assert.equal(client.cursor, "c9");
});

test("an error of the server is told as on a WebSocket", async (t) => {
  const { net, events } = await startStream(t);
  await net.last().open();
  const error = { type: "error", payload: { code: "forbidden", message: "no", roomId: "r9" } };
  await net.last().text(`event: server:error\ndata: ${JSON.stringify(error)}\n\n`);
  assert.deepEqual(events.at(-1), error);
});

test("messages are POSTed one after the other, and answered on the stream", async (t) => {
  const { net, client } = await startStream(t);
  await net.last().open();
  let release;
  net.hold = new Promise((resolve) => (release = resolve));
  const [first, second] = [client.send("a", 1), client.send("b", 2)];
  await settle();
  assert.deepEqual(net.posts.map(({ path }) => path), ["/events/sse1"]);
  assert.equal(net.posts[0].headers.Authorization, "Bearer t");
  release();
  await settle();
  assert.deepEqual(net.posts.map(({ message }) => message.payload), [1, 2]);
  await net.last().says({ type: "ok", id: net.posts[1].message.id });
  await net.last().says({ type: "ok", id: net.posts[0].message.id });
  await Promise.all([first, second]);
});

for (const [status, code] of [[400, "invalid_message"], [401, "forbidden"], [403, "forbidden"], [413, "too_large"],
  [429, "rate_limited"], [500, "unavailable"], [503, "unavailable"], [502, "connection_lost"], [504, "connection_lost"],
  [new TypeError("no network"), "connection_lost"]]) {
  test(`a POST that gets ${status} is rejected with ${code}`, async (t) => {
    const { net, client } = await startStream(t);
    await net.last().open();
    net.postStatus = status;
    await assert.rejects(client.send("a"), { code });
    assert.equal(client.state, "open");
  });
}

test("a POST that hangs is given up after 8 s, and the next ones go", async (t) => {
  const { net, client } = await startStream(t, { timeoutMs: 60_000 });
  await net.last().open();
  net.hold = new Promise(() => {});
  const hung = assert.rejects(client.send("a"), { code: "connection_lost" });
  await settle();
  net.hold = undefined;
  const next = client.send("b");
  await pass(7_999);
  assert.equal(net.posts.length, 1);
  await pass(1);
  await hung;
  assert.equal(net.posts.length, 2);
  await net.last().says({ type: "ok", id: net.posts[1].message.id });
  assert.equal((await next).type, "ok");
  assert.equal(client.state, "open");
});

test("what was not POSTed when the stream ended is not POSTed later", async (t) => {
  const { net, client } = await startStream(t);
  await net.last().open();
  net.hold = new Promise(() => {});
  const lost = ["a", "b"].map((type) => assert.rejects(client.send(type), { code: "connection_lost" }));
  await settle();
  await net.last().ends();
  await Promise.all(lost);
  await pass(20_000);
  assert.deepEqual(net.posts.map(({ message }) => message.type), ["a"]);
});

test("a POST that gets 404 means that the stream is gone", async (t) => {
  const { net, client } = await startStream(t);
  await net.last().open();
  net.postStatus = 404;
  await assert.rejects(client.send("a"), { code: "connection_lost" });
  assert.equal(client.state, "waiting");
  assert.equal(net.last().signal.aborted, true);
});

for (const [status, state, code] of [[401, "closed", 1008], [403, "closed", 1008], [429, "closed", 4009],
  [404, "waiting", 1006], [502, "waiting", 1006], [503, "waiting", 1006]]) {
  test(`a stream that gets ${status} is ${state}`, async (t) => {
    const net = network();
    net.status = status;
    const { states } = await start(t, { transport: "sse", token: "t", fetch: net.fetch });
    await settle();
    assert.equal(states.at(-1).state, state);
    assert.equal(states.at(-1).code, code);
  });
}

for (const [header, wait] of [["7", 7_000], ["Wed, 21 Oct 2026 07:28:00 GMT", 500], [undefined, 500]]) {
  test(`a stream that is refused with \`Retry-After: ${header}\` is tried again after ${wait} ms`, async (t) => {
    const net = network();
    net.status = 503;
    if (header) net.headers = { "Retry-After": header };
    const { states } = await start(t, { transport: "sse", token: "t", fetch: net.fetch });
    await settle();
    assert.equal(states.at(-1).retryInMs, wait);
    assert.equal(states.at(-1).advised, header === "7");
  });
}

for (const [code, state] of [[1012, "waiting"], [1013, "waiting"], [4002, "closed"], [1008, "closed"]]) {
  test(`a \`close\` event with ${code}: ${state}`, async (t) => {
    const { net, states } = await startStream(t);
    await net.last().open();
    const payload = { code, reason: "why", reconnectAfterMs: code === 1012 ? 4_321 : undefined };
    await net.last().text(`event: close\ndata: ${JSON.stringify({ type: "close", payload })}\n\n`);
    await net.last().ends();
    assert.equal(states.at(-1).state, state);
    assert.equal(states.at(-1).code, code);
    if (code === 1012) assert.equal(states.at(-1).retryInMs, 4_321);
  });
}

test("a stream that ends without a word is lost", async (t) => {
  const { net, states } = await startStream(t);
  await net.last().open();
  await net.last().ends();
  assert.deepEqual([states.at(-1).state, states.at(-1).code], ["waiting", 1006]);
});

test("a heartbeat is a sign of life; without one it asks by POST, then drops", async (t) => {
  const { net, client } = await startStream(t);
  await net.last().open();
  await pass(20_000);
  await net.last().text(": ping\n\n");
  await pass(29_900);
  assert.equal(net.posts.length, 0);
  await pass(100);
  assert.deepEqual(net.posts.map(({ message }) => message), [{ type: "ping" }]);
  await pass(5_000);
  assert.equal(client.state, "waiting");
  assert.equal(net.last().signal.aborted, true);
});

test("after a renewal, POSTs carry the new token", async (t) => {
  const list = ["one", "two"];
  const { net, client } = await startStream(t, { token: async () => list.shift() });
  await net.last().open();
  await net.last().says({ type: "token:expiring", payload: { expiresAt: 1 } });
  const renewal = net.posts[0];
  assert.equal(renewal.headers.Authorization, "Bearer one");
  await net.last().says({ type: "token:renewed", id: renewal.message.id, payload: {} });
  client.send("a").catch(() => {});
  await settle();
  assert.equal(net.posts[1].headers.Authorization, "Bearer two");
});

test("where there is no WebSocket it is a stream from the beginning", async (t) => {
  const net = network();
  const { client } = await start(t, { WebSocket: null, fetch: net.fetch });
  await net.last().open();
  assert.equal(client.transport, "sse");
});

test("an id alone moves the cursor, and nobody hears of it", async (t) => {
  const { net, client, events } = await startStream(t);
  await net.last().open();
  const before = events.length;
  await net.last().text("id: c7\n\n");
  assert.equal(client.cursor, "c7");
  assert.equal(events.length, before);
});

for (const [seconds, wait] of [[7, 7_000], [60, 60_000], [61, 60_000], [3_600, 60_000]]) {
  test(`Retry-After: ${seconds} is a wait of ${wait} ms, since it may be a proxy's`, async (t) => {
    const net = network();
    net.status = 503;
    net.headers = { "Retry-After": String(seconds) };
    const { states } = await start(t, { transport: "sse", fetch: net.fetch });
    assert.equal(states.at(-1).retryInMs, wait);
  });
}

test("an answer is overdue only once its message is on its way", async (t) => {
  const { net, client } = await startStream(t, { timeoutMs: 5_000 });
  await net.last().open();
  let go;
  net.hold = new Promise((resolve) => (go = resolve));
  const first = assert.rejects(client.send("first"), { code: "timeout" });
  let settled;
  const second = client.send("second").finally(() => (settled = true));
  await pass(6_000);
  await first;
  assert.equal(settled, undefined);
  go();
  await settle();
  await pass(4_900);
  await net.last().says({ type: "ok", id: net.posts[1].message.id });
  assert.equal((await second).type, "ok");
});
