import { Engine } from "./engine.js";
import { TidingsError } from "./error.js";
import { roomOf } from "./protocol.js";
import { Tab } from "./tab.js";

/** What an application holds: its listeners and loops, before a connection of its own or one of all tabs. */
export class Client {
  #listeners = new Map();
  #loops = new Set();
  #status = { state: "connecting" };
  #connection;

  constructor(url = "/ws", options = {}) {
    const { WebSocket, BroadcastChannel, navigator, location } = globalThis;
    const known = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    const settings = { ...DEFAULTS, WebSocket, fetch: globalThis.fetch?.bind(globalThis), ...known };
    settings.url = new URL(url, location?.href);
    if (settings.url.pathname === "/") settings.url.pathname = "/ws";
    const rooms = settings.rooms.map((name) => [name, { presence: settings.presence }]);
    const emit = (message) => this.#emit(message);
    // Browsers have locks on secure origins only; without them each tab has a connection of its own.
    const together = settings.shared && navigator?.locks && BroadcastChannel;
    this.#connection = together ? new Tab(settings, emit, rooms) : new Engine(settings, emit, { rooms });
  }

  get state() {
    return this.#status.state;
  }

  get transport() {
    return this.#status.transport;
  }

  get clientId() {
    return this.#status.clientId;
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
    return this.#connection.send(type, payload, options);
  }

  join(name, options) {
    return this.#connection.join(name, options);
  }

  leave(name) {
    return this.#connection.leave(name);
  }

  close() {
    this.#connection.close();
  }

  [Symbol.asyncIterator]() {
    const loop = { ready: [], over: this.state === "closed", wake() {} };
    if (!loop.over) this.#loops.add(loop);
    const next = async () => {
      while (!loop.ready.length && !loop.over) await new Promise((wake) => (loop.wake = wake));
      if (loop.ready.length) return { done: false, value: loop.ready.shift() };
      if (loop.error) throw loop.error;
      return { done: true, value: undefined };
    };
    const end = async () => {
      this.#loops.delete(loop);
      loop.over = true;
      loop.wake();
      return { done: true, value: undefined };
    };
    return { next, return: end, [Symbol.asyncIterator]() { return this; } };
  }

  #emit(message) {
    const { type, payload } = message;
    if (type === "state") this.#status = payload;
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
    const behind = loop.ready.length > MOST_BEHIND;
    if (behind) loop.error = new TidingsError("overflow", "the loop does not keep up with the events");
    loop.over = behind || this.state === "closed";
    if (loop.over) this.#loops.delete(loop);
    loop.wake();
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

/** Events that a loop may be behind. */
const MOST_BEHIND = 10_000;
