// Through a real nginx with the configuration of examples/proxies.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { PATIENCE, openPage, startBrowser, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 5 * PATIENCE };
const CONF = new URL("../../../examples/proxies/nginx.conf", import.meta.url);

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

/** nginx before a server, on a port of its own; `start` and `stop` as often as is wanted. */
async function startNginx(t, target, { upgrades = true } = {}) {
  const dir = await mkdtemp(join(tmpdir(), "tidings-nginx-"));
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((what) => `${what}_temp_path ${dir}/${what};`);
  let conf = (await readFile(CONF, "utf8"))
    .replace("worker_rlimit_nofile 200000;", `pid ${dir}/pid; daemon off; error_log ${dir}/error.log;`)
    .replace("worker_connections 100000;", "worker_connections 512;")
    .replace("http {", `http {\n${temporary.join("\n")}`)
    .replace("listen 8000;", `listen 127.0.0.1:${port};`)
    .replace(/server 127\.0\.0\.1:8080 [^;]*;\s*server 127\.0\.0\.1:8082 [^;]*;/, `server 127.0.0.1:${target} max_fails=0;`);
  if (!upgrades) conf = conf.replace("proxy_set_header Upgrade $http_upgrade;", 'proxy_set_header Upgrade "";');
  await writeFile(`${dir}/nginx.conf`, conf);
  let child;
  const stop = async () => {
    const running = child;
    child = undefined;
    if (!running || running.exitCode !== null) return;
    running.kill("SIGTERM");
    await once(running, "exit");
  };
  const start = async () => {
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
    child = spawn("nginx", ["-p", dir, "-e", `${dir}/error.log`, "-c", `${dir}/nginx.conf`], { stdio: ["ignore", "inherit", "inherit"], env });
    await until("nginx", () => fetch(`http://127.0.0.1:${port}/healthz`).then(() => true, () => false));
  };
  t.after(async () => {
    await stop();
    await rm(dir, { recursive: true, force: true });
  });
  await start();
  return { port, start, stop };
}

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
