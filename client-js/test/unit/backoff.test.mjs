import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, start } from "./support.mjs";

const attempts = () => FakeSocket.all.length;

test("the waits are a random part of 1 s that doubles up to 30 s", async (t) => {
  const { states } = await start(t, { transport: "websocket" });
  for (const ceiling of [1, 2, 4, 8, 16, 30, 30, 30]) {
    const before = attempts();
    await FakeSocket.last.ends();
    assert.equal(states.at(-1).state, "waiting");
    assert.equal(states.at(-1).retryInMs, ceiling * 500);
    await pass(ceiling * 500 - 1);
    assert.equal(attempts(), before);
    await pass(1);
    assert.equal(attempts(), before + 1);
  }
});

for (const [random, wait] of [[0, 0], [0.999999, 1000]]) {
  test(`the jitter is full: chance ${random} waits ${wait} ms`, async (t) => {
    const { states } = await start(t, {}, { random });
    await FakeSocket.last.ends();
    assert.equal(states.at(-1).retryInMs, wait);
  });
}

for (const [held, wait] of [[9_999, 2_000], [10_000, 500]]) {
  test(`a connection that held ${held} ms leads to a wait of ${wait} ms`, async (t) => {
    const { states } = await start(t);
    await FakeSocket.last.ends();
    await pass(500);
    await FakeSocket.last.ends();
    await pass(1_000);
    await FakeSocket.last.open();
    await pass(held);
    await FakeSocket.last.ends();
    assert.equal(states.at(-1).retryInMs, wait);
  });
}

for (const code of [1000, 1002, 1003, 1007, 1009, 4002, 4009]) {
  test(`it does not come back after ${code}`, async (t) => {
    const { client, states } = await start(t, { token: async () => "t" });
    await FakeSocket.last.open();
    await FakeSocket.last.ends(code, "why");
    assert.deepEqual(states.at(-1), { state: "closed", code, reason: "why" });
    await pass(120_000);
    assert.equal(attempts(), 1);
    await assert.rejects(client.send("chat", {}), { code: "closed" });
    await assert.rejects(client.join("r"), { code: "closed" });
  });
}

for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4008, 4029]) {
  test(`it comes back after ${code}, with backoff`, async (t) => {
    const { states } = await start(t);
    await FakeSocket.last.open();
    await FakeSocket.last.ends(code);
    assert.equal(states.at(-1).state, "waiting");
    assert.equal(states.at(-1).code, code);
    await pass(499);
    assert.equal(attempts(), 1);
    await pass(1);
    assert.equal(attempts(), 2);
  });
}

test("a node that drains says when to come back, once", async (t) => {
  const { states } = await start(t);
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "server:draining", payload: { reconnectAfterMs: 7_000 } });
  assert.equal(states.at(-1).state, "open");
  await FakeSocket.last.ends(1012);
  assert.equal(states.at(-1).retryInMs, 7_000);
  await pass(6_999);
  assert.equal(attempts(), 1);
  await pass(1);
  assert.equal(attempts(), 2);
  await FakeSocket.last.ends(1006);
  assert.equal(states.at(-1).retryInMs, 1_000, "the advice does not hold for the attempt after it");
});

test("advice of 0 ms is taken at its word", async (t) => {
  const { states } = await start(t);
  await FakeSocket.last.open();
  await FakeSocket.last.says({ type: "server:draining", payload: { reconnectAfterMs: 0 } });
  await FakeSocket.last.ends(1012);
  assert.equal(states.at(-1).retryInMs, 0);
  await pass(1);
  assert.equal(attempts(), 2);
});

for (const [after, state] of [[14_999, "connecting"], [15_000, "waiting"]]) {
  test(`after ${after} ms without \`connected\` it is ${state}`, async (t) => {
    const { client } = await start(t);
    FakeSocket.last.onopen?.({});
    await pass(after);
    assert.equal(client.state, state);
  });
}

test("a token function that never answers is an attempt that failed", async (t) => {
  let asked = 0;
  const { states } = await start(t, { token: () => new Promise(() => (asked += 1)) });
  await pass(15_000);
  assert.equal(states.at(-1).state, "waiting");
  await pass(500);
  assert.equal(asked, 2);
  assert.equal(attempts(), 0);
});

test("close ends the socket with 1000 and says so", async (t) => {
  const { client, states } = await start(t);
  await FakeSocket.last.open();
  client.close();
  assert.equal(FakeSocket.last.closedWith, 1000);
  assert.equal(client.state, "closed");
  assert.equal(states.filter(({ state }) => state === "closed").length, 1);
  client.close();
  assert.equal(states.filter(({ state }) => state === "closed").length, 1);
});

test("close while waiting ends the waiting", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.ends();
  client.close();
  await pass(60_000);
  assert.equal(attempts(), 1);
});

test("what is late from an older socket is ignored", async (t) => {
  const { events } = await start(t);
  const old = await FakeSocket.last.open();
  const late = { message: old.onmessage, close: old.onclose };
  await old.ends();
  await pass(500);
  await FakeSocket.last.open();
  const seen = events.length;
  late.message({ data: '{"type":"chat","payload":1}' });
  late.close({ code: 4002, reason: "" });
  await pass(1);
  assert.equal(events.length, seen);
  assert.equal(attempts(), 2);
});

test("`reconnect` waits no longer, also where the server gave advice", async (t) => {
  const { client, states } = await start(t);
  const socket = await FakeSocket.last.open();
  await socket.says({ type: "server:draining", payload: { reconnectAfterMs: 3_600_000 } });
  await socket.ends(1012);
  assert.equal(states.at(-1).retryInMs, 3_600_000);
  await client.reconnect();
  assert.equal(FakeSocket.all.length, 2);
  await FakeSocket.last.open();
  await client.reconnect();
  assert.equal(FakeSocket.all.length, 2, "it is open");
  assert.equal(client.state, "open");
});

test("what a connection that was given up says late changes nothing", async (t) => {
  const { client, states } = await start(t);
  const late = FakeSocket.last;
  await pass(15_000);
  assert.equal(states.at(-1).state, "waiting");
  const before = states.length;
  await late.open({ clientId: "late" });
  assert.equal(states.length, before);
  assert.notEqual(client.clientId, "late");
});

test("what comes after `close` harms nobody", async (t) => {
  const { client } = await start(t);
  client.close();
  await FakeSocket.last.open();
  assert.equal(client.state, "closed");
});
