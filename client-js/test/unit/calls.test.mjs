import assert from "node:assert/strict";
import { test } from "node:test";

import { TidingsError } from "../../src/index.js";
import { FakeSocket, pass, settle, start } from "./support.mjs";

test("an answer finds its message by id, in any order", async (t) => {
  const { client } = await start(t);
  const socket = await FakeSocket.last.open();
  const [first, second] = [client.send("a", { n: 1 }), client.send("b")];
  const [a, b] = socket.sent;
  assert.deepEqual(a, { type: "a", payload: { n: 1 }, id: a.id });
  assert.deepEqual(b, { type: "b", id: b.id });
  await socket.says({ type: "ok", id: b.id });
  await socket.says({ type: "a:done", id: a.id, payload: { sum: 2 } });
  assert.deepEqual((await first).payload, { sum: 2 });
  assert.equal((await second).type, "ok");
});

test("an error rejects with its code", async (t) => {
  const { client, events } = await start(t);
  const socket = await FakeSocket.last.open();
  const call = client.send("a");
  const rejected = assert.rejects(call, (error) => {
    assert.ok(error instanceof TidingsError);
    assert.equal(error.code, "forbidden");
    assert.equal(error.message, "not yours");
    return true;
  });
  await socket.says({ type: "error", id: socket.sent[0].id, payload: { code: "forbidden", message: "not yours" } });
  await rejected;
  assert.equal(events.filter(({ type }) => type === "error").length, 0, "it is no event as well");
});

for (const [after, pending] of [[9_999, true], [10_000, false]]) {
  test(`after ${after} ms without an answer it is ${pending ? "still waited for" : "rejected"}`, async (t) => {
    const { client } = await start(t);
    await FakeSocket.last.open();
    let outcome = "pending";
    client.send("a").catch(({ code }) => (outcome = code));
    await pass(after);
    assert.equal(outcome, pending ? "pending" : "timeout");
  });
}

test("a message may have a time of its own", async (t) => {
  const { client } = await start(t, { timeoutMs: 60_000 });
  await FakeSocket.last.open();
  let outcome = "pending";
  client.send("a", {}, { timeoutMs: 50 }).catch(({ code }) => (outcome = code));
  await pass(49);
  assert.equal(outcome, "pending");
  await pass(1);
  assert.equal(outcome, "timeout");
});

test("an answer that is late is nobody's, and no event", async (t) => {
  const { client, events } = await start(t);
  const heard = [];
  client.on("ok", () => heard.push("ok"));
  const socket = await FakeSocket.last.open();
  const calls = ["a", "b"].map((type) => assert.rejects(client.send(type, {}, { timeoutMs: 5 }), { code: "timeout" }));
  await pass(5);
  await Promise.all(calls);
  await socket.says({ type: "ok", id: socket.sent[0].id });
  await socket.says({ type: "error", id: socket.sent[1].id, payload: { code: "forbidden", message: "no" } });
  assert.deepEqual([heard, events.filter(({ type }) => type === "error")], [[], []]);
  assert.equal(client.state, "open");
});

test("what is sent while away waits, and goes in order", async (t) => {
  const { client } = await start(t);
  const calls = [1, 2, 3].map((n) => client.send("a", n));
  FakeSocket.last.onopen?.({});
  assert.equal(FakeSocket.last.sent.length, 0, "not before `connected`");
  const socket = await FakeSocket.last.open();
  assert.deepEqual(socket.sent.map(({ payload }) => payload), [1, 2, 3]);
  for (const { id } of socket.sent) await socket.says({ type: "ok", id });
  assert.equal((await Promise.all(calls)).length, 3);
});

test("what waited goes before what a listener sends that hears of the connection", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.open({ cursor: "1" });
  await FakeSocket.last.ends();
  client.join("new").catch(() => {});
  client.send("first").catch(() => {});
  client.on("state", ({ state }) => state === "open" && client.send("second").catch(() => {}));
  await pass(500);
  const socket = await FakeSocket.last.open();
  assert.deepEqual(socket.sent.map(({ type }) => type), ["join:room", "first", "second"]);
});

test("waiting costs nothing of the time for the answer", async (t) => {
  const { client } = await start(t);
  let outcome = "pending";
  client.send("a").catch(({ code }) => (outcome = code));
  await pass(12_000);
  const socket = await FakeSocket.last.open();
  await pass(9_999);
  assert.equal(outcome, "pending");
  assert.equal(socket.of("a").length, 1);
  await pass(1);
  assert.equal(outcome, "timeout");
});

test("100 wait, the next is rejected", async (t) => {
  const { client } = await start(t);
  const failed = [];
  for (let n = 1; n <= 101; n += 1) client.send("a", n).catch(({ code }) => failed.push([n, code]));
  await settle();
  assert.deepEqual(failed, [[101, "queue_full"]]);
  const socket = await FakeSocket.last.open();
  assert.equal(socket.of("a").length, 100);
});

test("what was sent and not answered is rejected when the connection is lost", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.open();
  const call = assert.rejects(client.send("a"), { code: "connection_lost" });
  await FakeSocket.last.ends();
  await call;
  await pass(500);
  const socket = await FakeSocket.last.open();
  assert.equal(socket.of("a").length, 0, "and not sent a second time");
});

test("close rejects what waits and what was sent", async (t) => {
  const { client } = await start(t);
  const waiting = assert.rejects(client.send("a"), { code: "closed" });
  client.close();
  await waiting;
});

test("what cannot be sent as JSON is rejected", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.open();
  const circle = {};
  circle.circle = circle;
  await assert.rejects(client.send("a", circle), TypeError);
  assert.equal(FakeSocket.last.sent.length, 0);
});
