// One connection for all tabs, in Chromium, through a real nginx, against the real server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { startNginx } from "./nginx.mjs";
import { PATIENCE, openPage, startBrowser, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 3 * PATIENCE };

async function openTabs(t, rooms, more = {}) {
  const server = await startServer(t);
  const { port } = await startNginx(t, server.port);
  const context = await (await startBrowser(t)).newContext();
  const shared = { shared: true, token: token("ann"), ...more };
  const tabs = [];
  for (const room of rooms) {
    tabs.push(await openPage(context, port, { ...shared, rooms: room ? [room] : [] }));
    await tabs.at(-1).opened();
  }
  const connections = async () => (await server.connections()).websocket;
  return { server, port, context, tabs, connections };
}

const say = (tab, roomId, data) =>
  tab.page.evaluate((payload) => window.t.send("room:message", payload), { roomId, data });
const join = (tab, room) => tab.page.evaluate((room) => window.t.join(room), room);
const data = async (tab) => (await tab.heard("room:message")).map(({ data }) => data);

test("three tabs have one connection; each hears its own rooms and speaks", OPTIONS, async (t) => {
  const { server, tabs, connections } = await openTabs(t, ["a", "b", "b"]);
  assert.equal(await connections(), 1);
  assert.equal((await say(tabs[0], "a", "from the leader")).type, "ok");
  assert.equal((await say(tabs[2], "b", "from a follower")).type, "ok");
  await until("b in both", async () => (await data(tabs[1])).length + (await data(tabs[2])).length === 2);
  await server.publish({ to: { user: "ann" }, type: "mail", payload: 1 });
  for (const tab of tabs) await until("mail", async () => (await tab.heard("mail")).length === 1);
  assert.deepEqual(await Promise.all(tabs.map(data)), [["from the leader"], ["from a follower"], ["from a follower"]]);
  const ids = await Promise.all(tabs.map((tab) => tab.page.evaluate(() => window.t.clientId)));
  assert.equal(new Set(ids).size, 1);
  const refused = await tabs[1].page.evaluate(() => window.t.send("no:such").catch(({ name, code }) => [name, code]));
  assert.deepEqual(refused, ["TidingsError", "unknown_type"]);
});

test("a room is left when the last tab leaves it, or ends", OPTIONS, async (t) => {
  const { server, tabs } = await openTabs(t, [null, "shared", "shared"]);
  const members = async () => (await server.admin("/rooms")).rooms.length;
  assert.equal(await members(), 1);
  const left = await tabs[1].page.evaluate(() => window.t.leave("shared"));
  assert.equal(left.type, "room:left");
  await until("room:left", async () => (await tabs[1].heard("room:left")).length === 1);
  assert.equal((await say(tabs[2], "shared", "still here")).type, "ok");
  await until("the message", async () => (await data(tabs[2])).length === 1);
  assert.deepEqual(await data(tabs[1]), []);
  assert.equal(await members(), 1);
  await join(tabs[1], "shared");
  await tabs[2].page.close();
  assert.equal((await say(tabs[1], "shared", "and back")).type, "ok");
  await tabs[1].page.close();
  await until("no room", async () => (await members()) === 0);
  assert.equal((await server.connections()).websocket, 1);
});

