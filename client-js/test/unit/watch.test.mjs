import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, setBack, settle, sleep, start } from "./support.mjs";

test("after a heartbeat of silence it asks, and not before", async (t) => {
  await start(t);
  const socket = await FakeSocket.last.open({ heartbeatMs: 30_000 });
  await pass(29_999);
  assert.equal(socket.of("ping").length, 0);
  await pass(1);
  assert.equal(socket.of("ping").length, 1);
});

test("whatever comes puts the question off", async (t) => {
  await start(t);
  const socket = await FakeSocket.last.open({ heartbeatMs: 30_000 });
  await pass(20_000);
  await socket.says({ type: "chat", payload: 1 });
  await pass(29_999);
  assert.equal(socket.of("ping").length, 0);
  await pass(1);
  assert.equal(socket.of("ping").length, 1);
});

test("an answered question keeps the connection, and is no event", async (t) => {
  const { client } = await start(t);
  const pongs = [];
  client.on("pong", (payload) => pongs.push(payload));
  const socket = await FakeSocket.last.open({ heartbeatMs: 30_000 });
  await pass(30_000);
  await pass(4_999);
  await socket.says({ type: "pong", payload: { timestamp: 1 } });
  await pass(29_999);
  assert.equal(client.state, "open");
  assert.equal(socket.of("ping").length, 1);
  await pass(1);
  assert.equal(socket.of("ping").length, 2);
  assert.deepEqual(pongs, []);
});

for (const [after, state] of [[4_999, "open"], [5_000, "waiting"]]) {
  test(`a question unanswered for ${after} ms leaves it ${state}`, async (t) => {
    const { client, states } = await start(t);
    const socket = await FakeSocket.last.open({ heartbeatMs: 30_000 });
    await pass(30_000);
    await pass(after);
    assert.equal(client.state, state);
    if (state === "open") return;
    assert.equal(states.at(-1).reason, "no answer");
    assert.equal(socket.closedWith, 1000, "and the dead socket is closed");
  });
}

test("a heartbeat that the server does not say is 30 s", async (t) => {
  await start(t);
  const socket = await FakeSocket.last.open({ heartbeatMs: undefined });
  await pass(29_999);
  assert.equal(socket.of("ping").length, 0);
  await pass(1);
  assert.equal(socket.of("ping").length, 1);
});

test("after a sleep it asks within 5 s, although its timers stood still", async (t) => {
  await start(t);
  const socket = await FakeSocket.last.open({ heartbeatMs: 30_000 });
  await pass(1_000);
  sleep(3_600_000);
  await pass(5_000);
  assert.equal(socket.of("ping").length, 1);
});

test("after a sleep a wait that is over ends within 5 s", async (t) => {
  const { states } = await start(t, {}, { random: 0.999 });
  for (let failure = 0; failure < 5; failure += 1) {
    await FakeSocket.last?.ends();
    await pass(states.at(-1).retryInMs);
  }
  await FakeSocket.last.ends();
  assert.ok(states.at(-1).retryInMs > 15_000);
  const before = FakeSocket.all.length;
  sleep(60_000);
  await pass(5_000);
  assert.equal(FakeSocket.all.length, before + 1);
});

test("a clock that is set back while it waits does not make it wait longer", async (t) => {
  const { states } = await start(t);
  await FakeSocket.last.open();
  await FakeSocket.last.ends();
  setBack(t, 3_600_000);
  await pass(states.at(-1).retryInMs + 5_000);
  assert.equal(FakeSocket.all.length, 2);
});

test("a clock that is set back while it is open does not make it deaf", async (t) => {
  const { states } = await start(t);
  const socket = await FakeSocket.last.open({ heartbeatMs: 30_000 });
  await pass(1_000);
  setBack(t, 3_600_000);
  await pass(35_000);
  assert.equal(socket.of("ping").length, 1);
  await pass(10_000);
  assert.equal(states.find(({ state }) => state === "waiting").reason, "no answer");
});

