import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../src/index.js";
import { FakeSocket, pass, settle, start } from "./support.mjs";

for (const [given, ws] of [
  ["https://example.org/live/ws", "wss://example.org/live/ws"],
  ["http://example.org:81/ws", "ws://example.org:81/ws"],
  ["wss://example.org/ws", "wss://example.org/ws"],
  ["https://example.org", "wss://example.org/ws"],
  ["https://example.org/ws?tenant=t", "wss://example.org/ws?tenant=t"],
]) {
  test(`${given} is asked at ${ws}`, async (t) => {
    await start(t, {}, { url: given });
    assert.equal(FakeSocket.last.url.href, ws);
  });
}

test("the event stream is a neighbour of the WebSocket, or where it is said to be", async (t) => {
  const seen = [];
  const fetch = async (url) => {
    seen.push(url);
    throw new TypeError("no network");
  };
  await start(t, { transport: "sse", fetch }, { url: "wss://example.org/live/ws?tenant=t" });
  assert.equal(seen[0], "https://example.org/live/events?tenant=t&envelope=1");
  const other = connect("wss://example.org/ws", { transport: "sse", fetch, events: "https://other.org/stream" });
  await settle();
  assert.equal(seen[1], "https://other.org/stream?envelope=1");
  other.close();
});

test("states: connecting, open, waiting, connecting, closed", async (t) => {
  const { client, states } = await start(t);
  assert.equal(client.state, "connecting");
  await FakeSocket.last.open({ clientId: "c-7" });
  assert.equal(client.clientId, "c-7");
  assert.equal(client.transport, "websocket");
  await FakeSocket.last.ends(1006);
  await pass(500);
  client.close();
  assert.deepEqual(states.map(({ state }) => state), ["open", "waiting", "connecting", "closed"]);
});

test("it is not open before `connected`", async (t) => {
  const { client } = await start(t);
  FakeSocket.last.onopen?.({});
  await settle();
  assert.equal(client.state, "connecting");
});

test("a listener gets payload and message until it is taken off", async (t) => {
  const { client } = await start(t);
  const heard = [];
  const off = client.on("news", (payload, message) => heard.push([payload, message.room]));
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "news", room: "r1", payload: { n: 1 } });
  off();
  off();
  await FakeSocket.last.says({ type: "news", room: "r1", payload: { n: 2 } });
  assert.deepEqual(heard, [[{ n: 1 }, "r1"]]);
});

test("one function may listen twice, and each is taken off by itself", async (t) => {
  const { client } = await start(t);
  let heard = 0;
  const listener = () => (heard += 1);
  const off = client.on("news", listener);
  client.on("news", listener);
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "news" });
  off();
  await FakeSocket.last.says({ type: "news" });
  assert.equal(heard, 3);
});

test("a room's listener hears that room: its events and what the protocol says of it", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  const heard = [];
  const room = client.room("r1");
  for (const type of ["news", "gap", "room:joined", "presence:joined", "order"]) {
    room.on(type, (payload) => heard.push([type, payload]));
  }
  const socket = await FakeSocket.last.open();
  for (const roomId of ["r1", "r2"]) {
    await socket.says({ type: "room:joined", payload: { roomId } });
    await socket.says({ type: "news", room: roomId, payload: roomId });
    await socket.says({ type: "gap", payload: { roomId, reason: "trimmed" } });
    await socket.says({ type: "presence:joined", payload: { roomId, userId: "bob" } });
    // The application's own payload says nothing about where it came to.
    await socket.says({ type: "order", payload: { roomId } });
  }
  await socket.says({ type: "gap", payload: { reason: "cursor" } });
  assert.deepEqual(heard.map(([type]) => type), ["room:joined", "news", "gap", "presence:joined"]);
  assert.equal(room.name, "r1");
});

test("a room joins and leaves by its name", async (t) => {
  const { client } = await start(t);
  const socket = await FakeSocket.last.open();
  const room = client.room("r1");
  room.join({ presence: true }).catch(() => {});
  room.leave().catch(() => {});
  assert.deepEqual(socket.sent.map(({ type, payload }) => [type, payload.roomId]),
    [["join:room", "r1"], ["leave:room", "r1"]]);
});

test("a gap is an event, of a room or of the user's own stream", async (t) => {
  const { events } = await start(t);
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "gap", payload: { reason: "epoch" } });
  assert.deepEqual(events.at(-1).payload, { reason: "epoch" });
});

test("a listener that throws is reported, and the others are called", async (t) => {
  const { client } = await start(t);
  const reported = [];
  t.mock.method(globalThis, "queueMicrotask", (task) => {
    try {
      task();
    } catch (error) {
      reported.push(error.message);
    }
  });
  let heard = 0;
  client.on("news", () => {
    throw new Error("broken");
  });
  client.on("news", () => (heard += 1));
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "news" });
  assert.deepEqual([heard, reported], [1, ["broken"]]);
});

