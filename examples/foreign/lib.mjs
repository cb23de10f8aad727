// What the clients in Node share: tokens, counted checks and bounded waits.

import { createHmac } from "node:crypto";

const WAIT_MS = 10_000;
let passed = 0;

export function token(sub, secret = "test-secret") {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 600;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, exp })}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

/** Waits for `promise`, but not for ever. */
export function within(promise, what, ms = WAIT_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function check(name, holds, seen) {
  if (!holds) throw new Error(`${name}: got ${JSON.stringify(seen)}`);
  passed += 1;
  console.log(`ok - ${name}`);
}

/** What comes in, in order; `next` waits for one more. */
export function makeInbox() {
  const ready = [];
  const waiting = [];
  return {
    put(item) {
      const taker = waiting.shift();
      if (taker) taker(item);
      else ready.push(item);
    },
    next(what) {
      if (ready.length > 0) return Promise.resolve(ready.shift());
      return within(new Promise((resolve) => waiting.push(resolve)), what);
    },
  };
}

export async function publish(base, publication) {
  const answer = await fetch(`${base}/publish`, {
    method: "POST",
    headers: { Authorization: "Bearer k", "Content-Type": "application/json" },
    body: JSON.stringify(publication),
    signal: AbortSignal.timeout(WAIT_MS),
  });
  const receipts = await answer.json();
  if (answer.status !== 200 || receipts.some((r) => r.error)) {
    throw new Error(`publish: ${answer.status} ${JSON.stringify(receipts)}`);
  }
}

/** Runs the checks of one client; the process ends with the verdict. */
export async function main(name, checks) {
  try {
    await within(checks(), name, 90_000);
    console.log(`${name}: ${passed} passed`);
    process.exit(0);
  } catch (error) {
    console.log(`not ok - ${name}: ${error.stack}`);
    process.exit(1);
  }
}
