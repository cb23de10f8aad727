import { now } from "./clock.js";
import { startEngine } from "./engine.js";
import { TidingsError } from "./error.js";
import { ANSWER_MS, CHECK_MS } from "./limits.js";
import { leftRoom, roomOf } from "./protocol.js";
import { watchRepeats } from "./repeats.js";

/**
 * One of several tabs that share a connection. The tab that holds the lock leads: it has the engine, tells all tabs
 * what came, and does what they ask for. When it ends, the next in line leads, from the cursor that it has seen.
 * Each leadership has a number, greater than those before: a leader that was suspended, and replaced meanwhile, may
 * still speak when it wakes, but nobody listens any more.
 *
 * What they say on the channel, `to` one tab, to a leadership, or to all:
 * `{ who }` asks who leads, `{ lead, stolen }` is the answer; `{ from, rooms, cursor }` presents a tab to the leader,
 * `{ from, call, op, args }` asks it for something, `{ call, sent | answer | error }` answers that; `{ by, event }` came
 * from the server, and tells a new tab with `cursor` how far. A call is for one leadership: the next is asked again.
 */
export function startTab(options, emit, { rooms: wished }) {
  const id = crypto.randomUUID();
  // The build puts its own number in: tabs of another build have a connection of their own.
  const name = `BUILD ${options.url} ${options.shared}`;
  const closed = new AbortController();
  const { signal } = closed;
  const repeats = watchRepeats();
  /** Where this tab is: presence by room. */
  const rooms = new Map(wished.map(([room, { presence }]) => [room, { presence }]));
  /** What this tab has asked for and has no answer to yet. */
  const calls = new Map();
  let lastCall = 0;
  /** The newest that this tab has seen, and the last connection. */
  let { cursor } = options;
  let previous;
  /** The leadership, and when it was last heard of. */
  let leader = 0;
  let leaderSeenAt = 0;
  /** The leadership that handed over to this tab. */
  let before;
  /** While this tab leads: its leadership, the engine, and the tabs by room. */
  let leads = 0;
  let engine;
  const tabs = new Map();
  /** It holds the lock of its own, by which the leader sees it end. */
  let present = false;

  let channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }) => hear(data);
  hold(lockOf(id), {}, () => {
    present = true;
    tell({ who: true });
    standInLine();
  }).catch(leadAlone);
  const timer = setInterval(check, CHECK_MS);
  globalThis.addEventListener?.("visibilitychange", check, { signal });

  return {
    get cursor() {
      return cursor;
    },
    send: (...args) => ask("send", args),
    join,
    leave,
    reconnect: () => ask("reconnect", []),
    close: () => end({ state: "closed", code: 1000, reason: "closed" }),
  };

  // What is asked for

  async function join(room, { presence = options.presence } = {}) {
    const wish = { presence, asked: true };
    rooms.set(room, wish);
    try {
      return await ask("join", [room, wish]);
    } catch (error) {
      if (rooms.get(room) === wish) rooms.delete(room);
      throw error;
    } finally {
      wish.asked = false;
    }
  }

  async function leave(room) {
    rooms.delete(room);
    const left = await ask("leave", [room]);
    emit(left);
    return left;
  }

  /** What is asked for goes as text: a channel takes less than JSON does. */
  function ask(op, [a, b, c]) {
    return new Promise((resolve, reject) => {
      const args = JSON.stringify({ a, b, c });
      const call = ++lastCall;
      calls.set(call, { op, args, resolve, reject });
      if (leader) askLeader(call);
    });
  }

  function askLeader(call) {
    const { op, args } = calls.get(call);
    tell({ to: leader, from: id, call, op, args });
  }

  function end(status) {
    if (signal.aborted) return;
    stop();
    closed.abort();
    clearInterval(timer);
    channel.close();
    emit({ type: "state", payload: status });
    for (const { reject } of calls.values()) reject(new TidingsError("closed", `${status.code} ${status.reason}`));
  }

  // Who leads

  function lockOf(tab) {
    return `${name} ${tab}`;
  }

  /** Holds a lock until this tab is closed. */
  function hold(lock, how, then) {
    return navigator.locks.request(lock, how, () => {
      if (signal.aborted) return;
      then();
      return new Promise((release) => signal.addEventListener("abort", release));
    });
  }

  function standInLine(steal = false) {
    let led;
    hold(name, { steal }, () => {
      led = true;
      lead(steal);
    }).catch(() => led && stepDown());
  }

  function lead(stolen) {
    const leadership = Math.max(Date.now(), leader + 1);
    before = stolen ? undefined : leader;
    const tellAll = (event, about) => leadership === leads && tell({ by: leadership, event, about });
    leads = leadership;
    tabs.clear();
    engine = startEngine(options, tellAll, { cursor, previous, repeats });
    tell({ lead: leadership, stolen });
  }

  /** There are locks, but not for this frame: it leads itself, on a channel of its own. */
  function leadAlone() {
    if (signal.aborted) return;
    channel.close();
    channel = new BroadcastChannel(id);
    present = true;
    lead();
  }

  /** Another tab took the lock from this one, because it did not answer. */
  function stepDown() {
    stop();
    standInLine();
    tell({ who: true });
  }

  function stop() {
    leads = 0;
    engine?.close();
  }

  /** A leader that does not answer a tab on the screen is suspended by its browser: this tab takes over. */
  function check() {
    const idle = () => leads || signal.aborted || globalThis.document?.hidden;
    if (idle()) return;
    const askedAt = now();
    tell({ who: true });
    setTimeout(() => {
      if (!idle() && leaderSeenAt < askedAt) standInLine(true);
    }, ANSWER_MS);
  }

  // What is said

  function isMe(to) {
    return to === id || to === leads;
  }

  function tell(message) {
    if (!isMe(message.to)) channel.postMessage(message);
    hear(message);
  }

  function hear(message) {
    const { to = id, who, by, from, op } = message;
    if (!isMe(to) || !present || signal.aborted) return;
    if (message.lead) follow(message);
    else if (by) take(message);
    else if (op) serve(message);
    else if (from) welcome(message);
    else if (!who) settle(message);
    else if (leads) tell({ lead: leads });
  }

  /**
   * Whom to ask from now on. What an earlier leader had sent may have arrived or not, and one that was suspended may
   * send it yet; the rest is asked for again.
   */
  function follow({ lead: leadership, stolen }) {
    if (leadership < leader) return;
    leaderSeenAt = now();
    if (leadership === leader) return;
    if (leads < leadership) stop();
    const unsure = stolen && leader;
    leader = leadership;
    tell({ to: leader, from: id, rooms: [...rooms], cursor });
    for (const [call, { op, sent }] of calls) {
      if (sent || (unsure && op === "send")) settle({ call, error: ["connection_lost"] });
      else askLeader(call);
    }
  }

  function settle({ call, sent, answer, error }) {
    const waiting = calls.get(call);
    if (!waiting) return;
    waiting.sent = sent;
    if (sent) return;
    calls.delete(call);
    if (error) waiting.reject(new TidingsError(...error));
    else waiting.resolve(answer);
  }

  /** What came from the server: for the application when it is about a room where this tab is, or about none. */
  function take({ by, event, about = {}, cursor: begin }) {
    const { type, payload } = event;
    const ended = type === "state" && payload.state === "closed";
    // The lock may come sooner than the word that there is no coming back.
    if (by !== leader && !(ended && by === before)) return;
    if (ended) return end(payload);
    if (!leads) {
      // The leader's engine has looked already.
      if (type === "connected") repeats.connected();
      if (repeats.has(event)) return;
    }
    cursor = event.cursor ?? cursor ?? begin;
    if (type === "state") previous = payload.clientId ?? previous;
    const room = roomOf(event);
    if (room === undefined || about.everyone || rooms.has(room)) emit(event);
    // Unless it is joined again meanwhile.
    if (type === "room:left" && !about.still) {
      if (!rooms.get(room)?.asked) rooms.delete(room);
      tabs.delete(room);
    }
  }

  // As the leader

  /** A tab presents itself. */
  function welcome({ from, rooms: its, cursor: since }) {
    const leadership = leads;
    for (const [room, { presence }] of its) {
      tabsIn(room).add(from);
      engine.want(room, { presence, cursor: since });
    }
    tell({ to: from, by: leads, event: { type: "state", payload: engine.status }, cursor: engine.cursor });
    if (from === id) return;
    navigator.locks.request(lockOf(from), () => {
      if (leadership === leads) for (const room of tabs.keys()) leaveFor(from, room).catch(() => {});
    });
  }

  /** Does what a tab asks for. */
  function serve({ from, call, op, args }) {
    const leadership = leads;
    const { a, b, c } = JSON.parse(args);
    const reply = (result) => leadership === leads && tell({ to: from, call, ...result });
    const done = op === "send" ? engine.send(a, b, c, () => reply({ sent: true }))
      : op === "join" ? joinFor(from, a, b)
      : op === "leave" ? leaveFor(from, a)
      : engine.reconnect();
    done.then((answer) => reply({ answer }), ({ code, message }) => reply({ error: [code, message] }));
  }

  function joinFor(tab, room, wish) {
    const inside = tabsIn(room).add(tab);
    return engine.join(room, wish).catch((error) => {
      inside.delete(tab);
      throw error;
    });
  }

  /** The last one out leaves at the server. */
  async function leaveFor(tab, room) {
    const inside = tabsIn(room);
    return inside.delete(tab) && !inside.size ? engine.leave(room) : leftRoom(room);
  }

  function tabsIn(room) {
    if (!tabs.has(room)) tabs.set(room, new Set());
    return tabs.get(room);
  }
}
