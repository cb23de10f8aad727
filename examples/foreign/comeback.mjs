// The package `eventsource` behind a proxy while the only node is killed and started again:
// node comeback.mjs NAME http://PROXY PATH_TO_BINARY NODE_ADDRESS

import { spawn } from "node:child_process";
import { once } from "node:events";
import { EventSource } from "eventsource";
import { check, main, makeInbox, publish, token } from "./lib.mjs";

const [name, base, binary, address] = process.argv.slice(2);
let node;

async function start() {
  const flags = ["--jwt-hs256-secret", "test-secret", "--publish-key", "k", "--open-rooms"];
  node = spawn(binary, ["--listen", address, "--admin-listen", "127.0.0.1:0", ...flags], { stdio: "ignore" });
  for (;;) {
    const ready = await fetch(`${base}/readyz`).catch(() => null);
    if (ready?.status === 200) return;
    if (node.exitCode !== null) throw new Error(`the server ended with ${node.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

process.on("exit", () => node?.kill("SIGKILL"));

await main(name, async () => {
  await start();
  const source = new EventSource(`${base}/events?token=${token("ann")}&room=r`);
  const inbox = makeInbox();
  for (const type of ["connected", "room:joined", "news"]) source.addEventListener(type, () => inbox.put(type));
  source.addEventListener("error", () => inbox.put(source.readyState));
  const joined = async () => [await inbox.next("connected"), await inbox.next("room:joined")].join();
  check(`${name}: connected through the proxy`, (await joined()) === "connected,room:joined");

  node.kill("SIGKILL");
  await once(node, "exit");
  const lost = await inbox.next("the lost connection");
  check(`${name}: a killed node is an interruption`, lost === EventSource.CONNECTING, lost);
  const later = await inbox.next("the answer of the proxy");
  check(`${name}: without a node it is told to come back`, later === EventSource.CONNECTING, later);

  await start();
  let next;
  do next = await inbox.next("connected"); while (next === EventSource.CONNECTING);
  check(`${name}: it comes back by itself`, next === "connected", next);
  check(`${name}: and is in its room again`, (await inbox.next("room:joined")) === "room:joined");
  await publish(base, { to: { room: "r" }, type: "news" });
  const news = await inbox.next("news");
  check(`${name}: and hears what is published`, news === "news", news);
  source.close();
});
