import { TidingsError, queueFull } from "./error.js";

/** Messages of the client: those that wait for a connection, and those that wait for their answer. */
export function keepCalls(options) {
  const queue = [];
  const open = new Map();
  let lastId = 0;

  return { send, flush, settled, answer, lost, end };

  /** Sends by `wire` when there is one, else as soon as there is. `onSent` is called just before. */
  function send(wire, type, payload, { timeoutMs = options.timeoutMs } = {}, onSent) {
    const id = ++lastId;
    const call = { id, timeoutMs, onSent };
    call.over = new Promise((resolve, reject) => {
      Object.assign(call, { text: JSON.stringify({ type, payload, id }), resolve, reject });
      if (wire) write(wire, call);
      else if (queue.length < options.queue) queue.push(call);
      else reject(queueFull());
    });
    return call.over;
  }

  function flush(wire) {
    for (const call of queue.splice(0)) write(wire, call);
  }

  /** When all that wait for their answer by now have it, or have given up. */
  function settled() {
    return Promise.allSettled([...open.values()].map(({ over }) => over));
  }

  /** Takes in a message: perhaps it is an answer that is waited for. */
  function answer(message) {
    const { type, id, payload } = message;
    const call = take(id);
    if (type === "error") call?.reject(new TidingsError(payload.code, payload.message));
    else call?.resolve(message);
  }

  /** The connection is gone: nobody knows what became of what was sent by it. */
  function lost() {
    for (const id of open.keys()) fail(id, "connection_lost");
  }

  /** There will be no connection any more. */
  function end(error) {
    for (const { reject } of queue.splice(0)) reject(error);
  }

  async function write(wire, call) {
    open.set(call.id, call);
    call.onSent?.();
    // On an event stream it waits for its turn, which is not the server's fault.
    await wire.send(call.text, call.id);
    if (open.has(call.id)) call.timer = setTimeout(() => fail(call.id, "timeout"), call.timeoutMs);
  }

  function fail(id, code) {
    take(id)?.reject(new TidingsError(code));
  }

  function take(id) {
    const call = open.get(id);
    open.delete(id);
    clearTimeout(call?.timer);
    return call;
  }
}
