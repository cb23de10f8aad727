// The demo page, over a restart of the server. What else it can do is checked in examples/foreign.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PATIENCE, startBrowser, startProxy, startServer } from "./support.mjs";

const OPTIONS = { timeout: 3 * PATIENCE };

test("the demo page shows that it is away, that it is back, and whether it missed anything", OPTIONS, async (t) => {
  const server = await startServer(t, { demo: true });
  const proxy = await startProxy(t, server.port);
  const page = await (await startBrowser(t)).newPage();
  page.setDefaultTimeout(PATIENCE);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`http://127.0.0.1:${proxy.port}/?user=ann`);
  const state = (pane, state) => page.waitForSelector(`#${pane}-state[data-state="${state}"]`);
  await state("chat", "open");
  await state("feed", "open");
  proxy.cut();
  for (const pane of ["chat", "feed"]) {
    await page.waitForSelector(`#${pane}-log .note:not(.bad):text("nothing was missed")`);
    assert.equal(await page.textContent(`#${pane}-count`), "1 reconnect");
    await state(pane, "open");
  }

  await server.kill();
  await state("chat", "waiting");
  await state("feed", "waiting");
  await page.waitForSelector('#chat-log .note.bad:text("Connection lost")');
  await page.fill("#chat-text", "said while away");
  await page.click("#chat-send");
  await page.waitForSelector('#chat-log .pending .text:text-is("said while away")');

  const again = await startServer(t, { demo: true, port: server.port });
  await state("chat", "open");
  await state("feed", "open");
  await page.waitForSelector('#chat-log li:not(.pending):not(.failed) .text:text-is("said while away")');
  for (const pane of ["chat", "feed"]) {
    assert.equal(await page.textContent(`#${pane}-count`), "2 reconnects");
    // The server kept in its memory what was sent: with it that is gone.
    await page.waitForSelector(`#${pane}-log .note.bad:text("something may be missing here")`);
  }
  await again.publish({ to: { user: "ann" }, type: "notification", payload: { text: "still listening" } });
  await page.waitForSelector('#feed-log .text:text-is("still listening")');
  assert.deepEqual(errors, []);
});
