// Fake sockets and a clock that tests move by hand. Nothing here waits.

import { connect } from "../../src/index.js";

/** Lets everything happen that needs no time. */
export async function settle() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
}

let clock;

/** Moves the clock, in steps, so that what a timer begins can set timers of its own. */
export async function pass(ms) {
  await settle();
  for (let left = ms; left > 0; left -= 100) {
    clock.tick(Math.min(left, 100));
    await settle();
  }
}

/** The machine sleeps: the clock goes on, timers do not. */
export function sleep(ms) {
  clock.setTime(Date.now() + ms);
}

/** The machine's clock is set back; timers go on. */
export function setBack(t, ms) {
  const { now } = Date;
  t.mock.method(Date, "now", () => now() - ms);
}

export class FakeSocket {
  static all = [];
  sent = [];
  readyState = 0;

  constructor(url) {
    this.url = new URL(url);
    FakeSocket.all.push(this);
  }

  static get last() {
    return FakeSocket.all.at(-1);
  }

  get query() {
    return this.url.searchParams;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  /** The upgrade and `connected`. */
  async open(more = {}) {
    const { cursor, ...payload } = more;
    this.onopen?.({});
    const connected = { clientId: `c${FakeSocket.all.length}`, userId: "ann", heartbeatMs: 30_000, recovered: false };
    await this.says({ type: "connected", cursor, payload: { ...connected, ...payload } });
    return this;
  }

  async says(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
    await settle();
  }

  async ends(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
    await settle();
  }

  /** What was sent of a type. */
  of(type) {
    return this.sent.filter((message) => message.type === type);
  }
}

/** A client on fake sockets and a fake clock; `random` is what chance gives. */
export async function start(t, options = {}, { random = 0.5, url = "https://example.org/ws" } = {}) {
  clock = t.mock.timers;
  clock.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1_700_000_000_000 });
  t.mock.method(AbortSignal, "timeout", (ms) => {
    const overdue = new AbortController();
    setTimeout(() => overdue.abort(), ms);
    return overdue.signal;
  });
  const chance = t.mock.method(Math, "random", () => random);
  FakeSocket.all = [];
  const client = connect(url, { WebSocket: FakeSocket, fetch: refuse, ...options });
  const states = [];
  const events = [];
  client.on("state", (status) => states.push(status));
  for (const type of ["connected", "room:joined", "room:left", "gap", "error", "chat"]) {
    client.on(type, (payload, message) => events.push(message));
  }
  t.after(() => client.close());
  await settle();
  return { client, states, events, chance };
}

const refuse = async () => {
  throw new TypeError("no network in tests");
};
