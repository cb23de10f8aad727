// The package `ws` as a client: node ws.mjs http://127.0.0.1:PORT

import WebSocket from "ws";
import { check, main, makeInbox, token, within } from "./lib.mjs";

const base = process.argv[2].replace("http", "ws");

function open(query) {
  const socket = new WebSocket(`${base}/ws?${query}`);
  const inbox = makeInbox();
  socket.on("message", (data, binary) => inbox.put(binary ? { binary } : JSON.parse(data)));
  const closed = new Promise((resolve, reject) => {
    socket.on("close", (code, reason) => resolve({ code, reason: String(reason) }));
    socket.on("error", reject);
  });
  closed.catch(() => {});
  const send = (type, payload, id) => socket.send(JSON.stringify({ type, payload, id }));
  return { socket, send, closed, next: (what) => Promise.race([inbox.next(what), failed(closed)]) };
}

/** Rejects when the connection fails; otherwise never ends. */
const failed = (closed) => new Promise((_, reject) => closed.catch(reject));

await main("ws", async () => {
  const ann = open(`token=${token("ann")}`);
  const hello = await ann.next("connected");
  check("ws: connected comes first", hello.type === "connected", hello);
  check("ws: connected names the user", hello.payload.userId === "ann", hello);
  check("ws: the client has an id", typeof hello.payload.clientId === "string", hello);

  ann.send("join:room", { roomId: "ws" }, 1);
  const joined = await ann.next("room:joined");
  check("ws: joined", joined.type === "room:joined" && joined.payload.roomId === "ws", joined);
  check("ws: the answer carries the id", joined.id === 1, joined);

  const bob = open(`token=${token("bob")}&room=ws`);
  check("ws: a second user connects", (await bob.next("connected")).payload.userId === "bob");
  const byUrl = await bob.next("room:joined");
  check("ws: joined by the URL", byUrl.payload?.roomId === "ws", byUrl);

  const data = { text: "grüße 🎉", deep: [1, { a: null }] };
  ann.send("room:message", { roomId: "ws", data });
  for (const [name, client] of [["the sender", ann], ["another member", bob]]) {
    const heard = await client.next("room:message");
    const whole = heard.type === "room:message" && heard.room === "ws" &&
      heard.payload.userId === "ann" && JSON.stringify(heard.payload.data) === JSON.stringify(data);
    check(`ws: ${name} hears what was said`, whole, heard);
  }

  bob.send("leave:room", { roomId: "ws" }, "bye");
  const left = await bob.next("room:left");
  check("ws: left", left.type === "room:left" && left.id === "bye", left);
  ann.send("room:message", { roomId: "ws", data: 2 });
  check("ws: who is in hears it", (await ann.next("room:message")).payload.data === 2);
  bob.send("room:message", { roomId: "ws", data: 3 }, 9);
  const refused = await bob.next("error");
  const forbidden = refused.type === "error" && refused.payload.code === "forbidden";
  check("ws: who left neither hears nor speaks", forbidden && refused.id === 9, refused);

  ann.send("ping");
  const pong = await ann.next("pong");
  check("ws: ping, pong", pong.type === "pong" && pong.payload.timestamp > 1.6e12, pong);
  const echoed = new Promise((resolve) => ann.socket.once("pong", (bytes) => resolve(String(bytes))));
  ann.socket.ping("beat");
  check("ws: a ping frame is answered", (await within(echoed, "a pong frame")) === "beat");

  ann.send("no:such", {}, 4);
  const unknown = await ann.next("error");
  check("ws: an unknown type", unknown.payload?.code === "unknown_type" && unknown.id === 4, unknown);

  ann.socket.close(1000);
  const end = await within(ann.closed, "the close");
  check("ws: closes in order", end.code === 1000, end);

  const forged = open(`token=${token("ann", "another-secret")}`);
  const bad = await within(forged.closed, "1008");
  check("ws: a bad token is closed with 1008", bad.code === 1008 && bad.reason === "Invalid token", bad);
  const nobody = await within(open("").closed, "1008");
  check("ws: no token is closed with 1008", nobody.code === 1008 && nobody.reason === "Unauthorized", nobody);
});
