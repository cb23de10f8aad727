// What the end-to-end tests share: the real server, a proxy that can be cut, and Chromium.

import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

/** Longest wait for anything that must happen, in ms. */
export const PATIENCE = 60_000;
const SECRET = "a secret of at least thirty-two bytes, for tests";
const KEY = "publish-key";

/** Waits until `look` gives something, and answers it. */
export async function until(what, look) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function token(sub, seconds = 3600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, exp, nonce: Math.random() })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

/** The server as a process, on a free port or on `port`, perhaps in demo mode; killed when the test ends. */
export async function startServer(t, { port = 0, flags = [], demo = false } = {}) {
  // The server takes no variable `TIDINGS_…` but its own.
  const { TIDINGS_SERVER: program, ...env } = process.env;
  if (!program) throw new Error("TIDINGS_SERVER must name the program of the server");
  const listen = ["--listen", `127.0.0.1:${port}`, "--admin-listen", "127.0.0.1:0"];
  const keys = demo ? [] : ["--jwt-hs256-secret", SECRET, "--open-rooms"];
  const child = spawn(program, [...listen, "--publish-key", KEY, ...keys, ...flags], { env, stdio: ["ignore", "pipe", "inherit"] });
  const gone = once(child, "exit");
  const kill = async (signal = "SIGKILL") => {
    child.kill(signal);
    await gone;
  };
  t.after(() => kill());
  const found = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const [, name, at] = /^(page|admin): +http:\/\/127\.0\.0\.1:(\d+)/.exec(line) ?? [];
    if (name) found[name] = Number(at);
    if (found.page && found.admin) break;
  }
  if (!found.admin) throw new Error("the server did not say where it listens");
  child.stdout.resume();
  const publish = async (publication) => {
    const answer = await fetch(`http://127.0.0.1:${found.page}/publish`, {
      method: "POST",
      headers: { Authorization: `Bearer ${KEY}` },
      body: JSON.stringify(publication),
    });
    const [receipt] = await answer.json();
    if (receipt.error) throw new Error(receipt.error.message);
    return receipt;
  };
  const admin = async (path, body) => {
    const headers = { "Content-Type": "application/json" };
    const request = body && { method: "POST", headers, body: JSON.stringify(body) };
    return (await fetch(`http://127.0.0.1:${found.admin}${path}`, request)).json();
  };
  const connections = async () => (await admin("/stats")).connections;
  return { port: found.page, kill, publish, admin, connections };
}

/** Stands before a server on a port of its own. `upgrades`: whether they get through; `dead`: nothing is passed on. */
export async function startProxy(t, target) {
  const proxy = { target, upgrades: true, dead: false };
  const sockets = new Set();
  const server = net.createServer((client) => {
    const upstream = net.connect(proxy.target, "127.0.0.1");
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        if (!proxy.dead) to.destroy();
      });
      from.on("data", (bytes) => {
        if (proxy.dead) return;
        if (from === client && !proxy.upgrades && /^upgrade: websocket/im.test(bytes.toString("latin1"))) {
          client.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        } else {
          to.write(bytes);
        }
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  proxy.port = server.address().port;
  proxy.cut = () => sockets.forEach((socket) => socket.destroy());
  t.after(() => {
    server.close();
    proxy.cut();
  });
  return proxy;
}

/** A browser with nothing of its own on the network. `keepsPages`: it has a back/forward cache, as browsers of people. */
export async function startBrowser(t, { keepsPages = false } = {}) {
  const executablePath = process.env.CHROMIUM;
  if (!executablePath) throw new Error("CHROMIUM must name the browser");
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"];
  const browser = await chromium.launch({
    executablePath,
    args,
    ignoreDefaultArgs: keepsPages ? ["--disable-back-forward-cache"] : [],
    timeout: PATIENCE,
  });
  t.after(() => browser.close());
  return browser;
}

/**
 * A page of the server's origin with a client: `t`, what it heard in `heard`, and its states in `states`.
 * `getToken` is called for each token.
 */
export async function openPage(context, port, options, getToken) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => console.error(`page: ${error.stack}`));
  if (getToken) await page.exposeFunction("getToken", getToken);
  await page.goto(`http://127.0.0.1:${port}/healthz`);
  await page.evaluate(async (given) => {
    const { connect } = await import("/tidings-client.js");
    window.heard = [];
    window.states = [];
    const token = window.getToken ? () => window.getToken() : given.token;
    window.t = connect("/ws", { ...given, token });
    window.t.on("state", (status) => window.states.push(status));
    window.loop = (async () => {
      for await (const message of window.t) if (message.type !== "state") window.heard.push(message);
    })();
  }, options);
  const opened = () => until("an open connection", () => page.evaluate(() => window.t.state === "open"));
  const heard = (type) =>
    page.evaluate((type) => window.heard.filter((message) => message.type === type).map(({ payload }) => payload), type);
  const states = () => page.evaluate(() => window.states);
  return { page, opened, heard, states };
}
