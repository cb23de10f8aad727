import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, settle, start } from "./support.mjs";

const joined = (roomId, more) => ({ type: "room:joined", payload: { roomId, recovered: false }, ...more });
const refused = (roomId, code, more) => ({ type: "error", payload: { code, message: code, roomId }, ...more });
const rooms = (socket) => socket.query.getAll("room");

test("the rooms of the options are named in the URL", async (t) => {
  await start(t, { rooms: ["r1", "a b&c"] });
  assert.deepEqual(rooms(FakeSocket.last), ["r1", "a b&c"]);
  assert.equal(FakeSocket.last.query.has("presence"), false);
  assert.equal(FakeSocket.last.query.has("cursor"), false);
});

test("presence is asked for in the URL, and repeated", async (t) => {
  await start(t, { rooms: ["r1"], presence: true });
  assert.equal(FakeSocket.last.query.get("presence"), "1");
  await FakeSocket.last.open();
  await FakeSocket.last.says(joined("r1"));
  await FakeSocket.last.ends();
  await pass(500);
  assert.equal(FakeSocket.last.query.get("presence"), "1");
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
});

test("a reconnect names the newest cursor, the rooms and the previous connection", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  const socket = await FakeSocket.last.open({ cursor: "c0" });
  await socket.says(joined("r1", { cursor: "c1" }));
  const join = client.join("r2");
  await socket.says(joined("r2", { id: socket.of("join:room")[0].id }));
  assert.equal((await join).payload.roomId, "r2");
  await socket.says({ type: "chat", room: "r2", cursor: "c2", payload: 1 });
  await socket.says({ type: "chat", payload: 2 });
  assert.equal(client.cursor, "c2");
  await socket.ends();
  await pass(500);
  const { query } = FakeSocket.last;
  assert.equal(query.get("cursor"), "c2");
  assert.equal(query.get("previous"), "c1");
  assert.deepEqual(rooms(FakeSocket.last), ["r1", "r2"]);
  await FakeSocket.last.open();
  assert.equal(FakeSocket.last.of("join:room").length, 0);
});

test("a connection may begin at a cursor that was kept", async (t) => {
  await start(t, { rooms: ["r1"], cursor: "kept" });
  assert.equal(FakeSocket.last.query.get("cursor"), "kept");
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
});

test("a room that was not joined yet keeps its own, older cursor", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  let socket = await FakeSocket.last.open();
  await socket.says(joined("r1", { cursor: "c1" }));
  await socket.ends();
  await pass(500);
  // Cut again before the room was joined, and after something else moved the cursor on.
  socket = await FakeSocket.last.open();
  await socket.says({ type: "chat", cursor: "c2", payload: "to the user" });
  await socket.ends();
  await pass(1_000);
  assert.equal(FakeSocket.last.query.get("cursor"), "c2");
  assert.deepEqual(rooms(FakeSocket.last), []);
  socket = await FakeSocket.last.open();
  const [wish] = socket.of("join:room");
  assert.deepEqual(wish.payload, { roomId: "r1", cursor: "c1" });
  await socket.says(joined("r1", { id: wish.id }));
  await socket.ends();
  await pass(2_000);
  assert.deepEqual(rooms(FakeSocket.last), ["r1"], "now it is whole up to the cursor");
  assert.equal(client.cursor, "c2");
});

test("a room that is new while away is joined without a replay", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.open({ cursor: "c1" });
  await FakeSocket.last.ends();
  const join = client.join("new", { presence: true });
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
  const socket = await FakeSocket.last.open();
  const [wish] = socket.of("join:room");
  assert.deepEqual(wish.payload, { roomId: "new", presence: true });
  await socket.says(joined("new", { id: wish.id }));
  assert.equal((await join).type, "room:joined");
});

test("rooms without presence are not named beside those with it", async (t) => {
  const { client } = await start(t, { rooms: ["plain"] });
  client.join("seen", { presence: true }).catch(() => {});
  await FakeSocket.last.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), ["plain"]);
  assert.equal(FakeSocket.last.query.has("presence"), false);
  const socket = await FakeSocket.last.open();
  assert.deepEqual(socket.of("join:room").map(({ payload }) => payload), [{ roomId: "seen", presence: true }]);
});