/** Stands for a page: what is dispatched here, a browser dispatches on `window`, or it bubbles up to it. */
function page(t) {
  const window = new EventTarget();
  const document = { hidden: false };
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.document = document;
  Object.defineProperty(globalThis, "navigator", { value: { onLine: true }, configurable: true, writable: true });
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.document;
    delete globalThis.navigator;
  });
  const fire = async (type) => {
    window.dispatchEvent(new Event(type));
    await settle();
  };
  return { fire, document };
}

for (const type of ["online", "offline", "pageshow", "visibilitychange"]) {
  test(`${type}: an open connection is asked at once, and given up after 5 s`, async (t) => {
    const { fire } = page(t);
    const { client } = await start(t);
    const socket = await FakeSocket.last.open();
    await pass(1_000);
    await fire(type);
    assert.equal(socket.of("ping").length, 1);
    await fire(type);
    assert.equal(socket.of("ping").length, 1, "one question at a time");
    await pass(4_999);
    assert.equal(client.state, "open");
    await pass(1);
    assert.equal(client.state, "waiting");
  });
}

test("a page that hides asks nothing", async (t) => {
  const { fire, document } = page(t);
  await start(t);
  const socket = await FakeSocket.last.open();
  document.hidden = true;
  await fire("visibilitychange");
  assert.equal(socket.of("ping").length, 0);
  await fire("online");
  assert.equal(socket.of("ping").length, 1, "the network is another matter");
});

for (const [after, attempts] of [[999, 2], [1_000, 3]]) {
  test(`online ${after} ms after an attempt: ${attempts - 2} more at once, and one when the second is over`, async (t) => {
    const { fire } = page(t);
    await start(t, {}, { random: 0.999 });
    await FakeSocket.last.ends();
    await pass(999);
    await FakeSocket.last.ends();
    assert.equal(FakeSocket.all.length, 2, "the next wait is 1998 ms");
    await pass(after);
    await fire("online");
    assert.equal(FakeSocket.all.length, attempts);
    await pass(1);
    assert.equal(FakeSocket.all.length, 3);
    await pass(5_000);
    assert.equal(FakeSocket.all.length, 3, "and the wait before is over");
  });
}

test("online does not put off an attempt that is due sooner", async (t) => {
  const { fire } = page(t);
  await start(t, {}, { random: 0.2 });
  await FakeSocket.last.ends();
  await fire("online");
  await pass(200);
  assert.equal(FakeSocket.all.length, 2);
});

test("online while the browser knows that it is offline waits on", async (t) => {
  const { fire } = page(t);
  await start(t, {}, { random: 0.999 });
  await pass(2_000);
  await FakeSocket.last.ends();
  globalThis.navigator.onLine = false;
  await fire("visibilitychange");
  assert.equal(FakeSocket.all.length, 1);
  globalThis.navigator.onLine = true;
  await fire("online");
  assert.equal(FakeSocket.all.length, 2);
});

test("a server's advice is not cut short", async (t) => {
  const { fire } = page(t);
  await start(t);
  await FakeSocket.last.open();
  await pass(2_000);
  await FakeSocket.last.says({ type: "server:draining", payload: { reconnectAfterMs: 20_000 } });
  await FakeSocket.last.ends(1012);
  await fire("online");
  await pass(19_999);
  assert.equal(FakeSocket.all.length, 1);
  await pass(1);
  assert.equal(FakeSocket.all.length, 2);
});

test("a closed client listens to nothing", async (t) => {
  const { fire } = page(t);
  const signals = [];
  const listen = globalThis.addEventListener;
  globalThis.addEventListener = (type, then, options) => {
    signals.push(options.signal);
    listen(type, then, options);
  };
  const { client } = await start(t);
  const socket = await FakeSocket.last.open();
  client.close();
  assert.deepEqual(signals.map(({ aborted }) => aborted), [true, true, true, true]);
  await fire("online");
  assert.equal(socket.of("ping").length, 0);
  assert.equal(FakeSocket.all.length, 1);
});
