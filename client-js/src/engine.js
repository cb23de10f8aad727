import { Calls } from "./calls.js";
import { at } from "./clock.js";
import { TidingsError } from "./error.js";
import {
  CONNECT_MS,
  FIRST_WAIT_MS,
  HEARTBEAT_MS,
  HELD_MS,
  LONGEST_WAIT_MS,
  MOST_BLOCKED,
  PONG_MS,
  RENEW_AGAIN_MS,
} from "./limits.js";
import { FINAL, NEW_TOKEN, roomOf } from "./protocol.js";
import { Repeats } from "./repeats.js";
import { Rooms } from "./rooms.js";
import { openSocket } from "./socket.js";
import { openStream } from "./stream.js";

/**
 * One connection that comes back. A link is one attempt and, once `connected` came, one connection; what is late from
 * an older one is told by its link and ignored.
 */
export class Engine {
  /** The newest: up to here everything has been emitted. */
  cursor;
  #options;
  #emit;
  #repeats;
  #calls;
  #rooms = new Rooms();
  /** The attempt, the connection, or the wait for the next attempt. */
  #link;
  /** A WebSocket that is tried beside an event stream. */
  #beside;
  #status = {};
  /** Attempts since a connection held. */
  #failures = 0;
  /** WebSockets in a row that failed before they were open. */
  #blocked = 0;
  /** When the server wants us back, in ms from the end. */
  #advice;
  /** The token that was refused, and how. */
  #refusal;
  #previous;
  #dialledAt = 0;
  #ended = new AbortController();

  /**
   * `emit(message, { everyone, still })`: `everyone` when the server put us in its room, so that nobody asked for it;
   * `still` when that room is wanted.
   */
  constructor(options, emit, { cursor = options.cursor, previous, rooms = [], repeats = new Repeats() } = {}) {
    this.cursor = cursor;
    this.#previous = previous;
    this.#options = options;
    this.#emit = emit;
    this.#repeats = repeats;
    this.#calls = new Calls(options);
    for (const [name, { presence }] of rooms) this.#rooms.want(name, { presence, since: cursor });
    for (const type of ["online", "offline", "pageshow", "visibilitychange"]) {
      globalThis.addEventListener?.(type, () => this.#woken(type), { signal: this.#ended.signal });
    }
    this.#dial();
  }

  send(type, payload, options, onSent) {
    return this.#calls.send(this.#wire, type, payload, options, onSent);
  }

  join(name, options) {
    return new Promise((resolve, reject) => this.want(name, options).waiting.push({ resolve, reject }));
  }

  /** Joins without a promise: what comes of it is emitted. */
  want(name, { presence = this.#options.presence, cursor } = {}) {
    const { room, ask } = this.#rooms.want(name, { presence, since: cursor });
    if (ask && this.#wire) this.#join(room);
    return room;
  }

  async leave(name) {
    this.#rooms.drop(name, new TidingsError("left", "left while joining"));
    if (this.#wire) return this.send("leave:room", { roomId: name });
    return { type: "room:left", payload: { roomId: name } };
  }

  close() {
    this.#end(1000, "closed");
  }

  get #wire() {
    return this.#status.state === "open" ? this.#link.wire : undefined;
  }

  #become(status) {
    this.#status = status;
    this.#emit({ type: "state", payload: status });
  }

  async #dial(beside = false) {
    const { transport, WebSocket } = this.#options;
    const fits = WebSocket && this.#blocked < MOST_BLOCKED ? "websocket" : "sse";
    const kind = beside ? "websocket" : transport ?? fits;
    const link = { kind, cursor: this.cursor, heard: 0, asked: 0, timers: [], stop() {} };
    link.close = () => {
      link.stop();
      link.timers.forEach(clearTimeout);
      link.wire?.close();
    };
    if (beside) this.#beside = link;
    else {
      this.#link = link;
      this.#dialledAt = Date.now();
      this.#become({ state: "connecting", transport: kind });
    }
    const wanted = () => link === this.#link || link === this.#beside;
    if (!wanted()) return;
    link.stop = at(Date.now() + CONNECT_MS, () => this.#lost(link, 1006, "no answer"));
    try {
      link.token = await this.#token();
      if (!wanted()) return;
      const { token, code, reason } = this.#refusal ?? {};
      if (code && token === link.token) return this.#end(code, reason);
      const open = kind === "sse" ? openStream : openSocket;
      link.wire = open(this.#address(link), link, this.#options, {
        heard: () => Object.assign(link, { heard: Date.now(), asked: 0 }),
        message: (message) => this.#receive(link, message),
        lost: (code, reason, after) => this.#lost(link, code, reason, after),
      });
    } catch (error) {
      this.#lost(link, 1006, error?.message);
    }
  }

  async #token() {
    const { token } = this.#options;
    return (typeof token === "function" ? await token() : token) ?? undefined;
  }

