import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, settle } from "./support.mjs";
import { browser, chat, chats, joined, tabsIn } from "./tabs.mjs";

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

test("what a suspended leader was asked to send, it may send yet: it is rejected, not sent twice", async (t) => {
  const { tabs, socket, locks } = await tabsIn(t, ["a", null]);
  // It learns that it lost the lock after it has done what it was asked for.
  locks.late = new Promise(() => {});
  tabs[0].channel.suspend();
  const unsure = assert.rejects(tabs[1].client.send("unsure"), { code: "connection_lost" });
  const joining = tabs[1].client.join("b");
  await pass(15_000);
  await unsure;
  const next = await FakeSocket.last.open({ clientId: "second" });
  await next.says(joined("b"));
  await joining;
  tabs[0].channel.resume();
  await settle();
  assert.deepEqual([socket.of("unsure").length, next.of("unsure").length], [1, 0]);
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

test("a tab that has heard nothing yet takes over from where the leader was", async (t) => {
  const { open, openFirst } = await browser(t);
  const first = await openFirst();
  await FakeSocket.last.open({ cursor: "1" });
  await FakeSocket.last.says({ type: "chat", cursor: "57", payload: 1 });
  const second = await open();
  assert.equal(second.client.cursor, "57");
  first.client.close();
  await settle();
  assert.equal(FakeSocket.last.query.get("cursor"), "57");
});

test("a tab with a cursor of its own keeps it", async (t) => {
  const { open, openFirst } = await browser(t);
  await openFirst();
  await FakeSocket.last.open({ cursor: "57" });
  const second = await open({ cursor: "12" });
  assert.equal(second.client.cursor, "12");
});

/** Three tabs, the first of which was suspended and replaced, and has not noticed yet: its socket still speaks. */
async function replaced(t) {
  const { tabs, locks, socket: old } = await tabsIn(t, ["r", "r", "r"]);
  await old.says(chat("1", "c1"));
  let learn;
  locks.late = new Promise((resolve) => (learn = resolve));
  tabs[0].channel.suspend();
  await pass(15_000);
  const next = await FakeSocket.last.open({ clientId: "second" });
  await next.says(joined("r"));
  for (const n of [2, 3, 4]) await next.says(chat(`${n}`, `c${n}`));
  const wake = async () => {
    tabs[0].channel.resume();
    await settle();
    learn();
    await settle();
  };
  return { tabs, old, next, wake };
}

test("what a leader says that was replaced while suspended is not heard", async (t) => {
  const { tabs, old, next, wake } = await replaced(t);
  for (const n of [2, 3]) old.onmessage({ data: JSON.stringify(chat(`${n}`, `c${n}`)) });
  await wake();
  await next.says(chat("5", "c5"));
  assert.deepEqual(tabs.slice(1).map(chats), [["1", "2", "3", "4", "5"], ["1", "2", "3", "4", "5"]]);
  assert.deepEqual(tabs.map(({ client }) => client.cursor), ["c5", "c5", "c5"]);
  assert.deepEqual(tabs.map(({ client }) => client.clientId), ["second", "second", "second"]);
  assert.equal(old.closedWith, 1000);
});

test("when the old connection of a leader that was replaced ends for good, the others go on", async (t) => {
  const { tabs, old, next, wake } = await replaced(t);
  old.onclose({ code: 4001, reason: "expired" });
  await wake();
  await next.says(chat("5", "c5"));
  assert.deepEqual(tabs.slice(1).map(({ client }) => client.state), ["open", "open"]);
  assert.deepEqual(chats(tabs[2]).at(-1), "5");
});

test("a tab that leads twice in a row is in its rooms again", async (t) => {
  const { tabs, locks } = await tabsIn(t, ["a", "b"]);
  let learn;
  locks.late = new Promise((resolve) => (learn = resolve));
  tabs[0].channel.suspend();
  await pass(15_000);
  await FakeSocket.last.open({ clientId: "second" });
  await pass(1);
  // It learns that it lost the lock, and has it again before it hears who had it.
  learn();
  await settle();
  tabs[1].client.close();
  await settle();
  const third = await FakeSocket.last.open({ clientId: "third" });
  tabs[0].channel.resume();
  await settle();
  assert.equal(FakeSocket.all.length, 3);
  assert.deepEqual([...third.query.getAll("room"), ...third.of("join:room").map(({ payload }) => payload.roomId)], ["a"]);
  assert.deepEqual([tabs[0].client.state, tabs[0].client.clientId], ["open", "third"]);
});

test("a room that was left while the connection broke is not joined by the next leader", async (t) => {
  const { tabs, socket } = await tabsIn(t, [null, "r"]);
  const left = tabs[1].client.leave("r");
  await settle();
  assert.equal(socket.of("leave:room").length, 1);
  await socket.ends();
  assert.equal((await left).type, "room:left");
  tabs[0].client.close();
  await settle();
  const next = await FakeSocket.last.open();
  assert.deepEqual([...next.query.getAll("room"), ...next.of("join:room")], []);
});
