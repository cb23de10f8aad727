import { Engine } from "./engine.js";
import { TidingsError } from "./error.js";
import { ANSWER_MS, CHECK_MS } from "./limits.js";
import { roomOf } from "./protocol.js";
import { Repeats } from "./repeats.js";

/**
 * One of several tabs that share a connection. The tab that holds the lock leads: it has the engine, tells all tabs
 * what came, and does what they ask for. When it ends, the next in line leads, from the cursor that it has seen.
 *
 * What they say on the channel, `to` one or to all:
 * `{ who }` asks for the leader, `{ lead }` is its answer; `{ from, rooms, cursor }` presents a tab to the leader,
 * `{ from, call, op, args }` asks it for something, `{ call, sent | answer | error }` answers that; `{ event }` came
 * from the server. A call is for one leader: no other takes it, and the next is asked again.
 */
export class Tab {
  /** The newest that this tab has seen. */
  cursor;
  #id = crypto.randomUUID();
  #options;
  #emit;
  #name;
  #channel;
  /** Where this tab is: presence by room. */
  #rooms;
  /** What this tab has asked for and has no answer to yet. */
  #calls = new Map();
  #lastCall = 0;
  #repeats = new Repeats();
  #leader;
  #leaderSeenAt = 0;
  /** The last state, and the last connection. */
  #status;
  #previous;
  /** While this tab leads: the engine, and the tabs by room. */
  #engine;
  #tabs = new Map();
  /** It holds the lock of its own, by which the leader sees it end. */
  #present = false;
  #closed = new AbortController();

