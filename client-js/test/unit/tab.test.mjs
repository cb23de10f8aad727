import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, settle } from "./support.mjs";
import { browser, chat, chats, joined, tabsIn } from "./tabs.mjs";

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

test("a tab that asks to join just when the last one is out hears the room", async (t) => {
  const { tabs, socket } = await tabsIn(t, ["r", null]);
  const leaving = tabs[0].client.leave("r");
  await settle();
  const [{ id }] = socket.of("leave:room");
  const joining = tabs[1].client.join("r");
  // The leader hears this before it hears of the join.
  socket.onmessage({ data: JSON.stringify({ type: "room:left", id, payload: { roomId: "r" } }) });
  await settle();
  await leaving;
  await socket.says(joined("r", { id: socket.of("join:room").at(-1).id }));
  assert.equal((await joining).type, "room:joined");
  await socket.says(chat("1", "1"));
  assert.deepEqual(tabs.map(chats), [[], ["1"]]);
  assert.equal(tabs[1].events.filter(({ type }) => type === "room:joined").length, 1);
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

test("where locks are refused, as in a sandboxed frame, each tab connects by itself", async (t) => {
  const { open, openFirst, locks } = await browser(t);
  locks.request = async () => {
    throw new DOMException("denied", "SecurityError");
  };
  const tabs = [await openFirst({ rooms: ["a"] }), await open({ rooms: ["b"] })];
  assert.equal(FakeSocket.all.length, 2);
  for (const socket of FakeSocket.all) await socket.open();
  const call = tabs[0].client.send("quote");
  await settle();
  const [socket] = FakeSocket.all;
  await socket.says({ type: "ok", id: socket.of("quote")[0].id });
  assert.equal((await call).type, "ok");
  await socket.says(joined("a"));
  await socket.says(chat("1", "1", "a"));
  assert.deepEqual(tabs.map(chats), [["1"], []]);
  tabs[0].client.close();
  assert.deepEqual(tabs.map(({ client }) => client.state), ["closed", "open"]);
});

test("a tab that does not lead sends what JSON takes, and no more waits for what it does not", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null]);
  const reactive = new Proxy({ text: "hi" }, {});
  const answer = tabs[1].client.send("quote", reactive);
  await settle();
  assert.deepEqual(socket.of("quote")[0].payload, { text: "hi" });
  await socket.says({ type: "ok", id: socket.of("quote")[0].id });
  await answer;
  const loop = {};
  loop.loop = loop;
  for (const { client } of tabs) await assert.rejects(client.send("quote", loop), TypeError);
  const bare = tabs[1].client.send("bare");
  await settle();
  assert.equal("payload" in socket.of("bare")[0], false);
  await socket.says({ type: "ok", id: socket.of("bare")[0].id });
  await bare;
});

test("a cursor alone is known to all tabs, and heard by no application", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null]);
  const heard = [];
  for (const { client } of tabs) client.on("cursor", (payload) => heard.push(payload));
  await socket.says({ type: "cursor", cursor: "9" });
  assert.deepEqual(tabs.map(({ client }) => client.cursor), ["9", "9"]);
  assert.deepEqual(heard, []);
});

test("any tab may have the connection come back at once", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, null]);
  await socket.ends(1013);
  const before = FakeSocket.all.length;
  await tabs[1].client.reconnect();
  assert.equal(FakeSocket.all.length, before + 1);
});
