// Nothing is lost and nothing comes twice, in Chromium, while a publisher goes on and connections do not.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PATIENCE, openPage, startBrowser, startProxy, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 5 * PATIENCE };
const MESSAGES = 200;

/**
 * Publishes numbers to the room `r` and to the user `ann`, in turn, until `enough` and at least some. It does so at a
 * pace: with many cuts a client may be away for half a minute, and what it missed must still be kept.
 */
async function publishUntil(server, enough) {
  let count = 0;
  for (let over = false; !over || count < MESSAGES; count += 1) {
    const to = count % 2 === 0 ? { room: "r" } : { user: "ann" };
    await server.publish({ to, type: "n", payload: count });
    await new Promise((resolve) => setTimeout(resolve, 15));
    over ||= enough();
  }
  return Array.from({ length: count }, (_, n) => n);
}

/** Whether a tab has heard every number once, and those of the room and of the user each in order. */
async function heardAll(tab, numbers) {
  await until("the last numbers", async () => {
    const heard = await tab.heard("n");
    return numbers.slice(-2).every((n) => heard.includes(n));
  });
  const heard = await tab.heard("n");
  for (const half of [0, 1]) {
    assert.deepEqual(heard.filter((n) => n % 2 === half), numbers.filter((n) => n % 2 === half));
  }
  assert.deepEqual(await tab.heard("gap"), []);
}

async function setUp(t, options) {
  const server = await startServer(t, { flags: ["--history", "20000:600"] });
  const proxy = await startProxy(t, server.port);
  const context = await (await startBrowser(t)).newContext();
  const open = async (more) => {
    const tab = await openPage(context, proxy.port, { rooms: ["r"], token: token("ann"), ...options, ...more });
    await tab.opened();
    await until("the room", async () => (await tab.heard("room:joined")).length > 0);
    return tab;
  };
  return { server, proxy, open };
}

for (const transport of ["websocket", "sse"]) {
  test(`over ${transport} that is cut again and again`, OPTIONS, async (t) => {
    const { server, proxy, open } = await setUp(t, { transport });
    const ann = await open();
    let cuts = 0;
    const cutting = (async () => {
      while (cuts < 6) {
        await until("an open connection", () => ann.page.evaluate(() => window.t.state === "open"));
        // Not always when it is quiet: also in the middle of a replay.
        await new Promise((resolve) => setTimeout(resolve, [0, 5, 20, 100, 300, 600][cuts]));
        proxy.cut();
        cuts += 1;
        await until("lost", () => ann.page.evaluate((cuts) =>
          window.states.filter(({ state }) => state === "waiting").length >= cuts, cuts));
      }
    })();
    await heardAll(ann, await publishUntil(server, () => cuts === 6));
    await cutting;
    const connected = await ann.heard("connected");
    assert.ok(connected.length >= 3, `${connected.length} connections`);
    assert.ok(connected.slice(1).every(({ recovered }) => recovered));
  });
}

for (const transport of ["websocket", "sse"]) {
  test(`over ${transport} what was not for this connection is not replayed to the next one either`, OPTIONS, async (t) => {
    const { server, proxy, open } = await setUp(t, { transport });
    const [ann, bob] = [await open(), await open({ token: token("bob") })];
    const [{ clientId }] = await ann.heard("connected");
    // As an application that sends on what Ann said to all but her.
    const publish = (payload, except) => server.publish({ to: { room: "r" }, except, type: "n", payload });
    const to = async (tab, last) => {
      await until(`the number ${last}`, async () => (await tab.heard("n")).at(-1) === last);
      return tab.heard("n");
    };
    await publish(1, { client: clientId });
    await publish(2);
    assert.deepEqual(await to(ann, 2), [2]);
    proxy.dead = true;
    proxy.cut();
    await until("waiting", () => ann.page.evaluate(() => window.t.state !== "open"));
    await publish(3, { client: clientId });
    await publish(4);
    proxy.dead = false;
    proxy.cut();
    assert.deepEqual(await to(ann, 4), [2, 4]);
    assert.deepEqual(await to(bob, 4), [1, 2, 3, 4]);
    assert.notEqual((await ann.heard("connected")).at(-1).clientId, clientId);
  });
}

test("while leading tabs are closed", OPTIONS, async (t) => {
  const { server, open } = await setUp(t, { shared: true });
  const tabs = [await open(), await open(), await open()];
  let closed = 0;
  const closing = (async () => {
    for (const tab of tabs.slice(0, 2)) {
      const connections = (await tabs[2].heard("connected")).length;
      await new Promise((resolve) => setTimeout(resolve, 300));
      await tab.page.close();
      await until("the next leader", async () => (await tabs[2].heard("connected")).length > connections);
      closed += 1;
    }
  })();
  const numbers = await publishUntil(server, () => closed === 2);
  await closing;
  await heardAll(tabs[2], numbers);
});

test("from an event stream to a WebSocket", OPTIONS, async (t) => {
  const { server, proxy, open } = await setUp(t, { retryWebSocketMs: 500 });
  proxy.upgrades = false;
  const ann = await open();
  let over = false;
  const moving = (async () => {
    await new Promise((resolve) => setTimeout(resolve, 700));
    proxy.upgrades = true;
    await until("a WebSocket", () => ann.page.evaluate(() => window.t.transport === "websocket"));
    over = true;
  })();
  const numbers = await publishUntil(server, () => over);
  await moving;
  await heardAll(ann, numbers);
  assert.equal((await ann.states()).filter(({ state }) => state === "waiting").length, 3, "those of the blocked ones");
});

test("a server that lost its memory says so", OPTIONS, async (t) => {
  const server = await startServer(t);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, server.port, { rooms: ["r"], token: token("ann") });
  await ann.opened();
  await server.publish({ to: { room: "r" }, type: "n", payload: 1 });
  await until("a number", async () => (await ann.heard("n")).length === 1);
  await server.kill();
  await startServer(t, { port: server.port });
  await until("a gap", async () => (await ann.heard("gap")).length > 0);
  const last = (await ann.heard("connected")).at(-1);
  assert.equal(last.recovered, false);
});
