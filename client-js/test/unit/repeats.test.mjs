import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, start } from "./support.mjs";

const chat = (payload, cursor, room = "r1") => ({ type: "chat", room, cursor, payload });

/** What the application saw of `chat` when the first connection brought `before` and the second `after`. */
async function seen(t, before, after) {
  const { events } = await start(t, { rooms: ["r1", "r2"] });
  await FakeSocket.last.open();
  for (const message of before) await FakeSocket.last.says(message);
  await FakeSocket.last.ends();
  await pass(500);
  await FakeSocket.last.open({ cursor: "0" });
  for (const message of after) await FakeSocket.last.says(message);
  return events.filter(({ type }) => type === "chat").map(({ payload }) => payload);
}

test("what a replay repeats is dropped", async (t) => {
  const before = [chat("a", "1"), chat("b", "2"), chat("c", "3")];
  const after = [chat("b", "2"), chat("c", "3"), chat("d", "4")];
  assert.deepEqual(await seen(t, before, after), ["a", "b", "c", "d"]);
});

test("the same words with another cursor are another message", async (t) => {
  assert.deepEqual(await seen(t, [chat("hi", "1")], [chat("hi", "2")]), ["hi", "hi"]);
});

test("other words with the same cursor are another message", async (t) => {
  // A node whose cursor stands still gives several messages the same one.
  assert.deepEqual(await seen(t, [chat("a", "1")], [chat("b", "1")]), ["a", "b"]);
});

test("another room is another message", async (t) => {
  assert.deepEqual(await seen(t, [chat("a", "1")], [chat("a", "1", "r2")]), ["a", "a"]);
});

test("within one connection nothing is dropped", async (t) => {
  assert.deepEqual(await seen(t, [chat("a", "1"), chat("a", "1")], []), ["a", "a"]);
});

test("a repeat is dropped once", async (t) => {
  assert.deepEqual(await seen(t, [chat("a", "1")], [chat("a", "1"), chat("a", "1")]), ["a", "a"]);
});

test("after something new nothing is dropped any more, in that room", async (t) => {
  const before = [chat("a", "1"), chat("x", "2", "r2")];
  const after = [chat("b", "3"), chat("a", "1"), chat("x", "2", "r2")];
  assert.deepEqual(await seen(t, before, after), ["a", "x", "b", "a"]);
});

test("without a cursor nothing is dropped", async (t) => {
  assert.deepEqual(await seen(t, [chat("a")], [chat("a")]), ["a", "a"]);
});

for (const [count, dropped] of [[128, true], [129, false]]) {
  test(`the repeat of ${count} messages ago is ${dropped ? "dropped" : "delivered"}`, async (t) => {
    const before = Array.from({ length: count }, (_, n) => chat(n, String(n)));
    const heard = await seen(t, before, [chat(0, "0")]);
    assert.equal(heard.length, dropped ? count : count + 1);
  });
}

test("what is sent to the user is looked at as well", async (t) => {
  const mail = (payload, cursor) => ({ type: "chat", cursor, payload });
  const joined = { type: "room:joined", cursor: "1", payload: { roomId: "r1" } };
  const before = [joined, mail("a", "2"), mail("b", "3")];
  assert.deepEqual(await seen(t, before, [joined, mail("b", "3"), mail("c", "4")]), ["a", "b", "c"]);
});

test("`connected` and `room:joined` are never repeats", async (t) => {
  const { events } = await start(t, { rooms: ["r1"] });
  for (const wait of [500, 0]) {
    await FakeSocket.last.open({ cursor: "1", clientId: "the same" });
    await FakeSocket.last.says({ type: "room:joined", cursor: "1", payload: { roomId: "r1" } });
    if (wait) await FakeSocket.last.ends();
    await pass(wait);
  }
  assert.deepEqual(events.map(({ type }) => type), ["connected", "room:joined", "connected", "room:joined"]);
});

test("a repeated message does not move the cursor back", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  await FakeSocket.last.open();
  await FakeSocket.last.says(chat("a", "1"));
  await FakeSocket.last.says(chat("b", "2"));
  await FakeSocket.last.ends();
  await pass(500);
  await FakeSocket.last.open();
  await FakeSocket.last.says(chat("a", "1"));
  assert.equal(client.cursor, "2");
});
