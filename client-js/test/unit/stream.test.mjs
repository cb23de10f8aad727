import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, settle, start } from "./support.mjs";

/** Stands for the network: streams that tests feed, and what was POSTed. */
function network() {
  const net = { streams: [], posts: [], status: 200, postStatus: 202 };
  net.fetch = async (address, { method, headers, body, signal }) => {
    const url = new URL(address);
    if (method === "POST") {
      net.posts.push({ path: url.pathname, headers, message: JSON.parse(body) });
      await net.hold;
      if (net.postStatus instanceof Error) throw net.postStatus;
      return new Response(null, { status: net.postStatus });
    }
    const stream = { url, headers, signal };
    net.streams.push(stream);
    if (net.status !== 200) return new Response("no", { status: net.status });
    const body_ = new ReadableStream({ start: (controller) => (stream.controller = controller) });
    signal.addEventListener("abort", () => stream.controller.error(signal.reason));
    stream.text = async (text) => {
      stream.controller.enqueue(new TextEncoder().encode(text));
      await settle();
    };
    stream.says = (message) => stream.text(`event: ${message.type}\ndata: ${JSON.stringify(message)}\n\n`);
    stream.open = () =>
      stream.says({ type: "connected", payload: { clientId: "sse1", userId: "ann", heartbeatMs: 30_000 } });
    stream.ends = async () => {
      stream.controller.close();
      await settle();
    };
    return new Response(body_, { status: 200 });
  };
  net.last = () => net.streams.at(-1);
  return net;
}

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
  [429, "rate_limited"], [500, "unavailable"], [503, "unavailable"], [new TypeError("no network"), "connection_lost"]]) {
  test(`a POST that gets ${status} is rejected with ${code}`, async (t) => {
    const { net, client } = await startStream(t);
    await net.last().open();
    net.postStatus = status;
    await assert.rejects(client.send("a"), { code });
    assert.equal(client.state, "open");
  });
}

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

for (const [code, state] of [[1012, "waiting"], [1013, "waiting"], [4002, "closed"], [1008, "closed"]]) {
  test(`a \`close\` event with ${code}: ${state}`, async (t) => {
    const { net, states } = await startStream(t);
    await net.last().open();
    const close = { code, reason: "why", reconnectAfterMs: code === 1012 ? 4_321 : undefined };
    await net.last().text(`event: close\ndata: ${JSON.stringify(close)}\n\n`);
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

/** WebSockets that do not get through: the client is on an event stream afterwards. */
async function blocked(t, options) {
  const net = network();
  const started = await start(t, { fetch: net.fetch, token: async () => "t", ...options });
  for (let failure = 1; failure <= 3; failure += 1) {
    assert.equal(net.streams.length, 0, `after ${failure - 1} failures it is not tried yet`);
    await FakeSocket.last.ends();
    await pass(500 * 2 ** (failure - 1));
  }
  assert.equal(FakeSocket.all.length, 3);
  return { net, ...started };
}

test("after 3 failures before open it is an event stream", async (t) => {
  const { net, client, states } = await blocked(t);
  await net.last().open();
  assert.equal(client.transport, "sse");
  assert.equal(states.at(-1).transport, "sse");
});

test("a WebSocket that was open in between starts the count anew", async (t) => {
  const net = network();
  const { client } = await start(t, { fetch: net.fetch });
  for (const opened of [false, false, true, false, false]) {
    if (opened) FakeSocket.last.onopen({});
    await FakeSocket.last.ends();
    await pass(10_000);
  }
  assert.equal(net.streams.length, 0);
  assert.equal(client.transport, "websocket");
});

test("when the stream fails as well it is the WebSocket's turn", async (t) => {
  const { net, client } = await blocked(t);
  await net.last().ends();
  await pass(4_000);
  assert.equal(FakeSocket.all.length, 4);
  await FakeSocket.last.open();
  assert.equal(client.transport, "websocket");
});

test("a stream that was open is followed by a stream", async (t) => {
  const { net } = await blocked(t);
  await net.last().open();
  await net.last().ends();
  await pass(4_000);
  assert.equal(net.streams.length, 2);
  assert.equal(FakeSocket.all.length, 3);
});

test("after 5 minutes a WebSocket is tried beside the stream, and takes over", async (t) => {
  const { net, client, events, states } = await blocked(t, { rooms: ["r1"] });
  await net.last().open();
  await net.last().says({ type: "chat", room: "r1", cursor: "1", payload: "a" });
  for (let beat = 0; beat < 11; beat += 1) {
    await pass(25_000);
    await net.last().text(": ping\n\n");
  }
  await pass(24_900);
  assert.equal(FakeSocket.all.length, 3);
  await pass(100);
  assert.equal(FakeSocket.all.length, 4);
  const socket = FakeSocket.last;
  assert.equal(socket.query.get("cursor"), "1");
  assert.equal(client.transport, "sse");
  await net.last().says({ type: "chat", room: "r1", cursor: "2", payload: "b" });
  await socket.open();
  assert.equal(net.last().signal.aborted, true);
  assert.equal(client.transport, "websocket");
  assert.deepEqual(states.filter(({ state }) => state !== "open").at(-1).state, "connecting", "it was open all along");
  await socket.says({ type: "chat", room: "r1", cursor: "2", payload: "b" });
  await socket.says({ type: "chat", room: "r1", cursor: "3", payload: "c" });
  assert.deepEqual(events.filter(({ type }) => type === "chat").map(({ payload }) => payload), ["a", "b", "c"]);
});

test("a WebSocket that fails beside the stream changes nothing, and is tried again later", async (t) => {
  const { net, client, states } = await blocked(t, { retryWebSocketMs: 10_000 });
  await net.last().open();
  const before = states.length;
  await pass(10_000);
  await FakeSocket.last.ends();
  assert.equal(client.state, "open");
  assert.equal(states.length, before);
  await pass(9_999);
  assert.equal(FakeSocket.all.length, 4);
  await pass(1);
  assert.equal(FakeSocket.all.length, 5);
});

test("a WebSocket does not take over while an answer is on its way", async (t) => {
  const { net, client } = await blocked(t, { retryWebSocketMs: 1_000 });
  await net.last().open();
  const call = client.send("a");
  await pass(1_000);
  await FakeSocket.last.open();
  assert.equal(client.transport, "sse");
  await net.last().says({ type: "ok", id: net.posts[0].message.id });
  await call;
  await pass(1_000);
  await FakeSocket.last.open();
  assert.equal(client.transport, "websocket");
});

test("where there is no WebSocket it is a stream from the beginning", async (t) => {
  const net = network();
  const { client } = await start(t, { WebSocket: null, fetch: net.fetch });
  await net.last().open();
  assert.equal(client.transport, "sse");
});