  constructor(options, emit, { rooms }) {
    this.#options = options;
    this.#emit = emit;
    this.#rooms = new Map(rooms.map(([name, { presence }]) => [name, { presence }]));
    this.cursor = options.cursor;
    this.#name = `tidings ${options.url} ${options.shared}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#hold(this.#lockOf(this.#id), {}, () => {
      this.#present = true;
      this.#tell({ who: this.#id });
      this.#standInLine();
    });
    const { signal } = this.#closed;
    const check = setInterval(() => this.#check(), CHECK_MS);
    signal.addEventListener("abort", () => clearInterval(check));
    globalThis.addEventListener?.("visibilitychange", () => this.#check(), { signal });
  }

  send(...args) {
    return this.#call("send", args);
  }

  async join(name, { presence = this.#options.presence } = {}) {
    const wish = { presence };
    this.#rooms.set(name, wish);
    try {
      return await this.#call("join", [name, wish]);
    } catch (error) {
      this.#forget(name, wish);
      throw error;
    }
  }

  async leave(name) {
    const wish = this.#rooms.get(name);
    const left = await this.#call("leave", [name]);
    this.#forget(name, wish);
    return left;
  }

  close() {
    this.#end({ state: "closed", code: 1000, reason: "closed" });
  }

  #forget(name, wish) {
    if (this.#rooms.get(name) === wish) this.#rooms.delete(name);
  }

  #lockOf(tab) {
    return `${this.#name} ${tab}`;
  }

  /** Holds a lock until this tab is closed. */
  #hold(name, options, then) {
    const { signal } = this.#closed;
    return navigator.locks.request(name, options, () => {
      if (signal.aborted) return;
      then();
      return new Promise((release) => signal.addEventListener("abort", release));
    });
  }

  #standInLine(options = {}) {
    // It fails when another tab takes the lock from this one, because it did not answer.
    this.#hold(this.#name, options, () => this.#lead()).catch(() => this.#engine && this.#stepDown());
  }

  #lead() {
    let engine;
    const emit = (event, about) => engine === this.#engine && this.#tell({ event, about });
    const from = { cursor: this.cursor, previous: this.#previous, repeats: this.#repeats };
    engine = new Engine(this.#options, emit, from);
    this.#engine = engine;
    this.#tabs.clear();
    this.#tell({ lead: this.#id });
  }

  #stepDown() {
    this.#stop();
    this.#standInLine();
    // Whatever an old leader answered meanwhile, all hear now who leads.
    this.#tell({ who: this.#id });
  }

  #stop() {
    const engine = this.#engine;
    this.#engine = undefined;
    engine?.close();
  }

  #tell(message) {
    if (message.to !== this.#id) this.#channel.postMessage(message);
    this.#hear(message);
  }

  #hear(message) {
    const { to = this.#id, who, lead, event, from, op } = message;
    if (to !== this.#id || !this.#present || this.#closed.signal.aborted) return;
    if (lead) this.#follow(lead);
    else if (event) this.#take(message);
    else if (!from && !who) this.#answered(message);
    else if (!this.#engine) return;
    else if (who) this.#tell({ lead: this.#id });
    else if (op) this.#serve(message);
    else this.#welcome(message);
  }

  /** Whom to ask from now on. What an earlier leader had sent may have arrived or not; the rest is asked for again. */
  #follow(leader) {
    this.#leaderSeenAt = Date.now();
    // One that was suspended and has not noticed yet that it lost the lock.
    if (this.#engine && leader !== this.#id) return;
    if (leader === this.#leader) return;
    this.#leader = leader;
    this.#tell({ to: leader, from: this.#id, rooms: [...this.#rooms], cursor: this.cursor });
    for (const [call, { sent }] of [...this.#calls]) {
      if (sent) this.#answered({ call, error: ["connection_lost", "lost before the answer came"] });
      else this.#ask(call);
    }
  }

  #call(op, args) {
    return new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      this.#calls.set(call, { op, args, resolve, reject });
      if (this.#leader) this.#ask(call);
    });
  }

  #ask(call) {
    const { op, args } = this.#calls.get(call);
    this.#tell({ to: this.#leader, from: this.#id, call, op, args });
  }

  #answered({ call, sent, answer, error }) {
    const waiting = this.#calls.get(call);
    if (!waiting) return;
    waiting.sent = sent;
    if (sent) return;
    this.#calls.delete(call);
    if (error) waiting.reject(new TidingsError(...error));
    else waiting.resolve(answer);
  }

  /** What came from the server: for the application when it is about a room where this tab is, or about none. */
  #take({ to, event, about = {} }) {
    const { type, payload, cursor } = event;
    if (!this.#engine) {
      // The leader's engine has looked already.
      if (type === "connected") this.#repeats.connected();
      if (this.#repeats.has(event)) return;
    }
    if (cursor) this.cursor = cursor;
    if (type === "state") {
      this.#status = event;
      this.#previous = payload.clientId ?? this.#previous;
      if (payload.state === "closed") return this.#end(payload);
    }
    const name = roomOf(event);
    if (name === undefined || about.everyone || this.#rooms.has(name)) this.#emit(event);
    // Unless another tab has joined it again meanwhile.
    if (type === "room:left" && !about.still) {
      this.#rooms.delete(name);
      if (!to) this.#tabs.delete(name);
    }
  }

  #end(status) {
    if (this.#closed.signal.aborted) return;
    this.#stop();
    this.#closed.abort();
    this.#channel.close();
    this.#emit({ type: "state", payload: status });
    const error = new TidingsError("closed", `${status.code} ${status.reason}`);
    for (const { reject } of this.#calls.values()) reject(error);
  }

  /** As the leader: a tab presents itself. */
  #welcome({ from, rooms, cursor }) {
    const engine = this.#engine;
    for (const [name, { presence }] of rooms) {
      this.#tabsIn(name).add(from);
      engine.want(name, { presence, cursor });
    }
    if (from === this.#id) return;
    this.#tell({ to: from, event: this.#status });
    navigator.locks.request(this.#lockOf(from), () => {
      if (this.#engine === engine) for (const name of this.#tabs.keys()) this.#leave(name, from).catch(() => {});
    });
  }

  /** As the leader: does what a tab asks for. */
  #serve({ from, call, op, args }) {
    const engine = this.#engine;
    const reply = (result) => {
      if (this.#engine === engine) this.#tell({ to: from, call, ...result });
    };
    const sent = () => reply({ sent: true });
    const [name, ...more] = args;
    const done = op === "send" ? engine.send(name, ...more, sent)
      : op === "join" ? this.#join(name, from, ...more)
      : this.#leave(name, from);
    done.then((answer) => reply({ answer }), ({ code, message }) => reply({ error: [code, message] }));
  }

  #join(name, tab, wish) {
    const tabs = this.#tabsIn(name);
    tabs.add(tab);
    return this.#engine.join(name, wish).catch((error) => {
      tabs.delete(tab);
      throw error;
    });
  }

  /** The last one out leaves at the server. */
  async #leave(name, tab) {
    const tabs = this.#tabsIn(name);
    const was = tabs.delete(tab);
    if (was && !tabs.size) return this.#engine.leave(name);
    const left = { type: "room:left", payload: { roomId: name } };
    if (was) this.#tell({ to: tab, event: left });
    return left;
  }

  #tabsIn(name) {
    if (!this.#tabs.has(name)) this.#tabs.set(name, new Set());
    return this.#tabs.get(name);
  }

  /** A leader that does not answer a tab on the screen is suspended by its browser: this tab takes over. */
  #check() {
    if (this.#engine || globalThis.document?.hidden) return;
    const askedAt = Date.now();
    this.#tell({ who: this.#id });
    setTimeout(() => {
      const led = this.#engine || this.#leaderSeenAt >= askedAt;
      if (!led && !this.#closed.signal.aborted && !globalThis.document?.hidden) this.#standInLine({ steal: true });
    }, ANSWER_MS);
  }
}