for (const [length, named] of [[1, 4], [2, 3]]) {
  test(`a URL takes 6,000 characters, its token and cursor too: ${named} of 4 rooms are in it, all are joined`, async (t) => {
    // 3 × (1,000 + "&room=") and what remains for the last.
    const names = [..."abc"].map((letter) => letter.repeat(1_000));
    const rest = 6_000 - "wss://example.org/ws?token=&cursor=".length - 3 * 1_006 - 2_000 - "&room=".length;
    names.push("d".repeat(rest - 1 + length));
    await start(t, { rooms: names, token: "t".repeat(1_000), cursor: "c".repeat(1_000) });
    assert.equal(FakeSocket.last.url.href.length <= 6_000, true);
    assert.deepEqual(rooms(FakeSocket.last), names.slice(0, named));
    const socket = await FakeSocket.last.open();
    assert.deepEqual(socket.of("join:room").map(({ payload }) => payload.roomId), names.slice(named));
  });
}

test("a join that is refused is rejected and forgotten", async (t) => {
  const { client, events } = await start(t);
  const socket = await FakeSocket.last.open();
  const join = assert.rejects(client.join("secret"), { code: "forbidden" });
  await socket.says(refused("secret", "forbidden", { id: socket.sent[0].id }));
  await join;
  assert.equal(events.filter(({ type }) => type === "error").length, 0);
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
});

test("a join that cannot be done now is rejected and forgotten too", async (t) => {
  const { client } = await start(t, {}, { random: 0 });
  const socket = await FakeSocket.last.open();
  const join = assert.rejects(client.join("r1"), { code: "unavailable" });
  await socket.says(refused("r1", "unavailable", { id: socket.sent[0].id }));
  await join;
  await pass(5_000);
  assert.equal(socket.of("join:room").length, 1);
});

test("an error about a room where it is already is an event", async (t) => {
  const { events } = await start(t, { rooms: ["r1"] });
  await FakeSocket.last.open();
  await FakeSocket.last.says(joined("r1"));
  await FakeSocket.last.says(refused("r1", "forbidden"));
  assert.equal(events.at(-1).payload.code, "forbidden");
  await FakeSocket.last.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
});

test("a room of the options that is refused is an event, and forgotten", async (t) => {
  const { events } = await start(t, { rooms: ["secret"] });
  const socket = await FakeSocket.last.open();
  await socket.says(refused("secret", "forbidden"));
  assert.equal(events.at(-1).payload.code, "forbidden");
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
});

test("a room that cannot be joined now is tried again, from the cursor of then", async (t) => {
  const { events } = await start(t, { rooms: ["r1"], cursor: "c1" }, { random: 0 });
  const socket = await FakeSocket.last.open();
  await socket.says(refused("r1", "unavailable"));
  assert.equal(events.at(-1).payload.code, "unavailable");
  await socket.says({ type: "chat", cursor: "c2", payload: 1 });
  await pass(999);
  assert.equal(socket.of("join:room").length, 0);
  await pass(1);
  assert.deepEqual(socket.of("join:room")[0].payload, { roomId: "r1", cursor: "c1" });
  await socket.says(refused("r1", "unavailable", { id: socket.of("join:room")[0].id }));
  await pass(1_000);
  assert.equal(socket.of("join:room").length, 2);
});

test("leaving tells the server, and the room is not named again", async (t) => {
  const { client, events } = await start(t, { rooms: ["r1"] });
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  const left = client.leave("r1");
  await socket.says({ type: "room:left", id: socket.of("leave:room")[0].id, payload: { roomId: "r1" } });
  assert.equal((await left).type, "room:left");
  assert.equal(events.at(-1).type, "room:left");
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
});

test("leaving while away needs no server", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  await FakeSocket.last.ends();
  assert.equal((await client.leave("r1")).payload.roomId, "r1");
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
});

test("left and joined again at once is in", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  client.leave("r1");
  const again = client.join("r1");
  const [leave, join] = socket.sent;
  await socket.says({ type: "room:left", id: leave.id, payload: { roomId: "r1" } });
  await socket.says(joined("r1", { id: join.id }));
  await again;
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
});

test("a join that is left before it is answered is rejected", async (t) => {
  const { client } = await start(t);
  const join = assert.rejects(client.join("r1"), { code: "left" });
  await client.leave("r1");
  await join;
});

