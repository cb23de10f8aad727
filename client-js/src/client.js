import { startEngine } from "./engine.js";
import { TidingsError } from "./error.js";
import { MOST_BEHIND } from "./limits.js";
import { roomOf } from "./protocol.js";
import { startTab } from "./tab.js";

/** What an application holds: its listeners and loops, before a connection of its own or one of all tabs. */
export function connect(url = "/ws", options = {}) {
  const { WebSocket, fetch, BroadcastChannel, navigator, location } = globalThis;
  const settings = { ...DEFAULTS, WebSocket, fetch: (...request) => fetch(...request) };
  for (const name in options) if (options[name] !== undefined) settings[name] = options[name];
  settings.url = new URL(url, location?.href);
  if (settings.url.pathname === "/") settings.url.pathname = "/ws";

  const listeners = new Map();
  const loops = new Set();
  const client = {
    state: "connecting",
    get cursor() {
      return connection.cursor;
    },
    on,
    room,
    send: (type, payload, options) => ask("send", type, payload, options),
    join: (name, options) => ask("join", name, options),
    leave: (name) => ask("leave", name),
    close: () => connection.close(),
    [Symbol.asyncIterator]: loop,
  };

  const rooms = settings.rooms.map((name) => [name, settings]);
  // Browsers have locks on secure origins only; without them each tab has a connection of its own.
  const start = settings.shared && navigator?.locks && BroadcastChannel ? startTab : startEngine;
  const connection = start(settings, emit, { rooms });
  return client;

  function on(type, listener) {
    if (!listeners.has(type)) listeners.set(type, new Set());
    const entry = { listener };
    listeners.get(type).add(entry);
    return () => {
      listeners.get(type).delete(entry);
    };
  }

  function room(name) {
    return {
      name,
      on: (type, listener) =>
        on(type, (payload, message) => {
          if (roomOf(message) === name) listener(payload, message);
        }),
      join: (options) => client.join(name, options),
      leave: () => client.leave(name),
    };
  }

  async function ask(what, ...how) {
    if (client.state === "closed") throw new TidingsError("closed", "the client is closed");
    return connection[what](...how);
  }

  async function* loop() {
    const loop = { ready: [], over: client.state === "closed" };
    loops.add(loop);
    try {
      for (;;) {
        while (loop.ready.length) yield loop.ready.shift();
        if (loop.over) break;
        await new Promise((wake) => (loop.wake = wake));
      }
      if (loop.error) throw loop.error;
    } finally {
      loops.delete(loop);
    }
  }

  function emit(message) {
    const { type, payload } = message;
    if (type === "state") ({ state: client.state, transport: client.transport, clientId: client.clientId } = payload);
    for (const { listener } of [...(listeners.get(type) ?? [])]) {
      try {
        listener(payload, message);
      } catch (error) {
        // Reported as any listener's, and the others are called all the same.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    for (const loop of loops) feed(loop, message);
  }

  function feed(loop, message) {
    loop.ready.push(message);
    if (loop.ready.length > MOST_BEHIND) loop.error = new TidingsError("overflow", "the loop does not keep up");
    loop.over = loop.error || client.state === "closed";
    if (loop.error) loops.delete(loop);
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
