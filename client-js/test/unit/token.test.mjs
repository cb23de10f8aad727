import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeSocket, pass, start } from "./support.mjs";

/** A token function that gives these, the last one for ever. */
function tokens(...list) {
  const give = async () => {
    give.asked += 1;
    const token = list.length > 1 ? list.shift() : list[0];
    if (token instanceof Error) throw token;
    return token;
  };
  give.asked = 0;
  return give;
}

test("the function is asked for each attempt", async (t) => {
  await start(t, { token: tokens("one", "two") });
  assert.equal(FakeSocket.last.query.get("token"), "one");
  await FakeSocket.last.ends();
  await pass(500);
  assert.equal(FakeSocket.last.query.get("token"), "two");
});

for (const token of ["fixed", undefined]) {
  test(`a token may be ${token ?? "none"}`, async (t) => {
    await start(t, { token });
    assert.equal(FakeSocket.last.query.get("token"), token ?? null);
  });
}

test("a function that throws is an attempt that failed", async (t) => {
  const { states } = await start(t, { token: tokens(new Error("login is away"), "one") });
  assert.equal(FakeSocket.all.length, 0);
  assert.equal(states.at(-1).reason, "login is away");
  await pass(500);
  assert.equal(FakeSocket.last.query.get("token"), "one");
});

for (const code of [1008, 4001]) {
  for (const [name, token] of [["a fixed token", "t"], ["no token", undefined]]) {
    test(`${code} with ${name} is the end`, async (t) => {
      const { states } = await start(t, { token });
      FakeSocket.last.onopen?.({});
      await FakeSocket.last.ends(code, "Invalid token");
      assert.deepEqual(states.at(-1), { state: "closed", code, reason: "Invalid token" });
      await pass(60_000);
      assert.equal(FakeSocket.all.length, 1);
    });
  }

  test(`after ${code} the same token is the end`, async (t) => {
    const { states } = await start(t, { token: tokens("t") });
    FakeSocket.last.onopen?.({});
    await FakeSocket.last.ends(code, "Invalid token");
    assert.equal(states.at(-1).state, "waiting");
    await pass(500);
    assert.equal(FakeSocket.all.length, 1, "the refused token is not shown again");
    assert.deepEqual(states.at(-1), { state: "closed", code, reason: "Invalid token" });
  });

  test(`after ${code} a new token is tried`, async (t) => {
    const { client } = await start(t, { token: tokens("old", "new") });
    FakeSocket.last.onopen?.({});
    await FakeSocket.last.ends(code);
    await pass(500);
    assert.equal(FakeSocket.last.query.get("token"), "new");
    await FakeSocket.last.open();
    assert.equal(client.state, "open");
  });
}

test("a token that was taken after a refusal may be used again", async (t) => {
  const { client } = await start(t, { token: tokens("old", "new") });
  await FakeSocket.last.open();
  await FakeSocket.last.ends(4001);
  await pass(500);
  await FakeSocket.last.open();
  await FakeSocket.last.ends(1006);
  await pass(1_000);
  assert.equal(FakeSocket.last.query.get("token"), "new");
  assert.equal(client.state, "connecting");
});

test("once a token was taken, the refused one may be tried again", async (t) => {
  await start(t, { token: tokens("a", "b", "a") });
  FakeSocket.last.onopen?.({});
  await FakeSocket.last.ends(1008);
  await pass(500);
  await FakeSocket.last.open();
  await FakeSocket.last.ends(1006);
  await pass(1_000);
  assert.equal(FakeSocket.last.query.get("token"), "a");
});

const expiring = { type: "token:expiring", payload: { expiresAt: 1_700_000_060 } };

test("a token that expires is renewed in band", async (t) => {
  const { client } = await start(t, { token: tokens("one", "two") });
  const socket = await FakeSocket.last.open();
  await socket.says(expiring);
  const [renewal] = socket.of("token:renew");
  assert.deepEqual(renewal.payload, { token: "two" });
  await socket.says({ type: "token:renewed", id: renewal.id, payload: { expiresAt: 1_700_003_600 } });
  await pass(25_000);
  assert.equal(socket.of("token:renew").length, 1);
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(client.state, "open");
});

