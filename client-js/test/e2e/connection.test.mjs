// One connection in Chromium, against the real server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { startNginx } from "./nginx.mjs";
import { PATIENCE, openPage, startBrowser, startProxy, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 3 * PATIENCE };
const FAST = ["--heartbeat-seconds", "1"];

test("two people talk in a room", OPTIONS, async (t) => {
  const server = await startServer(t);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, server.port, { rooms: ["r1"], token: token("ann") });
  const bob = await openPage(context, server.port, { token: token("bob") });
  await Promise.all([ann.opened(), bob.opened()]);
  const joined = await bob.page.evaluate(() => window.t.join("r1"));
  assert.equal(joined.payload.roomId, "r1");
  const said = { roomId: "r1", data: { text: "grüße 🎉" } };
  const answer = await bob.page.evaluate((said) => window.t.send("room:message", said), said);
  assert.equal(answer.type, "ok");
  const [heard] = await until("the message", async () => {
    const messages = await ann.heard("room:message");
    return messages.length > 0 && messages;
  });
  assert.deepEqual(heard, { ...said, userId: "bob" });
  const refused = await bob.page.evaluate(() => window.t.send("no:such").catch(({ name, code }) => [name, code]));
  assert.deepEqual(refused, ["TidingsError", "unknown_type"]);
  await bob.page.evaluate(() => window.t.leave("r1"));
  const out = await bob.page.evaluate((said) => window.t.send("room:message", said).catch(({ code }) => code), said);
  assert.equal(out, "forbidden");
});

test("it comes back after the server was killed, into its rooms", OPTIONS, async (t) => {
  const server = await startServer(t);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, server.port, { rooms: ["r1"] }, () => token("ann"));
  await ann.opened();
  await server.kill();
  await until("waiting", () => ann.page.evaluate(() => window.t.state === "waiting"));
  const waits = ann.page.evaluate(() => window.t.send("room:message", { roomId: "r1", data: "kept" }));
  const again = await startServer(t, { port: server.port });
  assert.equal((await waits).type, "ok");
  await ann.opened();
  await again.publish({ to: { room: "r1" }, type: "news", payload: 1 });
  await until("news", async () => (await ann.heard("news")).length > 0);
  assert.deepEqual((await ann.heard("room:message")).map(({ data }) => data), ["kept"]);
});

test("where upgrades are blocked it is an event stream, and later a WebSocket", OPTIONS, async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  proxy.upgrades = false;
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, proxy.port, { rooms: ["r1"], token: token("ann"), retryWebSocketMs: 2_000 });
  await ann.opened();
  assert.equal(await ann.page.evaluate(() => window.t.transport), "sse");
  const answer = await ann.page.evaluate(() => window.t.send("room:message", { roomId: "r1", data: "by POST" }));
  assert.equal(answer.type, "ok");
  await server.publish({ to: { user: "ann" }, type: "any type", payload: { n: 1 } });
  await until("the event", async () => (await ann.heard("any type")).length > 0);
  const refused = await ann.page.evaluate(() => window.t.send("no:such").catch(({ code }) => code));
  assert.equal(refused, "unknown_type");

  proxy.upgrades = true;
  await until("a WebSocket", () => ann.page.evaluate(() => window.t.transport === "websocket"));
  const states = (await ann.states()).map(({ state, transport }) => `${state} ${transport}`);
  assert.deepEqual(states.slice(-2), ["open sse", "open websocket"], "it was open all along");
  await server.publish({ to: { room: "r1" }, type: "news", payload: 1 });
  await until("news", async () => (await ann.heard("news")).length === 1);
  await until("one connection", async () => {
    const { websocket, sse } = await server.connections();
    return websocket === 1 && sse === 0;
  });
});

test("a network that swallows everything is noticed by the heartbeat", OPTIONS, async (t) => {
  const server = await startServer(t, { flags: FAST });
  const proxy = await startProxy(t, server.port);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, proxy.port, { rooms: ["r1"], token: token("ann") });
  await ann.opened();
  proxy.dead = true;
  const waiting = await until("waiting", async () => (await ann.states()).find(({ state }) => state === "waiting"));
  assert.equal(waiting.reason, "no answer");
  proxy.dead = false;
  proxy.cut();
  await ann.opened();
});