test("a room that is left while the connection that names it is on its way is left there too", async (t) => {
  const { client, events } = await start(t, { rooms: ["r1"] });
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
  await client.leave("r1");
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  assert.deepEqual(socket.of("leave:room").map(({ payload }) => payload), [{ roomId: "r1" }]);
  assert.deepEqual(events.filter(({ type }) => type === "room:joined"), []);
  await socket.says({ type: "room:left", id: socket.sent[0].id, payload: { roomId: "r1" } });
  // What the server does by itself later is another matter.
  await socket.says(joined("r1"));
  assert.equal(socket.of("leave:room").length, 1);
  assert.equal(events.at(-1).type, "room:joined");
});

test("a room that is left while a join is on its way is not joined again", async (t) => {
  const { client } = await start(t);
  const socket = await FakeSocket.last.open();
  const join = assert.rejects(client.join("r1"), { code: "left" });
  const leave = client.leave("r1");
  await socket.says(joined("r1", { id: socket.of("join:room")[0].id }));
  await socket.says({ type: "room:left", id: socket.of("leave:room")[0].id, payload: { roomId: "r1" } });
  await Promise.all([join, leave]);
  await socket.ends();
  await pass(500);
  const next = await FakeSocket.last.open();
  assert.deepEqual([...rooms(next), ...next.of("join:room")], []);
});

test("a join that is answered too late is taken back", async (t) => {
  const { client, events } = await start(t);
  const socket = await FakeSocket.last.open();
  const join = assert.rejects(client.join("r1"), { code: "timeout" });
  await pass(10_000);
  await join;
  await socket.says(joined("r1", { id: socket.of("join:room")[0].id }));
  assert.deepEqual(socket.of("leave:room").map(({ payload }) => payload), [{ roomId: "r1" }]);
  assert.deepEqual(events.filter(({ type }) => type === "room:joined"), []);
});

test("leaving is done when the connection is lost", async (t) => {
  const { client } = await start(t, { rooms: ["r1"] });
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  const left = client.leave("r1");
  await socket.ends();
  assert.deepEqual(await left, { type: "room:left", payload: { roomId: "r1" } });
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
});

test("a room from which the server takes us out is not named again", async (t) => {
  const { events } = await start(t, { rooms: ["r1"] });
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  await socket.says({ type: "room:left", payload: { roomId: "r1", reason: "forbidden" } });
  assert.equal(events.at(-1).payload.reason, "forbidden");
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), []);
});

test("a room into which the server puts us is kept over a reconnect", async (t) => {
  await start(t);
  const socket = await FakeSocket.last.open();
  await socket.says(joined("by-server"));
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), ["by-server"]);
});

test("joining again asks again, without a replay", async (t) => {
  const { client } = await start(t, { rooms: ["r1"], cursor: "c1" });
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  const again = client.join("r1", { presence: true });
  const [wish] = socket.of("join:room");
  assert.deepEqual(wish.payload, { roomId: "r1", presence: true });
  await socket.says({ ...joined("r1"), id: wish.id });
  await again;
});

test("joining again and being refused is rejected, and leaves us in", async (t) => {
  const { client, events } = await start(t, { rooms: ["r1"] });
  const socket = await FakeSocket.last.open();
  await socket.says(joined("r1"));
  const again = assert.rejects(client.join("r1", { presence: true }), { code: "rate_limited" });
  await socket.says(refused("r1", "rate_limited", { id: socket.of("join:room")[0].id }));
  await again;
  assert.deepEqual(events.filter(({ type }) => type === "error"), []);
  await pass(10_000);
  assert.equal(socket.of("join:room").length, 1);
  await socket.ends();
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
});

test("100 joins wait for a connection, the next is rejected", async (t) => {
  const { client } = await start(t);
  const failed = [];
  for (let n = 1; n <= 101; n += 1) client.join(`r${n % 60}`).catch(({ code }) => failed.push([n, code]));
  await settle();
  assert.deepEqual(failed, [[101, "queue_full"]]);
});

test("a join outlives the connection", async (t) => {
  const { client } = await start(t);
  await FakeSocket.last.open();
  let outcome = "pending";
  const join = client.join("r1").then((answer) => (outcome = answer.type));
  await FakeSocket.last.ends();
  await settle();
  assert.equal(outcome, "pending");
  await pass(500);
  assert.deepEqual(rooms(FakeSocket.last), ["r1"]);
  await FakeSocket.last.open();
  await FakeSocket.last.says(joined("r1"));
  await join;
  assert.equal(outcome, "room:joined");
});

test("close rejects joins", async (t) => {
  const { client } = await start(t);
  const join = assert.rejects(client.join("r1"), { code: "closed" });
  client.close();
  await join;
});
