import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, settle } from "./support.mjs";
import { browser, chats } from "./tabs.mjs";

const joined = (roomId, more) => ({ type: "room:joined", payload: { roomId, recovered: false }, ...more });
const chat = (payload, cursor, room = "r") => ({ type: "chat", room, cursor, payload });

/** Tabs in these rooms, on one open connection that is in all of them. */
async function tabsIn(t, rooms, options) {
  const { open, openFirst, locks } = await browser(t, options);
  const tabs = [];
  for (const room of rooms) {
    const tab = await (tabs.length ? open : openFirst)({ rooms: room ? [room] : [] });
    tabs.push(tab);
    if (tabs.length === 1) await FakeSocket.last.open({ clientId: "first" });
  }
  for (const room of new Set(rooms.filter(Boolean))) await FakeSocket.last.says(joined(room));
  return { tabs, open, locks, socket: FakeSocket.last };
}

test("there is one connection, and each tab knows its state", async (t) => {
  const { tabs } = await tabsIn(t, ["a", "b", null]);
  assert.equal(FakeSocket.all.length, 1);
  assert.deepEqual(tabs.map(({ client }) => [client.state, client.clientId]), Array(3).fill(["open", "first"]));
});

test("each tab hears its rooms, and what is about none", async (t) => {
  const { tabs, socket } = await tabsIn(t, ["a", "b", null]);
  await socket.says(chat("in a", "1", "a"));
  await socket.says(chat("in b", "2", "b"));
  await socket.says({ type: "chat", payload: "to the user" });
  assert.deepEqual(tabs.map(chats), [["in a", "to the user"], ["in b", "to the user"], ["to the user"]]);
});

test("a room into which the server puts the connection is heard by all", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null]);
  await socket.says(joined("by-server"));
  await socket.says(chat("1", undefined, "by-server"));
  assert.deepEqual(tabs.map(chats), [["1"], ["1"]]);
});

test("a tab's message is sent once and answered to that tab", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null]);
  const answer = tabs[1].client.send("quote", { item: 1 });
  await settle();
  assert.equal(socket.of("quote").length, 1);
  await socket.says({ type: "price", id: socket.of("quote")[0].id, payload: 7 });
  assert.equal((await answer).payload, 7);
  const refused = assert.rejects(tabs[1].client.send("quote"), { name: "TidingsError", code: "forbidden" });
  await settle();
  const { id } = socket.of("quote")[1];
  await socket.says({ type: "error", id, payload: { code: "forbidden", message: "no" } });
  await refused;
});

test("the last one out leaves the room", async (t) => {
  const { tabs, socket } = await tabsIn(t, ["r", "r"]);
  assert.equal((await tabs[0].client.leave("r")).type, "room:left");
  assert.equal(socket.of("leave:room").length, 0);
  assert.equal(tabs[0].events.at(-1).type, "room:left");
  await socket.says(chat("1", "1"));
  assert.deepEqual(tabs.map(chats), [[], ["1"]]);
  const left = tabs[1].client.leave("r");
  await settle();
  const [{ id }] = socket.of("leave:room");
  await socket.says({ type: "room:left", id, payload: { roomId: "r" } });
  assert.equal((await left).type, "room:left");
});

test("a tab that ends leaves its rooms", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, "r", "r"]);
  tabs[1].client.close();
  await settle();
  assert.equal(socket.of("leave:room").length, 0);
  tabs[2].client.close();
  await settle();
  assert.equal(socket.of("leave:room").length, 1);
});

test("a tab that joins while the last one leaves is in", async (t) => {
  const { tabs, socket } = await tabsIn(t, ["r", null]);
  const leaving = tabs[0].client.leave("r");
  const joining = tabs[1].client.join("r");
  await settle();
  const [leave, join] = [socket.of("leave:room")[0], socket.of("join:room")[0]];
  await socket.says({ type: "room:left", id: leave.id, payload: { roomId: "r" } });
  await socket.says(joined("r", { id: join.id }));
  await Promise.all([leaving, joining]);
  await socket.says(chat("1", "1"));
  assert.deepEqual(tabs.map(chats), [[], ["1"]]);
});

