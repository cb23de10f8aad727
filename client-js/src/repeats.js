import { MOST_RECENT } from "./limits.js";

/**
 * Drops what comes a second time after a reconnect: the same message with the same cursor. A replay goes through a
 * topic in order, so once something new came there, nothing is dropped any more; nor ever within one connection.
 */
export function watchRepeats() {
  const recent = [];
  /** What earlier connections brought. */
  let before = new Set();
  /** The rooms in which this connection brought something new. */
  let passed = new Set();

  return {
    connected() {
      before = new Set(recent);
      passed = new Set();
    },

    has({ type, room, cursor, payload }) {
      if (!cursor || type === "room:joined" || type === "connected") return false;
      const key = JSON.stringify([room, cursor, type, payload]);
      if (!passed.has(room) && before.delete(key)) return true;
      passed.add(room);
      if (recent.push(key) > MOST_RECENT) recent.shift();
      return false;
    },
  };
}
