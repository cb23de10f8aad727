// Through a real nginx, which goes away, loses its server, or passes no upgrades. tabs.test.mjs goes through it too.

import assert from "node:assert/strict";
import { test } from "node:test";

import { startNginx } from "./nginx.mjs";
import { PATIENCE, openPage, startBrowser, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 5 * PATIENCE };

for (const transport of ["websocket", "sse"]) {
  test(`over ${transport} nothing is lost while nginx is away and comes back`, OPTIONS, async (t) => {
    const server = await startServer(t, { flags: ["--history", "20000:600"] });
    const nginx = await startNginx(t, server.port);
    const context = await (await startBrowser(t)).newContext();
    const ann = await openPage(context, nginx.port, { rooms: ["r"], transport }, () => token("ann"));
    await ann.opened();
    await until("the room", async () => (await ann.heard("room:joined")).length > 0);
    let count = 0;
    for (let away = 0; away < 3; away += 1) {
      const publish = async () => server.publish({ to: { room: "r" }, type: "n", payload: count++ });
      for (let n = 0; n < 20; n += 1) await publish();
      await nginx.stop();
      for (let n = 0; n < 20; n += 1) await publish();
      await nginx.start();
      await until("all numbers", async () => (await ann.heard("n")).length >= count);
    }
    assert.deepEqual(await ann.heard("n"), Array.from({ length: count }, (_, n) => n));
    assert.deepEqual(await ann.heard("gap"), []);
  });
}

test("it comes back when the server behind nginx was killed", OPTIONS, async (t) => {
  const server = await startServer(t);
  const nginx = await startNginx(t, server.port);
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, nginx.port, { rooms: ["r"] }, () => token("ann"));
  await ann.opened();
  await server.kill();
  await until("waiting", () => ann.page.evaluate(() => window.t.state === "waiting"));
  const again = await startServer(t, { port: server.port });
  await ann.opened();
  await again.publish({ to: { room: "r" }, type: "news", payload: 1 });
  await until("news", async () => (await ann.heard("news")).length > 0);
});

test("where nginx passes no upgrades it is an event stream", OPTIONS, async (t) => {
  const server = await startServer(t);
  const nginx = await startNginx(t, server.port, { upgrades: false });
  const context = await (await startBrowser(t)).newContext();
  const ann = await openPage(context, nginx.port, { rooms: ["r"], token: token("ann") });
  await ann.opened();
  assert.equal(await ann.page.evaluate(() => window.t.transport), "sse");
  const answer = await ann.page.evaluate(() => window.t.send("room:message", { roomId: "r", data: "by POST" }));
  assert.equal(answer.type, "ok");
  await until("the message", async () => (await ann.heard("room:message")).length > 0);
});