test("offline and online again, through nginx", OPTIONS, async (t) => {
  const server = await startServer(t);
  const nginx = await startNginx(t, server.port);
  const proxy = await startProxy(t, nginx.port);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, proxy.port, { rooms: ["r1"], token: token("ann") });
  await ann.opened();
  // The browser cuts nothing that is open: the proxy stands for the network.
  proxy.dead = true;
  await context.setOffline(true);
  await until("waiting", () => ann.page.evaluate(() => window.t.state === "waiting"));
  const attempts = async () => (await ann.states()).filter(({ state }) => state === "connecting").length;
  await until("attempts in vain", async () => (await attempts()) >= 2);
  proxy.dead = false;
  await context.setOffline(false);
  await ann.opened();
  await server.publish({ to: { room: "r1" }, type: "news", payload: 1 });
  await until("news", async () => (await ann.heard("news")).length > 0);
});

test("a token is renewed on the connection that it opened, through nginx", OPTIONS, async (t) => {
  const server = await startServer(t, { flags: ["--limit", "token_leeway=0"] });
  const nginx = await startNginx(t, server.port);
  const context = await (await startBrowser(t)).newContext();
  const given = [];
  const ann = await openPage(context, nginx.port, {}, () => {
    given.push(token("ann", given.length === 0 ? 40 : 3600));
    return given.at(-1);
  });
  await ann.opened();
  const client = await ann.page.evaluate(() => window.t.clientId);
  await until("a second token", () => given.length === 2);
  const { exp } = JSON.parse(Buffer.from(given[0].split(".")[1], "base64url"));
  await until("the first token to end", () => Date.now() > (exp + 3) * 1000);
  assert.equal(await ann.page.evaluate(() => window.t.state), "open");
  assert.equal(await ann.page.evaluate(() => window.t.clientId), client);
  assert.equal(given.length, 2);
});

test("who is disconnected by an administrator does not come back", OPTIONS, async (t) => {
  const server = await startServer(t);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, server.port, {}, () => token("ann"));
  await ann.opened();
  await server.admin("/disconnect", { user: "ann", reason: "moved" });
  const closed = await until("closed", async () => (await ann.states()).find(({ state }) => state === "closed"));
  assert.deepEqual([closed.code, closed.reason], [4002, "moved"]);
  await ann.page.evaluate(() => window.loop);
});

for (const transport of ["websocket", "sse"]) {
  test(`a token that is no good, over ${transport}: a new one is asked for, or it is the end`, OPTIONS, async (t) => {
    const server = await startServer(t);
    const context = await (await startBrowser(t)).newContext();
    const given = [];
    const ann = await openPage(context, server.port, { transport }, () => {
      given.push(given.length === 0 ? "forged" : token("ann"));
      return given.at(-1);
    });
    await ann.opened();
    assert.equal((await ann.states()).find(({ state }) => state === "waiting").code, 1008);
    const bob = await openPage(context, server.port, { transport, token: "forged" });
    const closed = await until("closed", async () => (await bob.states()).find(({ state }) => state === "closed"));
    assert.equal(closed.code, 1008);
  });
}

test("it works in a worker", OPTIONS, async (t) => {
  const server = await startServer(t);
  const context = await (await startBrowser(t)).newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${server.port}/healthz`);
  const answer = await page.evaluate(([port, token]) => new Promise((resolve) => {
    const code = `import { connect } from "http://127.0.0.1:${port}/tidings-client.js";
      const t = connect("http://127.0.0.1:${port}", { token: "${token}", rooms: ["r1"] });
      t.on("room:message", (payload) => postMessage(payload.data));
      t.send("room:message", { roomId: "r1", data: "from a worker" });`;
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    new Worker(url, { type: "module" }).onmessage = ({ data }) => resolve(data);
  }), [server.port, token("ann")]);
  assert.equal(answer, "from a worker");
});
