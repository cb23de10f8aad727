// An application as its types see it. Each `@ts-expect-error` fails the build when nothing is wrong there.

import { connect, TidingsError, type Client, type Message, type Options, type Status } from "tidings-client";

interface Events {
  "room:message": { userId: string; data: { text: string } };
  notification: { text: string };
}

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const is = <T extends true>(_?: T) => {};

const options: Options = { token: async () => "t", rooms: ["lobby"] as const, shared: "ann", transport: "sse" };
const t: Client<Events> = connect<Events>("/ws", options);
connect();
connect(new URL("wss://example.org/ws"), { token: "t", WebSocket: null });

const off: () => void = t.on("notification", (payload, message) => {
  is<Same<typeof payload, { text: string }>>();
  is<Same<typeof message, Message<{ text: string }>>>();
});
off();

t.room("lobby").on("room:message", ({ data }) => is<Same<typeof data.text, string>>());
t.on("state", (status) => is<Same<typeof status, Status>>());
t.on("gap", ({ roomId, reason }) => {
  is<Same<typeof roomId, string | undefined>>();
  // @ts-expect-error there is no such reason
  if (reason === "weather") return;
});
t.on("room:joined", ({ members }) => is<Same<typeof members, string[] | undefined>>());

// @ts-expect-error the application has no such event
t.on("no:such", () => {});
// @ts-expect-error the payload has no such field
t.on("notification", ({ title }) => title);
// @ts-expect-error the state is not to be set
t.state = "open";
// @ts-expect-error there is no such transport
connect("/ws", { transport: "pigeon" });

async function use() {
  const answer = await t.send<{ price: number }>("quote", { item: 1 }, { timeoutMs: 500 });
  is<Same<typeof answer.payload.price, number>>();
  const joined = await t.join("r2", { presence: true });
  is<Same<typeof joined.payload.recovered, boolean>>();
  await t.leave("r2");
  for await (const message of t) {
    if (message.type === "notification") is<Same<typeof message.payload.text, string>>();
    if (message.type === "state" && message.payload.state === "closed") break;
  }
  try {
    await t.send("chat");
  } catch (error) {
    if (error instanceof TidingsError) is<Same<typeof error.code, string>>();
  }
  t.close();
}
void use;

// Without a map, any event is of any type.
const loose = connect("/ws");
loose.on("whatever", (payload) => payload.anything);
loose.on("gap", ({ reason }) => is<Same<typeof reason extends string ? true : false, true>>());
