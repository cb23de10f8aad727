// The package `eventsource` as a client: node eventsource.mjs http://127.0.0.1:PORT

import { EventSource } from "eventsource";
import { check, main, makeInbox, publish, token, within } from "./lib.mjs";

const base = process.argv[2];
const TYPES = ["connected", "room:joined", "notification", "order:shipped", "pong", "close"];

function open(query) {
  const source = new EventSource(`${base}/events?${query}`);
  const inbox = makeInbox();
  for (const type of TYPES) {
    source.addEventListener(type, (event) => {
      inbox.put({ type, payload: JSON.parse(event.data), cursor: event.lastEventId });
    });
  }
  return { source, next: inbox.next };
}

await main("eventsource", async () => {
  const ann = token("ann");
  const { source, next } = open(`token=${ann}&room=es`);
  const hello = await next("connected");
  check("eventsource: connected comes first", hello.type === "connected", hello);
  check("eventsource: connected names the user", hello.payload.userId === "ann", hello);
  const joined = await next("room:joined");
  check("eventsource: joined by the URL", joined.payload.roomId === "es", joined);

  const text = "two\nlines, grüße 🎉";
  await publish(base, { to: { room: "es" }, type: "notification", payload: { text } });
  const toRoom = await next("notification");
  check("eventsource: a named event to the room",
    toRoom.type === "notification" && toRoom.payload.text === text, toRoom);
  await publish(base, { to: { user: "ann" }, type: "order:shipped", payload: [1, 2] });
  const toUser = await next("order:shipped");
  check("eventsource: a named event to the user", toUser.type === "order:shipped", toUser);
  await publish(base, { to: { user: "bob" }, type: "notification", payload: "not for ann" });
  await publish(base, { to: { everyone: true }, type: "notification", payload: "all" });
  const toAll = await next("notification");
  check("eventsource: what is another's does not come", toAll.payload === "all", toAll);

  const posted = await fetch(`${base}/events/${hello.payload.clientId}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${ann}` },
    body: JSON.stringify({ type: "ping" }),
    signal: AbortSignal.timeout(10_000),
  });
  check("eventsource: a message is taken by POST", posted.status === 202, posted.status);
  const pong = await next("pong");
  check("eventsource: its answer comes on the stream", pong.type === "pong", pong);
  source.close();

  const forged = open(`token=${token("ann", "another-secret")}`);
  const error = await within(
    new Promise((resolve) => forged.source.addEventListener("error", resolve)), "401");
  check("eventsource: a bad token is 401", error.code === 401, error);
  check("eventsource: and ends it for good", forged.source.readyState === EventSource.CLOSED);
});
