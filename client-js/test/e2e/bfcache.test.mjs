// A page that the browser keeps while another is shown, and shows again as it was.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PATIENCE, openPage, startBrowser, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 3 * PATIENCE };

/** Goes to another page and comes back after `meanwhile`; fails when the page was loaded anew. */
async function away({ page }, meanwhile) {
  await page.evaluate(() => (window.kept = true));
  const url = new URL("/style.css", page.url());
  await page.goto(url.href);
  await meanwhile();
  await page.goBack({ waitUntil: "commit" });
  assert.equal(await until("the page", () => page.evaluate(() => window.kept ?? "new")), true, "it was kept");
}

async function heardUpTo(count, tab) {
  await until(`${count} numbers`, async () => (await tab.heard("n")).length >= count);
  assert.deepEqual(await tab.heard("n"), Array.from({ length: count }, (_, n) => n + 1));
  assert.deepEqual(await tab.heard("gap"), []);
}

for (const options of [{ transport: "websocket" }, { transport: "sse" }, { shared: true }]) {
  test(`with ${JSON.stringify(options)} a page that was kept has missed nothing`, OPTIONS, async (t) => {
    const server = await startServer(t);
    const context = await (await startBrowser(t, { keepsPages: true })).newContext();
    const ann = await openPage(context, server.port, { ...options, rooms: ["r"], token: token("ann") });
    await ann.opened();
    await until("the room", async () => (await ann.heard("room:joined")).length > 0);
    const publish = (payload) => server.publish({ to: { room: "r" }, type: "n", payload });
    await publish(1);
    await heardUpTo(1, ann);
    await away(ann, () => publish(2));
    await heardUpTo(2, ann);
    await publish(3);
    await heardUpTo(3, ann);
  });
}

test("when a leading tab shows another page, the browser gives its lock to the next one, which misses nothing", OPTIONS, async (t) => {
  const server = await startServer(t);
  const context = await (await startBrowser(t, { keepsPages: true })).newContext();
  const tabs = [];
  for (const name of ["first", "second"]) {
    const tab = await openPage(context, server.port, { shared: true, rooms: ["r"], token: token("ann") });
    await tab.opened();
    await until(`the room in the ${name}`, async () => (await tab.heard("room:joined")).length > 0);
    tabs.push(tab);
  }
  const publish = (payload) => server.publish({ to: { room: "r" }, type: "n", payload });
  await publish(1);
  for (const tab of tabs) await heardUpTo(1, tab);
  const before = await tabs[1].page.evaluate(() => window.t.clientId);
  await tabs[0].page.goto(new URL("/style.css", tabs[0].page.url()).href);
  await publish(2);
  await until("another leader", async () => (await tabs[1].page.evaluate(() => window.t.clientId)) !== before);
  await publish(3);
  await heardUpTo(3, tabs[1]);
});