for (const [how, end] of [
  ["is closed", (tab) => tab.page.close()],
  ["closes its client", (tab) => tab.page.evaluate(() => window.t.close())],
  ["goes to another page", (tab) => tab.page.goto("about:blank")],
]) {
  test(`when the leading tab ${how}, another leads, and the third notices nothing`, OPTIONS, async (t) => {
    const { server, tabs, connections } = await openTabs(t, ["a", "b", "c"]);
    const before = await tabs[2].page.evaluate(() => window.t.clientId);
    await end(tabs[0]);
    // Asked for while nobody leads, perhaps: it is answered by the next.
    assert.equal((await say(tabs[1], "b", "1")).type, "ok");
    assert.equal((await say(tabs[2], "c", "2")).type, "ok");
    await until("a new connection", async () => (await tabs[2].page.evaluate(() => window.t.clientId)) !== before);
    await until("one connection", async () => (await connections()) === 1);
    await server.publish({ to: { room: "b" }, type: "room:message", payload: { data: "3" } });
    await server.publish({ to: { room: "c" }, type: "room:message", payload: { data: "4" } });
    await until("both", async () => (await data(tabs[1])).includes("3") && (await data(tabs[2])).includes("4"));
    assert.deepEqual([await data(tabs[1]), await data(tabs[2])], [["1", "3"], ["2", "4"]]);

    await end(tabs[1]);
    assert.equal((await say(tabs[2], "c", "5")).type, "ok");
    await until("the last", async () => (await data(tabs[2])).at(-1) === "5");
    await until("one connection", async () => (await connections()) === 1);
  });
}

test("a tab that hangs while it leads is replaced, and nobody misses anything", OPTIONS, async (t) => {
  const { server, tabs, connections } = await openTabs(t, ["a", "b", "a"]);
  const before = await tabs[1].page.evaluate(() => window.t.clientId);
  await tabs[1].page.bringToFront();
  let over = false;
  tabs[0].page.evaluate(() => {
    const end = Date.now() + 25_000;
    while (Date.now() < end);
  }).then(() => (over = true));
  let count = 0;
  const publish = async () => {
    count += 1;
    for (const room of ["a", "b"]) {
      await server.publish({ to: { room }, type: "room:message", payload: { data: count } });
    }
    await server.publish({ to: { user: "ann" }, type: "mail", payload: count });
  };
  // While the leader hangs and nobody knows, while another leads, and when the old one has come to itself.
  while ((await tabs[1].page.evaluate(() => window.t.clientId)) === before) {
    await publish();
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await publish();
  await until("what was published", async () => (await data(tabs[1])).includes(count));
  assert.equal(over, false, "taken over while the other hung");
  await until("the old leader", () => over || undefined);
  await publish();
  const client = await tabs[1].page.evaluate(() => window.t.clientId);
  await until("the same", async () => (await tabs[0].page.evaluate(() => window.t.clientId)) === client);
  await publish();
  const all = Array.from({ length: count }, (_, n) => n + 1);
  for (const tab of tabs) {
    await until("the last", async () => (await data(tab)).at(-1) === count);
    await until("the last mail", async () => (await tab.heard("mail")).at(-1) === count);
    // What the old leader heard and could not pass on any more comes to it once more, and to it alone.
    const once = tab === tabs[0] ? (numbers) => [...new Set(numbers)] : (numbers) => numbers;
    assert.deepEqual(once(await data(tab)), all);
    assert.deepEqual(once(await tab.heard("mail")), all);
    assert.deepEqual(await tab.heard("gap"), []);
  }
  assert.equal((await say(tabs[0], "a", "hello")).type, "ok");
  await until("its message", async () => (await data(tabs[0])).includes("hello"));
  assert.equal(await connections(), 1);
});

test("other users, other connections", OPTIONS, async (t) => {
  const { context, port, connections } = await openTabs(t, ["a"], { shared: "ann" });
  const bob = await openPage(context, port, { shared: "bob", token: token("bob"), rooms: ["a"] });
  await bob.opened();
  assert.equal(await connections(), 2);
});

test("what ends the connection for good ends it in all tabs, and a new one may be opened", OPTIONS, async (t) => {
  const { context, port, server, tabs } = await openTabs(t, ["a", "b"]);
  await server.admin("/disconnect", { user: "ann" });
  for (const tab of tabs) {
    const closed = await until("closed", async () => (await tab.states()).find(({ state }) => state === "closed"));
    assert.equal(closed.code, 4002);
    await tab.page.evaluate(() => window.loop);
  }
  const again = await openPage(context, port, { shared: true, token: token("ann"), rooms: ["a"] });
  await again.opened();
});
