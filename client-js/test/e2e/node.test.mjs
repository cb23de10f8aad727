// The client in Node, against the real server: with a WebSocket that is handed to it, and without any.

import assert from "node:assert/strict";
import { test } from "node:test";

import WebSocket from "ws";

import { connect } from "../../tidings-client.js";
import { PATIENCE, startServer, token, until } from "./support.mjs";

const OPTIONS = { timeout: 3 * PATIENCE };

for (const [name, more, transport] of [
  ["a WebSocket", { WebSocket }, "websocket"],
  ["none", { WebSocket: null }, "sse"],
]) {
  test(`Node with ${name}`, OPTIONS, async (t) => {
    const server = await startServer(t);
    const url = `http://127.0.0.1:${server.port}`;
    const client = connect(url, { ...more, token: () => token("ann"), rooms: ["r1"] });
    t.after(() => client.close());
    const heard = [];
    client.room("r1").on("room:message", ({ data }) => heard.push(data));
    assert.equal((await client.send("room:message", { roomId: "r1", data: "a\nb" })).type, "ok");
    assert.equal(client.transport, transport);
    await until("the message", () => heard.length === 1);
    assert.deepEqual(heard, ["a\nb"]);
    assert.equal((await client.join("r2")).payload.roomId, "r2");
    await server.kill("SIGTERM");
    await until("waiting", () => client.state === "waiting");
    const again = await startServer(t, { port: server.port });
    await until("open again", () => client.state === "open");
    await again.publish({ to: { room: "r1" }, type: "room:message", payload: { data: "c" } });
    await until("the next", () => heard.length === 2);
  });
}

test("what needs a URL longer than a proxy takes is joined all the same", OPTIONS, async (t) => {
  const server = await startServer(t);
  const rooms = Array.from({ length: 60 }, (_, n) => `${n}-`.padEnd(200, "x"));
  const url = `http://127.0.0.1:${server.port}`;
  const urls = [];
  class Recorded extends WebSocket {
    constructor(url) {
      super(url);
      urls.push(url);
    }
  }
  const client = connect(url, { WebSocket: Recorded, token: () => token("ann"), rooms });
  t.after(() => client.close());
  const joined = new Set();
  client.on("room:joined", ({ roomId }) => joined.add(roomId));
  await until("all rooms", () => joined.size === 60);
  assert.ok(urls[0].length < 8_192, `${urls[0].length} characters`);
});
