// Stands for a browser with several tabs: Web Locks, BroadcastChannel, and clients on them.

import { connect } from "../../src/index.js";
import { FakeSocket, settle, start } from "./support.mjs";

/** Web Locks, as far as a client needs them. */
class FakeLocks {
  /** Those who lose a lock to another learn of it after this. */
  late = Promise.resolve();
  /** By name: who holds it, and who waits, in order. */
  #held = new Map();
  #waiting = [];

  request(name, options, callback = options) {
    return new Promise((resolve, reject) => {
      const request = { name, callback, resolve, reject };
      if (options.steal) {
        const loser = this.#held.get(name);
        this.late.then(() => loser?.reject(new DOMException("stolen", "AbortError")));
        this.#held.delete(name);
        this.#waiting.unshift(request);
      } else {
        this.#waiting.push(request);
      }
      queueMicrotask(() => this.#grant());
    });
  }

  #grant() {
    const request = this.#waiting.find(({ name }) => !this.#held.has(name));
    if (!request) return;
    this.#waiting.splice(this.#waiting.indexOf(request), 1);
    this.#held.set(request.name, request);
    const end = (settle) => (value) => {
      settle(value);
      if (this.#held.get(request.name) === request) this.#held.delete(request.name);
      this.#grant();
    };
    Promise.resolve(request.callback()).then(end(request.resolve), end(request.reject));
    this.#grant();
  }
}

/** A channel that can be suspended with its tab: what comes then is heard afterwards. */
class FakeChannel {
  static all = [];
  #inbox = [];
  #suspended = false;

  constructor(name) {
    this.name = name;
    FakeChannel.all.push(this);
  }

  postMessage(message) {
    for (const other of FakeChannel.all) {
      if (other !== this && other.name === this.name) other.#inbox.push(structuredClone(message));
    }
    setImmediate(() => FakeChannel.all.forEach((channel) => channel.#deliver()));
  }

  suspend() {
    this.#suspended = true;
  }

  resume() {
    this.#suspended = false;
    this.#deliver();
  }

  #deliver() {
    while (!this.#suspended && this.#inbox.length) this.onmessage?.({ data: this.#inbox.shift() });
  }

  close() {
    FakeChannel.all.splice(FakeChannel.all.indexOf(this), 1);
  }
}

/** A browser; `open` opens a tab. The first one leads. */
export async function browser(t, options = {}) {
  const { BroadcastChannel, navigator } = globalThis;
  FakeChannel.all = [];
  globalThis.BroadcastChannel = FakeChannel;
  const value = { onLine: true, locks: new FakeLocks() };
  Object.defineProperty(globalThis, "navigator", { value, configurable: true, writable: true });
  t.after(() => {
    globalThis.BroadcastChannel = BroadcastChannel;
    Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true, writable: true });
  });
  const shared = { shared: true, WebSocket: FakeSocket, ...options };
  const wrap = async (client, events, states) => {
    await settle();
    return { client, events, states, channel: FakeChannel.all.at(-1) };
  };
  const open = async (more) => {
    const client = connect("https://example.org/ws", { ...shared, ...more });
    t.after(() => client.close());
    const [events, states] = [[], []];
    client.on("state", (status) => states.push(status));
    for (const type of ["connected", "room:joined", "room:left", "gap", "error", "chat"]) {
      client.on(type, (payload, message) => events.push(message));
    }
    return wrap(client, events, states);
  };
  const openFirst = async (more) => {
    const { client, events, states } = await start(t, { ...shared, ...more });
    return wrap(client, events, states);
  };
  return { open, openFirst, locks: value.locks };
}

/** The payloads of `chat` that a tab heard. */
export const chats = ({ events }) => events.filter(({ type }) => type === "chat").map(({ payload }) => payload);

/** Tabs in these rooms, on one open connection that is in all of them. */
export async function tabsIn(t, rooms, options) {
  const { open, openFirst, locks } = await browser(t, options);
  const tabs = [];
  for (const room of rooms) {
    const tab = await (tabs.length ? open : openFirst)({ rooms: room ? [room] : [] });
    tabs.push(tab);
    if (tabs.length === 1) await FakeSocket.last.open({ clientId: "first" });
  }
  for (const room of new Set(rooms.filter(Boolean))) await FakeSocket.last.says(joined(room));
  return { tabs, open, locks, socket: FakeSocket.last };
}

export const joined = (roomId, more) => ({ type: "room:joined", payload: { roomId, recovered: false }, ...more });
export const chat = (payload, cursor, room = "r") => ({ type: "chat", room, cursor, payload });
