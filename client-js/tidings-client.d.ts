/** A message as the server sent it. */
export interface Message<Payload = unknown> {
  readonly type: string;
  readonly payload: Payload;
  /** The room it came to, when it came to one. */
  readonly room?: string;
  /** How far everything has been delivered with it. */
  readonly cursor?: string;
  readonly id?: string | number;
}

export type State = "connecting" | "open" | "waiting" | "closed";
export type Transport = "websocket" | "sse";

/** The payload of `state`. */
export interface Status {
  readonly state: State;
  /** While connecting and open: over what. */
  readonly transport?: Transport;
  /** While open: which connection it is for the server. */
  readonly clientId?: string;
  /** While waiting and closed: the close code, 1006 for a connection that broke, and the reason. */
  readonly code?: number;
  readonly reason?: string;
  /** While waiting: when the next attempt is, in milliseconds from now. */
  readonly retryInMs?: number;
  /** While waiting: the server said when to come back. */
  readonly advised?: boolean;
}

/** The events of the client itself and of the protocol, beside those of the application. */
export interface ProtocolEvents {
  /** Each change of the state. It comes from the client, not from the server. */
  state: Status;
  connected: {
    clientId: string;
    userId: string;
    tenantId?: string;
    /** Seconds since 1970. */
    expiresAt?: number;
    heartbeatMs: number;
    /** A cursor was given, and nothing is missing. */
    recovered: boolean;
  };
  "room:joined": {
    roomId: string;
    recovered: boolean;
    /** The users in the room, when presence was asked for. */
    members?: string[];
  };
  "room:left": { roomId: string; reason?: string };
  /** Something may be missing: fetch it again. Without `roomId`: of what is sent to the user. */
  gap: { roomId?: string; reason: "trimmed" | "epoch" | "outage" | "slow" | "cursor" };
  "presence:joined": { roomId: string; userId: string };
  "presence:left": { roomId: string; userId: string };
  "server:draining": { reconnectAfterMs: number };
  /** A token that is a function is asked for the next one; nothing else is to be done. */
  "token:expiring": { expiresAt: number };
  /** What went wrong without anybody waiting for the answer, such as a room of the options that was refused. */
  error: { code: string; message: string; roomId?: string };
}

type All<Events> = ProtocolEvents & Omit<Events, keyof ProtocolEvents>;
type AnyMessage<Events> = {
  [Type in keyof All<Events>]: Message<All<Events>[Type]> & { readonly type: Type };
}[keyof All<Events>];
type Listener<Payload> = (payload: Payload, message: Message<Payload>) => void;

export interface JoinOptions {
  /** Hear who is in the room, and who comes and goes. */
  presence?: boolean;
}

export interface SendOptions {
  /** How long the answer may take from when the message is sent, in milliseconds; on an event stream from when its POST begins. */
  timeoutMs?: number;
}

export interface Options {
  /** The token, or what gives one: it is asked for each attempt, and for each renewal. None: a cookie is. */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** Rooms to be in from the beginning. One that is refused is an `error` event. */
  rooms?: readonly string[];
  /** Hear who is in these rooms, and in those joined without saying. Default: `false`. */
  presence?: boolean;
  /** Where an earlier client was: {@link Client.cursor}. */
  cursor?: string;
  /**
   * One connection for all tabs of this origin that say the same here. Tabs of different users must say different
   * things, such as the user's id. Where the browser has no Web Locks (they need https) or refuses them (as in a
   * sandboxed frame), each tab connects by itself.
   */
  shared?: boolean | string;
  /** Always this one. Default: a WebSocket; after 3 that broke before `connected`, an event stream. */
  transport?: Transport;
  /** Where the event stream is, seen from the URL of the WebSocket. Default: `events`, its neighbour. */
  events?: string;
  /** How long an answer may take from when the message is sent, in milliseconds. Default: 10,000. */
  timeoutMs?: number;
  /** How many messages, and how many joins, may wait for a connection; the next is rejected with `queue_full`. Default: 100. */
  queue?: number;
  /** How often a WebSocket is tried beside an event stream, in milliseconds, give or take a quarter. Default: 300,000. */
  retryWebSocketMs?: number;
  /** For environments without their own. Default: `globalThis.WebSocket`; without one it is an event stream. */
  WebSocket?: (new (url: string) => any) | null;
  /** Default: `globalThis.fetch`. */
  fetch?: (url: string, init?: any) => Promise<any>;
}

export interface Room<Events extends object = Record<string, any>> {
  readonly name: string;
  /** Calls `listener` for events of this type in this room. Answers how to stop that. */
  on<Type extends keyof All<Events> & string>(type: Type, listener: Listener<All<Events>[Type]>): () => void;
  /** As {@link Client.join}. */
  join(options?: JoinOptions): Promise<Message<ProtocolEvents["room:joined"]>>;
  /** As {@link Client.leave}. */
  leave(): Promise<Message<ProtocolEvents["room:left"]>>;
}

export interface Client<Events extends object = Record<string, any>> extends AsyncIterable<AnyMessage<Events>> {
  readonly state: State;
  readonly transport?: Transport;
  readonly clientId?: string;
  /** The newest: a client that begins with it misses nothing that the server still keeps. */
  readonly cursor?: string;
  /** Calls `listener` for each event of this type. Answers how to stop that. */
  on<Type extends keyof All<Events> & string>(type: Type, listener: Listener<All<Events>[Type]>): () => void;
  /** The events of one room. It does not join it. */
  room(name: string): Room<Events>;
  /**
   * Sends a message and gives the server's answer: its reply, or `ok`. While there is no connection it waits for one.
   * Rejects with a {@link TidingsError}: `timeout` and `connection_lost` mean that nobody knows whether it arrived;
   * it is never sent twice. With `queue_full` and `closed` it was not sent. Other codes are the server's.
   */
  send<Answer = unknown>(type: string, payload?: unknown, options?: SendOptions): Promise<Message<Answer>>;
  /**
   * Joins a room and stays in it over reconnects, until `leave`, or until the server takes the client out. In a room
   * where it is already, asks again who is there. Rejects with the server's code, or with `left`, `timeout` (then it is
   * not in the room), `queue_full` or `closed`.
   */
  join(room: string, options?: JoinOptions): Promise<Message<ProtocolEvents["room:joined"]>>;
  /** Leaves a room. That is done too when the connection is lost before the answer. */
  leave(room: string): Promise<Message<ProtocolEvents["room:left"]>>;
  /** Tries at once while it waits for the next attempt, whatever the server or a proxy said about when. */
  reconnect(): Promise<void>;
  /** Ends the connection for good; what is waited for is rejected with `closed`. */
  close(): void;
}

/** Why something was not done; `code` is one of the server's or one of those named at {@link Client.send}. */
export class TidingsError extends Error {
  constructor(code: string, message?: string);
  readonly name: "TidingsError";
  readonly code: string;
}

/**
 * Connects, and comes back by itself.
 *
 * @param url The WebSocket, as `ws`, `wss`, `http` or `https`, or relative to the page. Default: `/ws`.
 *
 * ```ts
 * const t = connect<{ "room:message": { userId: string; data: { text: string } } }>("/ws", {
 *   token: async () => (await fetch("/token")).text(),
 *   rooms: ["lobby"],
 * });
 * t.room("lobby").on("room:message", ({ userId, data }) => show(userId, data.text));
 * await t.send("room:message", { roomId: "lobby", data: { text: "hello" } });
 * ```
 */
export function connect<Events extends object = Record<string, any>>(
  url?: string | URL,
  options?: Options,
): Client<Events>;