test("after the server took all out of a room, one tab counts anew", async (t) => {
  const { tabs, socket } = await tabsIn(t, ["r", "r"]);
  await socket.says({ type: "room:left", payload: { roomId: "r", reason: "forbidden" } });
  assert.deepEqual(tabs.map(({ events }) => events.at(-1).payload.reason), ["forbidden", "forbidden"]);
  const again = tabs[1].client.join("r");
  await settle();
  await socket.says(joined("r", { id: socket.of("join:room").at(-1).id }));
  await again;
  tabs[1].client.leave("r").catch(() => {});
  await settle();
  assert.equal(socket.of("leave:room").length, 1);
});

test("when the leader closes, the next one resumes for all", async (t) => {
  const { tabs, socket } = await tabsIn(t, ["a", "b", "c"]);
  await socket.says(chat("1", "c1", "b"));
  await socket.says(chat("2", "c2", "c"));
  tabs[0].client.close();
  await settle();
  assert.equal(socket.closedWith, 1000);
  assert.equal(FakeSocket.all.length, 2);
  const next = FakeSocket.last;
  assert.equal(next.query.get("cursor"), "c2");
  assert.equal(next.query.get("previous"), "first");
  assert.deepEqual([...next.query.getAll("room"), ...next.of("join:room")], ["b"]);
  assert.deepEqual(tabs.slice(1).map(({ client }) => client.state), ["connecting", "connecting"]);
  await next.open({ clientId: "second" });
  assert.deepEqual(next.of("join:room").map(({ payload }) => payload), [{ roomId: "c", cursor: "c2" }]);
  await next.says(joined("b"));
  await next.says(joined("c", { id: next.of("join:room")[0].id }));
  // A repeat is dropped in both, whoever leads.
  await next.says(chat("1", "c1", "b"));
  await next.says(chat("2", "c2", "c"));
  await next.says(chat("3", "c3", "b"));
  await next.says(chat("4", "c4", "c"));
  assert.deepEqual(tabs.map(chats), [[], ["1", "3"], ["2", "4"]]);
  assert.deepEqual(tabs.map(({ client }) => client.state), ["closed", "open", "open"]);
});

test("what was not sent yet goes to the next leader, what was sent is rejected", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null, null]);
  const sent = assert.rejects(tabs[2].client.send("sent"), { code: "connection_lost" });
  await settle();
  assert.equal(socket.of("sent").length, 1);
  await socket.ends(1006);
  await sent;
  const waiting = tabs[2].client.send("waiting");
  await settle();
  tabs[0].client.close();
  await settle();
  const next = await FakeSocket.last.open();
  assert.deepEqual([next.of("sent").length, next.of("waiting").length], [0, 1]);
  await next.says({ type: "ok", id: next.of("waiting")[0].id });
  assert.equal((await waiting).type, "ok");
});

test("what the old leader had sent is rejected when it closes", async (t) => {
  const { tabs } = await tabsIn(t, [null, null]);
  const sent = assert.rejects(tabs[1].client.send("sent"), { code: "connection_lost" });
  await settle();
  tabs[0].client.close();
  await sent;
});

for (const [after, connections] of [[14_900, 1], [15_000, 2]]) {
  test(`a leader that is silent for ${after} ms: ${connections} connection(s)`, async (t) => {
    const { tabs } = await tabsIn(t, ["a", "b"]);
    tabs[0].channel.suspend();
    // Asked every 10 s, to be answered within 5.
    await pass(after);
    assert.equal(FakeSocket.all.length, connections);
  });
}

test("a leader that was replaced while suspended is a tab like the others", async (t) => {
  const { tabs, open, socket } = await tabsIn(t, ["a", "b", "c"]);
  tabs[0].channel.suspend();
  await pass(15_000);
  const next = await FakeSocket.last.open({ clientId: "second" });
  await next.says(joined("b"));
  tabs[0].channel.resume();
  await settle();
  assert.equal(socket.closedWith, 1000);
  assert.deepEqual(tabs.map(({ client }) => client.clientId), ["second", "second", "second"]);
  const answer = tabs[0].client.send("late");
  await settle();
  await next.says({ type: "ok", id: next.of("late")[0].id });
  await answer;
  await next.says(chat("1", "1", "a"));
  assert.deepEqual(tabs.map(chats), [["1"], [], []]);
  // And it leads again when its turn comes.
  tabs[1].client.close();
  tabs[2].client.close();
  await settle();
  await FakeSocket.last.open({ clientId: "third" });
  assert.equal(tabs[0].client.clientId, "third");
  assert.equal((await open({})).client.clientId, "third");
});

