// A real nginx with the configuration of examples/proxies.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "./support.mjs";

const CONF = new URL("../../../examples/proxies/nginx.conf", import.meta.url);

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

/** nginx before a server, on a port of its own; `start` and `stop` as often as is wanted. */
export async function startNginx(t, target, { upgrades = true } = {}) {
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
