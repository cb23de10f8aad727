import { TidingsError } from "./error.js";
import { REFUSED } from "./protocol.js";

/**
 * The rooms that are wanted, by name, and how far each is known: `since` is the cursor up to which it is whole. While it
 * is `inside`, that is the cursor of the connection.
 */
export class Rooms extends Map {
  /** Wishes to be in a room; answers it and whether there is something to ask the server for. */
  want(name, { presence = false, since } = {}) {
    const known = this.get(name);
    const room = known ?? { name, since, presence: false, inside: false, waiting: [] };
    room.presence ||= presence;
    room.own = true;
    this.set(name, room);
    // One that is in already asks again: it wants to hear who else is there.
    return { room, ask: !known || known.inside };
  }

  /** The names for the URL: those whole up to `cursor`, with the same wish for presence, that fit into so many characters. */
  named(cursor, left) {
    const fitting = [...this.values()].filter(({ since }) => since === cursor);
    const presence = fitting[0]?.presence ?? false;
    const names = new Set();
    for (const room of fitting) {
      left -= encodeURIComponent(room.name).length + "&room=".length;
      if (left >= 0 && room.presence === presence) names.add(room.name);
    }
    return { names, presence };
  }

  /** The server says that we are in. One that it put us in by itself is kept as ours are. */
  joined(name, message) {
    const room = this.get(name) ?? { name, presence: false, own: false, waiting: [] };
    this.set(name, room);
    room.inside = true;
    room.since = undefined;
    for (const { resolve } of room.waiting.splice(0)) resolve(message);
  }

  /** The server says that we are out; `asked`: since we left. It may be wanted again by now. */
  left(name, asked) {
    const room = this.get(name);
    if (room && asked) room.inside = false;
    else this.drop(name, new TidingsError("left"));
  }

  /** The server refused what was asked. Answers whether somebody was told, and whether to try again. */
  refused(room, error) {
    const told = room.waiting.length > 0;
    const again = !told && !room.inside && !REFUSED.includes(error.code);
    if (!again && !room.inside) this.delete(room.name);
    for (const { reject } of room.waiting.splice(0)) reject(error);
    return { told, again };
  }

  drop(name, error) {
    const room = this.get(name);
    this.delete(name);
    for (const { reject } of room?.waiting ?? []) reject(error);
  }

  /** How many joins wait for their answer. */
  get joins() {
    return [...this.values()].flatMap(({ waiting }) => waiting).length;
  }

  /** The connection is gone, on which everything up to `cursor` came. */
  lost(cursor) {
    for (const room of this.values()) {
      if (room.inside) room.since = cursor;
      room.inside = false;
    }
  }

  end(error) {
    for (const name of this.keys()) this.drop(name, error);
  }
}
