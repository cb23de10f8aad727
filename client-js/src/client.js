import { Engine } from "./engine.js";
import { TidingsError } from "./error.js";
import { MOST_BEHIND } from "./limits.js";
import { roomOf } from "./protocol.js";
import { Tab } from "./tab.js";

/** What an application holds: its listeners and loops, before a connection of its own or one of all tabs. */
export class Client {
  state = "connecting";
  transport;
  clientId;
  #listeners = new Map();
  #loops = new Set();
  #connection;

  constructor(url = "/ws", options = {}) {
    const { WebSocket, fetch, BroadcastChannel, navigator, location } = globalThis;
    const settings = { ...DEFAULTS, WebSocket, fetch: (...request) => fetch(...request) };
    for (const name in options) if (options[name] !== undefined) settings[name] = options[name];
    settings.url = new URL(url, location?.href);
    if (settings.url.pathname === "/") settings.url.pathname = "/ws";
    const rooms = settings.rooms.map((name) => [name, settings]);
    // Browsers have locks on secure origins only; without them each tab has a connection of its own.
    const Connection = settings.shared && navigator?.locks && BroadcastChannel ? Tab : Engine;
    this.#connection = new Connection(settings, (message) => this.#emit(message), { rooms });
  }

  get cursor() {
    return this.#connection.cursor;
  }

  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    const entry = { listener };
    this.#listeners.get(type).add(entry);
    return () => {
      this.#listeners.get(type).delete(entry);
    };
  }

  room(name) {
    const on = (type, listener) =>
      this.on(type, (payload, message) => {
        if (roomOf(message) === name) listener(payload, message);
      });
    return { name, on, join: (options) => this.join(name, options), leave: () => this.leave(name) };
  }

  send(type, payload, options) {
    return this.#ask("send", type, payload, options);
  }

  join(name, options) {
    return this.#ask("join", name, options);
  }

  leave(name) {
    return this.#ask("leave", name);
  }

  close() {
    this.#connection.close();
  }

  async *[Symbol.asyncIterator]() {
    const loop = { ready: [], over: this.state === "closed" };
    this.#loops.add(loop);
    try {
      for (;;) {
        while (loop.ready.length) yield loop.ready.shift();
        if (loop.over) break;
        await new Promise((wake) => (loop.wake = wake));
      }
      if (loop.error) throw loop.error;
    } finally {
      this.#loops.delete(loop);
    }
  }

  async #ask(what, ...how) {
    if (this.state === "closed") throw new TidingsError("closed", "the client is closed");
    return this.#connection[what](...how);
  }

  #emit(message) {
    const { type, payload } = message;
    if (type === "state") ({ state: this.state, transport: this.transport, clientId: this.clientId } = payload);
    for (const { listener } of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(payload, message);
      } catch (error) {
        // Reported as any listener's, and the others are called all the same.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    for (const loop of this.#loops) this.#feed(loop, message);
  }

  #feed(loop, message) {
    loop.ready.push(message);
    if (loop.ready.length > MOST_BEHIND) loop.error = new TidingsError("overflow", "the loop does not keep up");
    loop.over = loop.error || this.state === "closed";
    if (loop.error) this.#loops.delete(loop);
    loop.wake?.();
  }
}

const DEFAULTS = {
  rooms: [],
  presence: false,
  events: "events",
  timeoutMs: 10_000,
  queue: 100,
  retryWebSocketMs: 300_000,
};
