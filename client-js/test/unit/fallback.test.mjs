import assert from "node:assert/strict";
import { test } from "node:test";

import { network } from "./network.mjs";
import { FakeSocket, pass, start } from "./support.mjs";

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

/** A stream beside which a WebSocket broke as well, 3 s after it was open: the network takes none. */
async function proven(t, options) {
  const started = await blocked(t, options);
  await started.net.last().open();
  await pass(3_000);
  assert.equal(FakeSocket.all.length, 4);
  await FakeSocket.last.ends();
  return started;
}

test("after 3 failures before open it is an event stream", async (t) => {
  const { net, client, states } = await blocked(t);
  await net.last().open();
  assert.equal(client.transport, "sse");
  assert.equal(states.at(-1).transport, "sse");
});

test("an upgrade that passes and nothing after it is a failure too", async (t) => {
  const net = network();
  const { client, states } = await start(t, { fetch: net.fetch });
  for (let failure = 1; failure <= 3; failure += 1) {
    FakeSocket.last.onopen?.({});
    // Nothing says `connected`: it is given up after 15 s.
    await pass(15_000);
    assert.equal(states.at(-1).code, 1006);
    await pass(states.at(-1).retryInMs);
  }
  await net.last().open();
  assert.equal(client.transport, "sse");
});

for (const [what, between] of [
  ["was open", async (socket) => (await socket.open()).ends()],
  ["was ended by the server", (socket) => socket.ends(1013)],
]) {
  test(`a WebSocket that ${what} in between starts the count anew`, async (t) => {
    const net = network();
    const { client } = await start(t, { fetch: net.fetch });
    for (let attempt = 1; attempt <= 5; attempt += 1) {
      if (attempt === 3) await between(FakeSocket.last);
      else await FakeSocket.last.ends();
      await pass(10_000);
    }
    assert.equal(net.streams.length, 0);
    assert.equal(client.transport, "websocket");
  });
}

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

test("5 minutes after the last one a WebSocket is tried beside the stream, and takes over", async (t) => {
  const { net, client, events, states } = await proven(t, { rooms: ["r1"] });
  await net.last().says({ type: "chat", room: "r1", cursor: "1", payload: "a" });
  for (let beat = 0; beat < 11; beat += 1) {
    await pass(25_000);
    await net.last().text(": ping\n\n");
  }
  await pass(24_900);
  assert.equal(FakeSocket.all.length, 4);
  await pass(100);
  assert.equal(FakeSocket.all.length, 5);
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
  await pass(3_000);
  await FakeSocket.last.ends();
  assert.equal(client.state, "open");
  assert.equal(states.length, before);
  await pass(9_999);
  assert.equal(FakeSocket.all.length, 4);
  await pass(1);
  assert.equal(FakeSocket.all.length, 5);
});

for (const [random, after] of [[0, 7_500], [0.999999, 12_500]]) {
  test(`not all come at once: chance ${random} tries a WebSocket after ${after} ms`, async (t) => {
    const { net, chance } = await blocked(t, { retryWebSocketMs: 10_000 });
    chance.mock.mockImplementation(() => random);
    await net.last().open();
    await pass(random ? 5_000 : 1_000);
    const before = FakeSocket.all.length;
    await FakeSocket.last.ends();
    await pass(after - 1);
    assert.equal(FakeSocket.all.length, before);
    await pass(1);
    assert.equal(FakeSocket.all.length, before + 1);
  });
}

test("streams that are cut all the time put a WebSocket off no longer", async (t) => {
  const { net, client } = await proven(t);
  for (let minute = 1; minute <= 5; minute += 1) {
    if (minute > 1) await net.last().open();
    await pass(25_000);
    await net.last().text(": ping\n\n");
    await pass(25_000);
    assert.equal(client.transport, "sse");
    await net.last().ends();
    await pass(10_000);
  }
  await net.last().open();
  await pass(1);
  assert.equal(FakeSocket.all.length, 5);
  await FakeSocket.last.open();
  assert.equal(client.transport, "websocket");
});

for (const [random, after] of [[0, 1_000], [0.999999, 5_000]]) {
  test(`after an outage it is back on a WebSocket within seconds: chance ${random} tries one after ${after} ms`, async (t) => {
    const { net, client, chance } = await blocked(t);
    chance.mock.mockImplementation(() => random);
    await net.last().open();
    await pass(after - 1);
    assert.equal(FakeSocket.all.length, 3);
    await pass(1);
    await FakeSocket.last.open();
    assert.equal(client.transport, "websocket");
  });
}

/** A stream with a call on its way, and a WebSocket that is ready to take over. */
async function ready(t, options) {
  const started = await blocked(t, { retryWebSocketMs: 10_000, ...options });
  const { net, client } = started;
  await net.last().open();
  await pass(2_000);
  const first = client.send("first");
  await pass(1_000);
  const socket = await FakeSocket.last.open({ cursor: "1" });
  assert.equal(client.transport, "sse");
  return { ...started, first, socket, stream: net.last() };
}

test("while an answer is on its way by the stream, what is sent waits for the WebSocket", async (t) => {
  const { net, client, events, first, socket, stream } = await ready(t);
  const second = client.send("second");
  await socket.says({ type: "chat", cursor: "2", payload: "once" });
  await stream.says({ type: "chat", cursor: "2", payload: "once" });
  assert.deepEqual(net.posts.map(({ message }) => message.type), ["first"]);
  await stream.says({ type: "ok", id: net.posts[0].message.id });
  await first;
  assert.equal(client.transport, "websocket");
  assert.equal(stream.signal.aborted, true);
  await socket.says({ type: "ok", id: socket.of("second")[0].id });
  await second;
  assert.deepEqual(events.filter(({ type }) => type === "chat").map(({ payload }) => payload), ["once"]);
});

test("an answer that never comes does not keep the WebSocket waiting for ever", async (t) => {
  const { client, first } = await ready(t);
  const late = assert.rejects(first, { code: "timeout" });
  await pass(9_000);
  await late;
  assert.equal(client.transport, "websocket");
});

test("a WebSocket that waited 15 s in vain is given up, and what waited for it goes by the stream", async (t) => {
  const { net, client, first, stream } = await ready(t, { timeoutMs: 60_000 });
  first.catch(() => {});
  client.send("second").catch(() => {});
  client.join("r").catch(() => {});
  await pass(14_900);
  assert.equal(net.posts.length, 1);
  await pass(100);
  assert.equal(client.transport, "sse");
  assert.equal(stream.signal.aborted, false);
  assert.deepEqual(net.posts.map(({ message }) => message.type), ["first", "join:room", "second"]);
});

test("when the stream breaks, a WebSocket that waits takes over at once", async (t) => {
  const { client, first, states, stream } = await ready(t);
  const lost = assert.rejects(first, { code: "connection_lost" });
  await stream.ends();
  await lost;
  assert.deepEqual(states.slice(-2).map(({ state, transport }) => [state, transport]),
    [["open", "sse"], ["open", "websocket"]]);
  assert.equal(client.state, "open");
});