test("a listener may close", async (t) => {
  const { client } = await start(t);
  client.on("state", ({ state }) => state === "open" && client.close());
  const call = assert.rejects(client.send("a"), { code: "connection_lost" });
  const socket = await FakeSocket.last.open();
  await call;
  assert.equal(client.state, "closed");
  assert.deepEqual(socket.sent.map(({ type }) => type), ["a"], "what had waited was sent before anybody heard");
  await pass(60_000);
  assert.equal(FakeSocket.all.length, 1);
});

test("a listener may close while it connects", async (t) => {
  let asked = 0;
  const { client } = await start(t, { token: () => `token ${(asked += 1)}` });
  client.on("state", ({ state }) => state === "connecting" && client.close());
  await FakeSocket.last.ends();
  await pass(500);
  assert.equal(client.state, "closed");
  assert.deepEqual([asked, FakeSocket.all.length], [1, 1]);
});

test("closed while a token is asked for, it does not connect", async (t) => {
  let give;
  const { client } = await start(t, { token: () => new Promise((resolve) => (give = resolve)) });
  client.close();
  give("t");
  await pass(1_000);
  assert.equal(FakeSocket.all.length, 0);
});

test("an option that is undefined is as good as none", async (t) => {
  const { client } = await start(t, { rooms: undefined, queue: undefined, timeoutMs: undefined, events: undefined });
  let outcome = "pending";
  client.send("a").catch(({ code }) => (outcome = code));
  await FakeSocket.last.open();
  await pass(9_999);
  assert.equal(outcome, "pending");
});

test("a loop gets every event in order and ends with the client", async (t) => {
  const { client } = await start(t);
  const seen = [];
  const loop = (async () => {
    for await (const { type, payload } of client) seen.push(type === "state" ? payload.state : type);
  })();
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "a" });
  await FakeSocket.last.says({ type: "b" });
  client.close();
  await loop;
  assert.deepEqual(seen, ["open", "connected", "a", "b", "closed"]);
  for await (const message of client) assert.fail(`a closed client has no ${message.type}`);
});

test("a loop that is left gets nothing more", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.open();
  const first = (async () => {
    for await (const message of client) return message.type;
  })();
  await FakeSocket.last.says({ type: "a" });
  assert.equal(await first, "a");
});

for (const [count, error] of [[10_000, undefined], [10_001, "overflow"]]) {
  test(`a loop that is ${count} events behind ${error ? "fails" : "goes on"}`, async (t) => {
    const { client } = await start(t);
    await FakeSocket.last.open();
    const loop = client[Symbol.asyncIterator]();
    const first = loop.next();
    FakeSocket.last.onmessage({ data: '{"type":"a"}' });
    await first;
    for (let n = 0; n < count; n += 1) FakeSocket.last.onmessage({ data: '{"type":"a"}' });
    for (let n = 0; n < 10_000; n += 1) await loop.next();
    if (error) {
      await loop.next();
      await assert.rejects(loop.next(), { code: error });
    } else {
      FakeSocket.last.onmessage({ data: '{"type":"b"}' });
      assert.equal((await loop.next()).value.type, "b");
    }
  });
}

test("a cursor alone moves the cursor, and nobody hears of it", async (t) => {
  const { client } = await start(t);
  const heard = [];
  client.on("cursor", (payload) => heard.push(payload));
  const socket = await FakeSocket.last.open({ cursor: "1" });
  await socket.says({ type: "cursor", cursor: "2" });
  assert.equal(client.cursor, "2");
  assert.deepEqual(heard, []);
});

test("what is no JSON ends the connection, which comes back", async (t) => {
  const { states } = await start(t);
  const socket = await FakeSocket.last.open();
  socket.onmessage({ data: "<html>" });
  await settle();
  assert.deepEqual([states.at(-1).state, states.at(-1).code], ["waiting", 1006]);
  assert.equal(socket.closedWith, 1000);
  await pass(states.at(-1).retryInMs);
  assert.equal(FakeSocket.all.length, 2);
});

for (const [where, globals, address] of [
  ["a worker from a blob", { location: new URL("blob:https://example.org/0f8b") }, "wss://example.org/ws"],
  ["a frame without an address", { location: new URL("about:srcdoc"), document: { baseURI: "https://example.org/a/" } }, "wss://example.org/ws"],
]) {
  test(`in ${where} a path is relative to its page`, async (t) => {
    for (const name in globals) {
      const was = Object.getOwnPropertyDescriptor(globalThis, name);
      Object.defineProperty(globalThis, name, { value: globals[name], configurable: true, writable: true });
      t.after(() => (was ? Object.defineProperty(globalThis, name, was) : delete globalThis[name]));
    }
    await start(t, {}, { url: "/ws" });
    assert.equal(FakeSocket.last.url.href, address);
  });
}
