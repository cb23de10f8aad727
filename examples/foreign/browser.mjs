// A browser's own EventSource, which resumes by itself: node browser.mjs http://127.0.0.1:PORT CHROMIUM

import { once } from "node:events";
import net from "node:net";
import { launch } from "./chromium.mjs";
import { check, main, publish, token } from "./lib.mjs";

const [base, executablePath] = process.argv.slice(2);

/** A network that can be cut: `cut` ends what is open and lets nobody through until `mend`. */
async function network() {
  const sockets = new Set();
  let isCut = false;
  const server = net.createServer((near) => {
    if (isCut) return near.destroy();
    const far = net.connect(Number(new URL(base).port), "127.0.0.1");
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => { sockets.delete(socket); other.destroy(); });
      socket.pipe(other);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    cut() { isCut = true; for (const socket of sockets) socket.destroy(); },
    mend() { isCut = false; },
  };
}

/** In the page: keeps what comes, by its type. */
const listen = (query) => {
  window.seen = [];
  window.source = new EventSource(`/events?${query}`);
  for (const type of ["connected", "room:joined", "news", "gap", "server:error"]) {
    window.source.addEventListener(type, ({ data }) => {
      const { roomId, recovered } = JSON.parse(data);
      window.seen.push([type, type === "connected" ? recovered : roomId ?? data].join(" "));
    });
  }
};

await main("browser", async () => {
  const browser = await launch(executablePath);
  try {
    const path = await network();
    const page = await browser.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(`${path.address}/healthz`);
    const seen = async (many) => {
      await page.waitForFunction((n) => window.seen.length >= n, many);
      return page.evaluate("window.seen.splice(0)");
    };
    const say = (room, n) => publish(base, { to: { room }, type: "news", payload: `${room}${n}` });

    await page.evaluate(listen, `token=${token("ann")}&room=one&room=two`);
    const joined = await seen(3);
    check("browser: an EventSource is in both rooms of its address",
      joined.join() === "connected false,room:joined one,room:joined two", joined);
    await say("one", 1);
    await say("two", 1);
    const live = await seen(2);
    check("browser: and hears both", live.sort().join() === 'news "one1",news "two1"', live);

    path.cut();
    await page.waitForFunction(() => window.source.readyState === EventSource.CONNECTING);
    await say("one", 2);
    await say("two", 2);
    path.mend();
    const back = await seen(5);
    check("browser: cut off, it comes back by itself and has lost nothing",
      back[0] === "connected true"
        && back.filter((line) => line.startsWith("news")).sort().join() === 'news "one2",news "two2"',
      back);

    await page.evaluate(listen, `token=${token("ann", "another-secret")}`);
    await page.waitForFunction(() => window.source.readyState === EventSource.CLOSED);
    check("browser: a bad token ends it for good", true);
  } finally {
    await browser.close();
  }
});