  #address(link) {
    const { url: base, events } = this.#options;
    const stream = link.kind === "sse";
    const url = new URL(stream ? events : base, base);
    url.search ||= base.search;
    url.protocol = stream ? url.protocol.replace("ws", "http") : url.protocol.replace("http", "ws");
    const { names, presence } = this.#rooms.named(link.cursor);
    const query = {
      envelope: stream && "1",
      token: !stream && link.token,
      cursor: link.cursor,
      previous: this.#previous,
      presence: presence && "1",
    };
    for (const name in query) if (query[name]) url.searchParams.set(name, query[name]);
    for (const name of names) url.searchParams.append("room", name);
    link.named = names;
    return url.href;
  }

  #receive(link, message) {
    const { type, payload } = message;
    if (type === "connected") this.#opened(link, payload);
    if (link !== this.#link || this.#repeats.has(message)) return;
    if (message.cursor) this.cursor = message.cursor;
    const answered = this.#calls.answer(message);
    const name = roomOf(message);
    if (type === "room:joined") this.#rooms.joined(name, message);
    const room = this.#rooms.get(name);
    if (type === "room:left") this.#rooms.left(name, answered);
    if (type === "server:draining") this.#advice = payload.reconnectAfterMs;
    if (type === "token:expiring") this.#renew(link);
    if (type === "error" && !answered && room && !room.inside) return this.#notJoined(link, room, payload);
    // Answers are for who asked; only those that change a room are events as well.
    const heard = answered ? /^room:(joined|left)$/.test(type) : type !== "pong";
    if (heard) this.#emit(message, { everyone: room?.own === false, still: this.#rooms.has(name) });
  }

  #opened(link, { clientId, heartbeatMs }) {
    if (link === this.#beside) {
      // An answer that is on its way would be lost with the event stream.
      if (this.#calls.size) return this.#lost(link);
      this.#beside = undefined;
      this.#leaveLink();
      this.#link = link;
    }
    if (link !== this.#link) return;
    Object.assign(link, { openedAt: Date.now(), heartbeat: heartbeatMs || HEARTBEAT_MS, clientId });
    this.#previous = clientId;
    this.#advice = this.#refusal = undefined;
    this.#repeats.connected();
    this.#become({ state: "open", transport: link.kind, clientId });
    if (link !== this.#link) return;
    for (const room of this.#rooms.values()) if (!link.named.has(room.name)) this.#join(room);
    this.#calls.flush(link.wire);
    this.#watch(link);
    this.#upgradeLater(link);
  }

  /** The attempt or the connection is over. `after`: when the server wants us back, in ms. */
  #lost(link, code, reason = "", after = this.#advice) {
    if (link === this.#beside) {
      link.close();
      this.#beside = undefined;
      return this.#upgradeLater(this.#link);
    }
    if (link !== this.#link) return;
    this.#leaveLink();
    if (link.openedAt && Date.now() - link.openedAt >= HELD_MS) this.#failures = 0;
    // When an event stream does not get through either, it is not the WebSocket's fault.
    if (link.kind === "websocket") this.#blocked = link.upgraded ? 0 : this.#blocked + 1;
    else if (!link.openedAt) this.#blocked = 0;
    if (FINAL.has(code)) return this.#end(code, reason);
    if (NEW_TOKEN.has(code)) {
      if (typeof this.#options.token !== "function") return this.#end(code, reason);
      this.#refusal = { token: link.token, code, reason };
    }
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures++);
    const retryInMs = after ?? Math.round(Math.random() * longest);
    this.#advice = undefined;
    this.#link = { close: at(Date.now() + retryInMs, () => this.#dial()) };
    this.#become({ state: "waiting", code, reason, retryInMs, advised: after !== undefined });
  }

  #leaveLink() {
    for (const link of [this.#link, this.#beside]) link?.close();
    this.#link = this.#beside = undefined;
    this.#rooms.lost(this.cursor);
    this.#calls.lost();
  }

  #end(code, reason) {
    if (this.#status.state === "closed") return;
    this.#ended.abort();
    this.#leaveLink();
    this.#become({ state: "closed", code, reason });
    const error = new TidingsError("closed", `${code} ${reason}`);
    this.#calls.end(error);
    this.#rooms.end(error);
  }

  #join(room) {
    const link = this.#link;
    const wish = { roomId: room.name, cursor: room.since, presence: room.presence || undefined };
    this.send("join:room", wish).catch((error) => this.#notJoined(link, room, error));
  }

  #notJoined(link, room, { code, message }) {
    const still = () => link === this.#link && room === this.#rooms.get(room.name) && !room.inside;
    if (!still()) return;
    const { told, again } = this.#rooms.refused(room.name, new TidingsError(code, message));
    if (again) this.#later(link, FIRST_WAIT_MS * (1 + 4 * Math.random()), () => still() && this.#join(room));
    if (!told) this.#emit({ type: "error", payload: { code, message, roomId: room.name } }, { everyone: !room.own });
  }

  /** Asks for a new token until the server has taken one or ends the connection. */
  async #renew(link) {
    if (typeof this.#options.token !== "function") return;
    try {
      const token = await this.#token();
      if (token === link.token) throw token;
      await this.send("token:renew", { token });
      link.token = token;
    } catch {
      this.#later(link, RENEW_AGAIN_MS, () => this.#renew(link));
    }
  }

  /** Asks after a heartbeat of silence, and gives the connection up when nothing answers. */
  #watch(link) {
    link.stop();
    const due = link.asked ? link.asked + PONG_MS : link.heard + link.heartbeat;
    if (Date.now() < due) link.stop = at(due, () => this.#watch(link));
    else if (link.asked) this.#lost(link, 1006, "silent");
    else this.#ask(link);
  }

  #ask(link) {
    link.asked = Date.now();
    link.wire.send('{"type":"ping"}');
    this.#watch(link);
  }

  /** The network, the page or the machine comes back: looks at once whether the connection still is. */
  #woken(type) {
    if (type === "visibilitychange" && document.hidden) return;
    const { state, advised } = this.#status;
    if (state === "open" && !this.#link.asked) this.#ask(this.#link);
    const rested = Date.now() - this.#dialledAt >= FIRST_WAIT_MS;
    if (state === "waiting" && !advised && rested && globalThis.navigator?.onLine !== false) {
      this.#link.close();
      this.#dial();
    }
  }

  #upgradeLater(link) {
    if (link?.kind !== "sse" || this.#options.transport || !this.#options.WebSocket) return;
    this.#later(link, this.#options.retryWebSocketMs, () => this.#dial(true));
  }

  /** Unless the link is another by then. */
  #later(link, ms, then) {
    if (link === this.#link) link.timers.push(setTimeout(then, ms));
  }
}
