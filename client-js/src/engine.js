import { keepCalls } from "./calls.js";
import { at, now } from "./clock.js";
import { TidingsError, queueFull } from "./error.js";
import {
  CONNECT_MS,
  FIRST_WAIT_MS,
  HEARTBEAT_MS,
  HELD_MS,
  LONGEST_WAIT_MS,
  MOST_BLOCKED,
  PONG_MS,
  RENEW_AGAIN_MS,
  URL_CHARACTERS,
} from "./limits.js";
import { FINAL, NEW_TOKEN, leftRoom, roomOf } from "./protocol.js";
import { watchRepeats } from "./repeats.js";
import { Rooms } from "./rooms.js";
import { openSocket } from "./socket.js";
import { openStream } from "./stream.js";

/**
 * One connection that comes back. A link is one attempt and, once `connected` came, one connection; what is late from
 * an older one is told by its link and ignored.
 *
 * `emit(message, { everyone, still })`: `everyone` when the server put us in its room, so that nobody asked for it;
 * `still` when that room is wanted.
 */
export function startEngine(options, emit, from) {
  let { cursor = options.cursor, previous, rooms: wished = [], repeats = watchRepeats() } = from;
  const calls = keepCalls(options);
  const rooms = new Rooms();
  const ended = new AbortController();
  /** The payload of the last `state`. */
  let status = {};
  /** The attempt, the connection, or the wait for the next attempt. */
  let current;
  /** A WebSocket that is tried beside an event stream, and when that is to be. */
  let beside;
  let upgradeAt;
  /** WebSockets in a row that broke before they were open; without end once one broke beside a stream that was open. */
  let blocked = 0;
  /** Attempts since a connection held. */
  let failures = 0;
  let dialledAt;
  /** When the server wants us back, in ms from the end. */
  let advice;
  /** The token that was refused, how, and whether that was since the last connection the second one. */
  let refusal;

  for (const [name, { presence }] of wished) rooms.want(name, { presence, since: cursor });
  for (const type of "online offline pageshow visibilitychange".split(" ")) {
    globalThis.addEventListener?.(type, () => onWoken(type), { signal: ended.signal });
  }
  dial();

  return {
    /** The newest: up to here everything has been emitted. */
    get cursor() {
      return cursor;
    },
    get status() {
      return status;
    },
    send,
    join,
    want,
    leave,
    reconnect,
    close: () => end(1000, "closed"),
  };

  // What is asked for

  function send(type, payload, more, onSent) {
    return calls.send(openWire(), type, payload, more, onSent);
  }

  function join(name, more) {
    return new Promise((resolve, reject) => {
      if (!openWire() && rooms.joins >= options.queue) reject(queueFull());
      else want(name, more).waiting.push({ resolve, reject });
    });
  }

  /** Joins without a promise: what comes of it is emitted. */
  function want(name, { presence = options.presence, cursor: since } = {}) {
    const { room, ask } = rooms.want(name, { presence, since });
    if (ask && openWire()) askToJoin(room);
    return room;
  }

  async function leave(name) {
    rooms.drop(name, new TidingsError("left"));
    try {
      if (openWire()) return await send("leave:room", { roomId: name });
    } catch (error) {
      // With the connection the room is left as well.
      if (error.code !== "connection_lost") throw error;
    }
    return leftRoom(name);
  }

  // Attempts

  /** Waits no longer. */
  async function reconnect() {
    if (status.state !== "waiting") return;
    current.close();
    dial();
  }

  async function dial(isBeside) {
    const { transport, WebSocket, retryWebSocketMs } = options;
    const fits = WebSocket && blocked < MOST_BLOCKED ? "websocket" : "sse";
    const kind = isBeside ? "websocket" : transport ?? fits;
    const link = { kind, cursor, heard: 0, asked: 0, timers: [] };
    link.close = () => {
      link.stop?.();
      link.timers.forEach((stop) => stop());
      link.wire?.close();
    };
    // Not all clients at once.
    if (kind === "websocket") upgradeAt = now() + retryWebSocketMs * (0.75 + Math.random() / 2);
    if (isBeside) beside = link;
    else {
      current = link;
      dialledAt = now();
      become({ state: "connecting", transport: kind });
    }
    const wanted = () => link === current || link === beside;
    if (!wanted()) return;
    link.stop = at(now() + CONNECT_MS, () => onLost(link, 1006));
    try {
      link.token = await getToken();
      if (!wanted()) return;
      const { token, code, reason, again } = refusal ?? {};
      // A function that gives none has renewed a cookie, which is tried once.
      if (code && token === link.token && (token || again)) return end(code, reason);
      const open = kind === "sse" ? openStream : openSocket;
      link.wire = open(addressOf(link), link, options, {
        heard() {
          link.heard = now();
          link.asked = 0;
        },
        message: (message) => onMessage(link, message),
        lost: (code, reason, after) => onLost(link, code, reason, after),
      });
    } catch (error) {
      onLost(link, 1006, error?.message);
    }
  }

  async function getToken() {
    const { token } = options;
    return (typeof token === "function" ? await token() : token) || undefined;
  }

  function addressOf(link) {
    const { url: base, events } = options;
    const stream = link.kind === "sse";
    const url = new URL(stream ? events : base, base);
    url.search ||= base.search;
    url.protocol = stream ? url.protocol.replace("ws", "http") : url.protocol.replace("http", "ws");
    const query = { envelope: stream && "1", token: !stream && link.token, cursor: link.cursor, previous };
    for (const name in query) if (query[name]) url.searchParams.set(name, query[name]);
    const { names, presence } = rooms.named(link.cursor, URL_CHARACTERS - url.href.length);
    if (presence) url.searchParams.set("presence", "1");
    for (const name of names) url.searchParams.append("room", name);
    link.named = names;
    return url.href;
  }

  function waitUntil(due) {
    current = { due, close: at(due, () => dial()) };
  }

  // What happens

  function onMessage(link, message) {
    if (link === beside) return hold(link, message);
    // What a link that was given up still says is late.
    if (link !== current) return;
    const { type, payload, id } = message;
    if (type === "connected") onConnected(link, payload);
    if (repeats.has(message)) return;
    if (message.cursor) cursor = message.cursor;
    calls.answer(message);
    const answers = id !== undefined;
    const name = roomOf(message);
    if (type === "room:joined") {
      const asked = link.named.delete(name) || answers;
      // Left while it was on its way, or given up.
      if (asked && !rooms.has(name)) return leave(name).catch(() => {});
      rooms.joined(name, message);
    }
    const room = rooms.get(name);
    if (type === "room:left") rooms.left(name, answers);
    if (type === "server:draining") advice = payload.reconnectAfterMs;
    if (type === "token:expiring") renew(link);
    if (type === "error" && !answers && room && !room.inside) return onRefused(link, room, payload);
    // Answers are for who asked; only those that change a room are events as well.
    const heard = answers ? /^room:(joined|left)$/.test(type) : type !== "pong";
    if (heard) emit(message, { everyone: room?.own === false, still: rooms.has(name) });
  }

  function onConnected(link, { clientId, heartbeatMs }) {
    link.openedAt = now();
    link.heartbeat = heartbeatMs || HEARTBEAT_MS;
    link.clientId = clientId;
    previous = clientId;
    advice = refusal = undefined;
    repeats.connected();
    watch(link);
    // What broke before may have been an outage: that WebSockets do not get through is proven beside a stream that does.
    if (blocked < Infinity) upgradeAt = now() + soon();
    upgradeLater();
    become({ state: "open", transport: link.kind, clientId });
  }

  /** The attempt or the connection is over. `after`: when the server wants us back, in ms. */
  function onLost(link, code, reason = "no answer", after = advice) {
    if (link === beside) {
      link.close();
      beside = undefined;
      blocked = Infinity;
      if (link.held) flush();
      return upgradeLater();
    }
    if (link !== current) return;
    if (beside?.held) return takeOver(beside);
    leaveLink();
    if (link.openedAt && now() - link.openedAt >= HELD_MS) failures = 0;
    // A close frame proves that WebSockets get through. When an event stream does not either, it is not their fault.
    if (link.kind === "websocket") blocked = link.openedAt || code !== 1006 ? 0 : blocked + 1;
    else if (!link.openedAt) blocked = 0;
    if (FINAL.includes(code)) return end(code, reason);
    if (NEW_TOKEN.includes(code)) {
      if (typeof options.token !== "function") return end(code, reason);
      refusal = { token: link.token, code, reason, again: refusal };
    }
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures++);
    const retryInMs = after ?? Math.round(Math.random() * longest);
    advice = undefined;
    waitUntil(now() + retryInMs);
    become({ state: "waiting", code, reason, retryInMs, advised: after !== undefined });
  }

  /** The network, the page or the machine comes back: looks at once whether the connection still is. */
  function onWoken(type) {
    if (type === "visibilitychange" && document.hidden) return;
    const { state, advised } = status;
    if (state === "open" && !current.asked) ping(current);
    if (state !== "waiting" || advised || globalThis.navigator?.onLine === false) return;
    // It may have tried a moment ago.
    const soonest = dialledAt + FIRST_WAIT_MS;
    if (now() >= soonest) return reconnect();
    current.close();
    waitUntil(Math.min(current.due, soonest));
  }

  function become(next) {
    status = next;
    // Before anybody hears of it and sends more.
    flush();
    emit({ type: "state", payload: status });
  }

  function openWire() {
    return status.state === "open" && !beside?.held ? current.wire : undefined;
  }

  /** What waited for a connection goes out. */
  function flush() {
    if (!openWire()) return;
    for (const room of rooms.values()) if (!room.inside && !current.named.has(room.name)) askToJoin(room);
    calls.flush(current.wire);
  }

  function leaveLink() {
    for (const link of [current, beside]) link?.close();
    current = beside = undefined;
    rooms.lost(cursor);
    calls.lost();
  }

  function end(code, reason) {
    if (status.state === "closed") return;
    ended.abort();
    leaveLink();
    become({ state: "closed", code, reason });
    const error = new TidingsError("closed", `${code} ${reason}`);
    calls.end(error);
    rooms.end(error);
  }

  // Rooms

  function askToJoin(room) {
    const link = current;
    const wish = { roomId: room.name, cursor: room.since, presence: room.presence || undefined };
    send("join:room", wish).catch((error) => onRefused(link, room, error));
  }

  function onRefused(link, room, { code, message }) {
    const still = () => link === current && room === rooms.get(room.name);
    if (!still()) return;
    const { told, again } = rooms.refused(room, new TidingsError(code, message));
    if (again) later(link, soon(), () => still() && !room.inside && askToJoin(room));
    if (!told) emit({ type: "error", payload: { code, message, roomId: room.name } }, { everyone: !room.own });
  }

  // While it is open

  /** Asks for a new token until the server has taken one or ends the connection. */
  async function renew(link) {
    if (typeof options.token !== "function") return;
    try {
      const token = await getToken();
      if (link !== current || !token) return;
      if (token === link.token) throw token;
      await send("token:renew", { token });
      link.token = token;
    } catch {
      later(link, RENEW_AGAIN_MS, () => renew(link));
    }
  }

  /** Asks after a heartbeat of silence, and gives the connection up when nothing answers. */
  function watch(link) {
    link.stop();
    const due = link.asked ? link.asked + PONG_MS : link.heard + link.heartbeat;
    if (now() < due) link.stop = at(due, () => watch(link));
    else if (link.asked) onLost(link, 1006);
    else ping(link);
  }

  function ping(link) {
    link.asked = now();
    link.wire.send('{"type":"ping"}');
    watch(link);
  }

  // From an event stream to a WebSocket

  function upgradeLater() {
    if (current.kind !== "sse" || options.transport || !options.WebSocket) return;
    later(current, upgradeAt - now(), () => dial(true));
  }

  /** The WebSocket is connected. Until no answer is on its way by the stream, what is sent waits. */
  async function hold(link, message) {
    if (link.held) return link.held.push(message);
    link.held = [message];
    await calls.settled();
    if (link === beside) takeOver(link);
  }

  function takeOver(link) {
    beside = undefined;
    leaveLink();
    current = link;
    for (const message of link.held) onMessage(link, message);
  }

  /** 1 to 5 s, not the same for all clients. */
  function soon() {
    return FIRST_WAIT_MS * (1 + 4 * Math.random());
  }

  /** Unless the link is another by then. */
  function later(link, ms, then) {
    if (link === current) link.timers.push(at(now() + ms, then));
  }
}
