import { TidingsError } from "./error.js";

/** Messages of the client: those that wait for a connection, and those that wait for their answer. */
export class Calls {
  #queue = [];
  #open = new Map();
  #lastId = 0;
  #options;

  constructor(options) {
    this.#options = options;
  }

  /** How many wait for their answer. */
  get size() {
    return this.#open.size;
  }

  /** Sends by `wire` when there is one, else as soon as there is. `onSent` is called just before. */
  send(wire, type, payload, { timeoutMs = this.#options.timeoutMs } = {}, onSent) {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      const call = { id, text: JSON.stringify({ type, payload, id }), timeoutMs, onSent, resolve, reject };
      if (wire) this.#write(wire, call);
      else if (this.#queue.length < this.#options.queue) this.#queue.push(call);
      else reject(new TidingsError("queue_full", "too many messages wait for a connection"));
    });
  }

  flush(wire) {
    for (const call of this.#queue.splice(0)) this.#write(wire, call);
  }

  /** Takes in a message; whether it was an answer that is waited for. */
  answer(message) {
    const { type, id, payload } = message;
    const call = this.#take(id);
    if (type === "error") call?.reject(new TidingsError(payload.code, payload.message));
    else call?.resolve(message);
    return call !== undefined;
  }

  /** The connection is gone: nobody knows what became of what was sent by it. */
  lost() {
    this.#fail([...this.#open.keys()], "connection_lost", "lost before the answer came");
  }

  /** There will be no connection any more. */
  end(error) {
    for (const { reject } of this.#queue.splice(0)) reject(error);
  }

  #write(wire, call) {
    this.#open.set(call.id, call);
    call.timer = setTimeout(() => this.#fail([call.id], "timeout", "no answer in time"), call.timeoutMs);
    call.onSent?.();
    wire.send(call.text, call.id);
  }

  #fail(ids, code, text) {
    for (const id of ids) this.#take(id)?.reject(new TidingsError(code, text));
  }

  #take(id) {
    const call = this.#open.get(id);
    this.#open.delete(id);
    clearTimeout(call?.timer);
    return call;
  }
}