test("until it is renewed it is tried every 5 s", async (t) => {
  const token = tokens("one", new Error("login is away"), "one", "two", "three");
  await start(t, { token });
  const socket = await FakeSocket.last.open();
  await socket.says(expiring);
  assert.equal(token.asked, 2);
  await pass(4_999);
  assert.equal(token.asked, 2);
  await pass(1);
  assert.equal(token.asked, 3, "the same token again is not sent");
  assert.equal(socket.of("token:renew").length, 0);
  await pass(5_000);
  const [refused] = socket.of("token:renew");
  assert.equal(refused.payload.token, "two");
  await socket.says({ type: "error", id: refused.id, payload: { code: "forbidden", message: "no good" } });
  await pass(5_000);
  assert.equal(socket.of("token:renew")[1].payload.token, "three");
});

test("a renewal ends with its connection", async (t) => {
  const token = tokens("one", new Error("login is away"), "two");
  await start(t, { token });
  await FakeSocket.last.open();
  await FakeSocket.last.says(expiring);
  await FakeSocket.last.ends(4001);
  await pass(500);
  const asked = token.asked;
  await FakeSocket.last.open();
  await pass(20_000);
  assert.equal(token.asked, asked);
});

test("a token that comes after its connection was lost is not asked for again", async (t) => {
  let fail;
  let asked = 0;
  const token = () => {
    asked += 1;
    return asked === 2 ? new Promise((_, reject) => (fail = reject)) : `token ${asked}`;
  };
  await start(t, { token });
  await FakeSocket.last.open();
  await FakeSocket.last.says(expiring);
  await FakeSocket.last.ends(1006);
  await pass(500);
  await FakeSocket.last.open();
  fail(new Error("too late"));
  await pass(6_000);
  assert.equal(asked, 3);
});

test("a renewal does not go out on the connection after its own", async (t) => {
  let give;
  let asked = 0;
  const token = () => {
    asked += 1;
    return asked === 2 ? new Promise((resolve) => (give = resolve)) : `token ${asked}`;
  };
  await start(t, { token });
  await FakeSocket.last.open();
  await FakeSocket.last.says(expiring);
  await FakeSocket.last.ends(1006);
  give("token 2");
  await pass(500);
  const socket = await FakeSocket.last.open();
  assert.equal(socket.query.get("token"), "token 3");
  await pass(20_000);
  assert.deepEqual(socket.sent, []);
});

test("without a function nothing is renewed", async (t) => {
  await start(t, { token: "fixed" });
  const socket = await FakeSocket.last.open();
  await socket.says(expiring);
  await pass(6_000);
  assert.equal(socket.sent.length, 0);
});

for (const none of [undefined, null, ""]) {
  test(`a function that gives ${JSON.stringify(none) ?? none} has renewed a cookie, which is tried once for each call`, async (t) => {
    const token = tokens(none);
    const { states } = await start(t, { token });
    for (let renewal = 1; renewal <= 3; renewal += 1) {
      await FakeSocket.last.open();
      await FakeSocket.last.ends(4001, "token expired");
      await pass(states.at(-1).retryInMs);
      assert.equal(FakeSocket.all.length, renewal + 1);
    }
    await FakeSocket.last.ends(1008, "Invalid token");
    await pass(states.at(-1).retryInMs);
    assert.equal(FakeSocket.all.length, 4, "what was just renewed is refused");
    assert.deepEqual(states.at(-1), { state: "closed", code: 1008, reason: "Invalid token" });
  });
}

test("who renews a cookie has nothing to tell on the connection", async (t) => {
  const token = tokens(undefined);
  await start(t, { token });
  const socket = await FakeSocket.last.open();
  await socket.says({ type: "token:expiring", payload: { expiresAt: 1 } });
  assert.equal(token.asked, 2);
  await pass(20_000);
  assert.equal(token.asked, 2);
  assert.deepEqual(socket.of("token:renew"), []);
});