test("a leader that does not know yet that it was replaced misleads nobody for long", async (t) => {
  const { tabs, locks } = await tabsIn(t, ["a", "b", "c"]);
  let learn;
  locks.late = new Promise((resolve) => (learn = resolve));
  tabs[0].channel.suspend();
  await pass(15_000);
  const next = await FakeSocket.last.open({ clientId: "second" });
  // It answers what it was asked while it was suspended: that it leads.
  tabs[0].channel.resume();
  await settle();
  learn();
  await settle();
  assert.equal(FakeSocket.all.length, 2);
  for (const { client } of tabs) client.send("who").catch(() => {});
  await settle();
  assert.equal(next.of("who").length, 3);
  assert.deepEqual(tabs.map(({ client }) => client.clientId), ["second", "second", "second"]);
});

test("a leader that answers keeps leading, and is not told the rooms again", async (t) => {
  const { socket } = await tabsIn(t, ["a", "b"]);
  const joins = socket.of("join:room").length;
  for (let beat = 0; beat < 4; beat += 1) {
    await pass(15_000);
    await socket.says({ type: "chat" });
  }
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(socket.of("join:room").length, joins);
});

test("a tab that leads for the second time counts only those who are there", async (t) => {
  const { tabs, open } = await tabsIn(t, [null, "b"]);
  tabs[0].channel.suspend();
  await pass(15_000);
  await FakeSocket.last.open();
  tabs[0].channel.resume();
  await settle();
  tabs[1].client.close();
  await settle();
  const socket = await FakeSocket.last.open();
  const third = await open({ rooms: ["b"] });
  await socket.says(joined("b"));
  third.client.leave("b").catch(() => {});
  await settle();
  assert.equal(socket.of("leave:room").length, 1);
});

test("a tab whose join was refused does not count", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null]);
  const refused = assert.rejects(tabs[0].client.join("r"), { code: "unavailable" });
  await settle();
  const { id } = socket.of("join:room")[0];
  await socket.says({ type: "error", id, payload: { code: "unavailable", message: "", roomId: "r" } });
  await refused;
  const join = tabs[1].client.join("r");
  await settle();
  await socket.says(joined("r", { id: socket.of("join:room")[1].id }));
  await join;
  tabs[1].client.leave("r").catch(() => {});
  await settle();
  assert.equal(socket.of("leave:room").length, 1);
});

test("what ends the connection ends all tabs, and the next one connects", async (t) => {
  const { tabs, open, socket } = await tabsIn(t, ["a", "b"]);
  await socket.ends(4002, "moved");
  assert.deepEqual(tabs.map(({ client }) => client.state), ["closed", "closed"]);
  assert.deepEqual(tabs[1].states.at(-1), { state: "closed", code: 4002, reason: "moved" });
  await assert.rejects(tabs[1].client.send("a"), { code: "closed" });
  const again = await open({ rooms: ["a"] });
  await FakeSocket.last.open();
  assert.equal(again.client.state, "open");
});

test("a refused join is rejected in its tab, a refused room of the options is its event", async (t) => {
  const { tabs, open, socket } = await tabsIn(t, [null, null]);
  const join = assert.rejects(tabs[1].client.join("secret"), { code: "forbidden" });
  await settle();
  const error = (id) => ({ type: "error", id, payload: { code: "forbidden", message: "no", roomId: "secret" } });
  await socket.says(error(socket.of("join:room")[0].id));
  await join;
  const third = await open({ rooms: ["secret"] });
  await socket.says(error(socket.of("join:room")[1].id));
  assert.deepEqual(third.events.map(({ type }) => type), ["error"]);
  assert.deepEqual(tabs.flatMap(({ events }) => events).filter(({ type }) => type === "error"), []);
});

test("other names, other connections", async (t) => {
  const { open } = await tabsIn(t, [null], { shared: "ann" });
  await open({ shared: "bob" });
  assert.equal(FakeSocket.all.length, 2);
});

test("without locks each tab connects by itself", async (t) => {
  const { open, openFirst } = await browser(t);
  delete globalThis.navigator.locks;
  await openFirst();
  await open();
  assert.equal(FakeSocket.all.length, 2);
});
