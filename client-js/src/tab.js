import { Engine } from "./engine.js";
import { TidingsError } from "./error.js";
import { roomOf } from "./protocol.js";
import { Repeats } from "./repeats.js";

/**
 * One of several tabs that share a connection. The tab that holds the lock leads: it has the engine, tells all tabs
 * what came, and sends what they ask for. When it ends, the next in line leads, from the cursor that it has seen.
 *
 * On the channel: `{ who }` asks for the leader, `{ lead }` is its answer, `{ hello, rooms, cursor }` presents a tab,
 * `{ call, from, op, args }` asks for something, `{ to, call, sent | answer | error }` answers that, `{ event }` came
 * from the server. A call names the leader that it is for, so no other takes it, and a new one is asked again.
 */
export class Tab {
  /** The newest that this tab has seen. */
  cursor;
  #id = Math.random().toString(36).slice(2);
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
  /** Present while this tab leads: { engine, tabs: by room, end, status }. */
  #term;
  #inLine = new AbortController();
  #closed = new AbortController();
  /** A lock of its own, by which the leader sees this tab end. */
  #present = false;

  constructor(options, emit, rooms) {
    this.#options = options;
    this.#emit = emit;
    this.#rooms = new Map(rooms);
    this.cursor = options.cursor;
    this.#name = `tidings ${options.url.href} ${options.shared}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#hold(`${this.#name} ${this.#id}`, {}, () => {
      this.#present = true;
      this.#channel.postMessage({ who: this.#id });
    });
    this.#standInLine();
    const { signal } = this.#closed;
    const check = setInterval(() => this.#check(), CHECK_MS);
    signal.addEventListener("abort", () => clearInterval(check));
    globalThis.document?.addEventListener("visibilitychange", () => this.#check(), { signal });
  }

  send(type, payload, options) {
    return this.#call("send", [type, payload, options]);
  }

  async join(name, options = {}) {
    const { presence = this.#options.presence } = options;
    const wish = { presence };
    this.#rooms.set(name, wish);
    try {
      return await this.#call("join", [name, wish]);
    } catch (error) {
      if (this.#rooms.get(name) === wish) this.#rooms.delete(name);
      throw error;
    }
  }

  async leave(name) {
    const wish = this.#rooms.get(name);
    const left = await this.#call("leave", [name]);
    if (this.#rooms.get(name) === wish) this.#rooms.delete(name);
    return left;
  }

  close() {
    this.#end({ state: "closed", code: 1000, reason: "closed by the application" });
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

  #standInLine(options = { signal: this.#inLine.signal }) {
    this.#hold(this.#name, options, () => this.#lead()).catch(() => {
      // Either it no longer waits, or another tab took the lock since this one did not answer.
      if (this.#term && !this.#closed.signal.aborted) this.#stepDown();
    });
  }

  #lead() {
    const ended = new AbortController();
    const term = { tabs: new Map(), ended, status: {} };
    this.#term = term;
    for (const name of this.#rooms.keys()) term.tabs.set(name, new Set([this.#id]));
    this.#channel.postMessage({ lead: this.#id });
    const emit = (event, everyone) => {
      if (this.#term !== term) return;
      if (event.type === "state") term.status = event;
      this.#channel.postMessage({ event, everyone });
      this.#take(event, everyone);
    };
    term.engine = new Engine(this.#options, emit, { cursor: this.cursor, rooms: this.#rooms, repeats: this.#repeats });
    this.#follow(this.#id);
  }

  #stepDown() {
    const term = this.#term;
    this.#term = undefined;
    term.ended.abort();
    term.engine.close();
    this.#inLine = new AbortController();
    this.#standInLine();
  }

  #hear({ to, who, lead, leader, hello, call, event, everyone, ...rest }) {
    if (this.#closed.signal.aborted || (to ?? this.#id) !== this.#id) return;
    if (who && this.#term) this.#channel.postMessage({ lead: this.#id, to: who });
    if (lead) {
      if (this.#term) this.#stepDown();
      this.#follow(lead);
    }
    if (event && !this.#term) {
      if (event.type === "connected") this.#repeats.connected();
      if (!this.#repeats.has(event)) this.#take(event, everyone);
    }
    if (leader && leader === this.#id && this.#term) {
      if (hello) this.#welcome(hello, rest);
      else this.#serve(call, rest);
    }
    if (to && call) this.#answered(call, rest);
  }

  /** As a tab: whom to ask from now on. What an earlier leader had sent may have arrived or not; the rest goes again. */
  #follow(leader) {
    this.#leaderSeenAt = Date.now();
    if (leader === this.#leader || !this.#present) return;
    this.#leader = leader;
    const hello = { hello: this.#id, leader, rooms: [...this.#rooms], cursor: this.cursor };
    if (!this.#term) this.#channel.postMessage(hello);
    for (const [call, { sent }] of [...this.#calls]) {
      if (sent) this.#answered(call, { error: ["connection_lost", "the connection was lost before the answer came"] });
      else this.#ask(call);
    }
  }

  #call(op, args) {
    if (this.#closed.signal.aborted) return Promise.reject(new TidingsError("closed", "the client is closed"));
    return new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      this.#calls.set(call, { op, args, resolve, reject });
      this.#ask(call);
    });
  }

  #ask(call) {
    const { op, args } = this.#calls.get(call);
    if (this.#term) this.#serve(call, { from: this.#id, op, args });
    else if (this.#leader) this.#channel.postMessage({ call, leader: this.#leader, from: this.#id, op, args });
  }

  #answered(call, { sent, answer, error }) {
    const waiting = this.#calls.get(call);
    if (!waiting) return;
    waiting.sent ||= sent;
    if (sent) return;
    this.#calls.delete(call);
    if (error) waiting.reject(new TidingsError(...error));
    else waiting.resolve(answer);
  }

  /** What came from the server: for the application when it is about a room where this tab is, or about none. */
  #take(event, everyone) {
    const name = roomOf(event);
    if (event.cursor) this.cursor = event.cursor;
    if (event.payload?.state === "closed" && event.type === "state") return this.#end(event.payload);
    if (name === undefined || everyone || this.#rooms.has(name)) this.#emit(event);
    if (event.type === "room:left") this.#rooms.delete(name);
  }

  #end(status) {
    if (this.#closed.signal.aborted) return;
    const term = this.#term;
    this.#term = undefined;
    term?.ended.abort();
    term?.engine.close();
    this.#inLine.abort();
    this.#closed.abort();
    this.#channel.close();
    this.#emit({ type: "state", payload: status });
    const error = new TidingsError("closed", `the client is closed: ${status.code} ${status.reason}`);
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
  }

  /** As the leader: a tab presents itself. */
  #welcome(tab, { rooms, cursor }) {
    const term = this.#term;
    for (const [name, { presence }] of rooms) {
      this.#tabsIn(name).add(tab);
      term.engine.want(name, { presence, cursor });
    }
    this.#channel.postMessage({ to: tab, event: term.status });
    const gone = () => {
      for (const name of term.tabs.keys()) this.#leave(name, tab).catch(() => {});
    };
    navigator.locks.request(`${this.#name} ${tab}`, { signal: term.ended.signal }, gone).catch(() => {});
  }

  /** As the leader: does what a tab asks for. */
  #serve(call, { from, op, args }) {
    const term = this.#term;
    const reply = (result) => {
      if (term !== this.#term) return;
      if (from === this.#id) this.#answered(call, result);
      else this.#channel.postMessage({ to: from, call, ...result });
    };
    this.#do(op, args, from, () => reply({ sent: true })).then(
      (answer) => reply({ answer }),
      (error) => reply({ error: [error.code ?? "internal", error.message] }),
    );
  }

  async #do(op, [name, ...more], from, onSent) {
    if (op === "send") return this.#term.engine.send(name, ...more, onSent);
    if (op === "leave") return this.#leave(name, from);
    this.#tabsIn(name).add(from);
    try {
      return await this.#term.engine.join(name, ...more);
    } catch (error) {
      this.#term?.tabs.get(name)?.delete(from);
      throw error;
    }
  }

  /** The last one out leaves at the server. */
  async #leave(name, tab) {
    const tabs = this.#tabsIn(name);
    const was = tabs.delete(tab);
    if (was && !tabs.size) return this.#term.engine.leave(name);
    const left = { type: "room:left", payload: { roomId: name } };
    if (tab === this.#id) this.#take(left);
    else if (was) this.#channel.postMessage({ to: tab, event: left });
    return left;
  }

  #tabsIn(name) {
    const { tabs } = this.#term;
    if (!tabs.has(name)) tabs.set(name, new Set());
    return tabs.get(name);
  }

  /** A leader that does not answer a tab on the screen is suspended by its browser: this tab takes over. */
  #check() {
    if (this.#term || !this.#present || globalThis.document?.hidden) return;
    const askedAt = Date.now();
    this.#channel.postMessage({ who: this.#id });
    setTimeout(() => {
      if (this.#term || this.#leaderSeenAt >= askedAt || this.#closed.signal.aborted) return;
      if (globalThis.document?.hidden) return;
      this.#inLine.abort();
      this.#standInLine({ steal: true });
    }, ANSWER_MS);
  }
}

/** How often a tab on the screen looks for its leader, and how long that may take to answer. */
const CHECK_MS = 10_000;
const ANSWER_MS = 5_000;
