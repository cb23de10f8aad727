import { MOST_RECENT } from "./limits.js";

/**
 * Drops what comes a second time after a reconnect: the same message with the same cursor. A replay goes through a
 * topic in order, so once something new came there, nothing is dropped any more; nor ever within one connection.
 */
export class Repeats {
  #recent = [];
  /** What earlier connections brought. */
  #before = new Set();
  /** The rooms in which this connection brought something new. */
  #passed = new Set();

  connected() {
    this.#before = new Set(this.#recent);
    this.#passed.clear();
  }

  has({ type, room, cursor, payload }) {
    if (!cursor || type === "room:joined" || type === "connected") return false;
    const key = JSON.stringify([room, cursor, type, payload]);
    if (!this.#passed.has(room) && this.#before.delete(key)) return true;
    this.#passed.add(room);
    if (this.#recent.push(key) > MOST_RECENT) this.#recent.shift();
    return false;
  }
}
