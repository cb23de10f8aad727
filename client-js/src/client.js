import { startEngine } from "./engine.js";
import { TidingsError } from "./error.js";
import { MOST_BEHIND } from "./limits.js";
import { roomOf } from "./protocol.js";
import { startTab } from "./tab.js";

/** What an application holds: its listeners and loops, before a connection of its own or one of all tabs. */
export function connect(url = "/ws", options = {}) {
  const { WebSocket, fetch, BroadcastChannel, document, navigator, location } = globalThis;
  const settings = { ...DEFAULTS, WebSocket, fetch: (...request) => fetch(...request) };
  for (const name in options) settings[name] = options[name] ?? settings[name];
  // Neither a frame without an address of its own nor a worker from a blob has one that others can be relative to.
  settings.url = new URL(url, document?.baseURI ?? location?.href.replace("blob:", ""));
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
    close: () => connection.close(),
    [Symbol.asyncIterator]: loop,
  };

  for (const what of ["send", "join", "leave", "reconnect"]) {
    client[what] = async (...how) => {
      if (client.state === "closed") throw new TidingsError("closed");
      return connection[what](...how);
    };
  }
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
    if (type === "cursor") return;
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
    if (loop.ready.length > MOST_BEHIND) loop.error = new TidingsError("overflow");
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
