"use strict";

// The demo page: a room over WebSocket on the left, notifications over EventSource on the right.

const ROOM = "lobby";
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
/** A connection that held this long starts the backoff anew. */
const STABLE_MS = 5_000;
/** How long the answer to a message of ours may take. */
const ANSWER_MS = 10_000;
const MOST_LINES = 300;
/** After these close codes a client does not come back. */
const FINAL_CODES = new Set([1000, 1002, 1003, 1007, 1009, 4002, 4009]);

const $ = (id) => document.getElementById(id);

let user = "";

start();

function start() {
  $("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("name").value.trim();
    if (name) enter(name);
  });
  $("switch").addEventListener("click", () => {
    location.assign(location.pathname);
  });
  $("chat-form").addEventListener("submit", onSay);
  $("publish-form").addEventListener("submit", onPublish);
  $("scope").addEventListener("change", showTarget);
  for (const tab of $("tabs").querySelectorAll("button")) {
    tab.addEventListener("click", () => showPane(tab.dataset.pane));
  }

  const named = (new URLSearchParams(location.search).get("user") ?? "").trim();
  if (named) {
    enter(named);
  } else {
    $("welcome").hidden = false;
    $("name").focus();
  }
}

function enter(name) {
  user = name;
  history.replaceState(null, "", `?user=${encodeURIComponent(name)}`);
  document.title = `${name} · Tidings demo`;
  $("who-name").textContent = name;
  $("target").value = name;
  $("welcome").hidden = true;
  for (const id of ["who", "tabs", "panes"]) $(id).hidden = false;
  openChat();
  openFeed();
}

async function getToken() {
  const answer = await fetch(`/demo/token?user=${encodeURIComponent(user)}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`no token: HTTP ${answer.status}`);
  return (await answer.json()).token;
}

/** Waits longer each time, with a random part so that not all clients come at once. */
function makeBackoff(again) {
  let delay = FIRST_DELAY_MS;
  let stable = 0;
  return {
    opened() {
      clearTimeout(stable);
      stable = setTimeout(() => {
        delay = FIRST_DELAY_MS;
      }, STABLE_MS);
    },
    retry(afterMs) {
      clearTimeout(stable);
      const wait = afterMs ?? delay * (0.5 + Math.random() / 2);
      delay = Math.min(delay * 2, LONGEST_DELAY_MS);
      setTimeout(again, wait);
    },
    stop() {
      clearTimeout(stable);
    },
  };
}

/* Chat over WebSocket */

const chat = {
  socket: null,
  cursor: null,
  nextId: 1,
  /** Ours that were not heard back yet: {id, text, line, timer}. */
  sent: [],
  /** Told by a node that goes away. */
  reconnectAfterMs: undefined,
  backoff: makeBackoff(openChat),
};

async function openChat() {
  setState("chat", "connecting");
  let token;
  try {
    token = await getToken();
  } catch (error) {
    setState("chat", "connecting", error.message);
    chat.backoff.retry();
    return;
  }

  const url = new URL("/ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("token", token);
  url.searchParams.set("room", ROOM);
  if (chat.cursor) url.searchParams.set("cursor", chat.cursor);

  const socket = new WebSocket(url);
  chat.socket = socket;
  socket.addEventListener("message", (event) => onChatMessage(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => onChatClosed(event));
}

function onChatClosed({ code, reason }) {
  chat.socket = null;
  const why = reason ? `${code} ${reason}` : String(code);
  for (const { id } of [...chat.sent]) settle(id, "not sent");
  if (FINAL_CODES.has(code)) {
    chat.backoff.stop();
    setState("chat", "closed", why);
    addNote("chat", `The connection ended: ${why}`, true);
    return;
  }
  setState("chat", "connecting", why);
  chat.backoff.retry(chat.reconnectAfterMs);
  chat.reconnectAfterMs = undefined;
}

function onChatMessage({ type, id, cursor, payload }) {
  if (cursor) chat.cursor = cursor;
  switch (type) {
    case "connected":
      // Not at the socket's own `open`: a token that is no good is refused after it.
      setState("chat", "open");
      chat.backoff.opened();
      break;
    case "room:joined":
      addNote("chat", payload.recovered ? `Back in ${payload.roomId}` : `You are in ${payload.roomId}`);
      break;
    case "room:left":
      addNote("chat", `You left ${payload.roomId}${payload.reason ? `: ${payload.reason}` : ""}`, true);
      break;
    case "room:message":
      onRoomMessage(payload);
      break;
    case "error":
      if (!settle(id, payload.message)) addNote("chat", `${payload.code}: ${payload.message}`, true);
      break;
    case "gap":
      addNote("chat", `Something may be missing here (${payload.reason})`, true);
      break;
    case "server:draining":
      chat.reconnectAfterMs = payload.reconnectAfterMs;
      break;
    default:
      // `ok`, or a handler's own reply.
      if (id !== undefined) settle(id);
  }
}

function onRoomMessage({ roomId, userId, data }) {
  if (roomId && roomId !== ROOM) return;
  const text = asText(data);
  // Ours is on the screen since it was sent: hearing it back only confirms it.
  const own = userId === user ? chat.sent.find((sent) => sent.text === text) : undefined;
  if (own) {
    own.line.classList.remove("pending");
    forget(own);
    return;
  }
  addLine("chat", userId, text, userId === user ? "mine" : "");
}

function onSay(event) {
  event.preventDefault();
  const text = $("chat-text").value.trim();
  if (!text || chat.socket?.readyState !== WebSocket.OPEN) return;
  const id = chat.nextId++;
  const message = { type: "room:message", payload: { roomId: ROOM, data: { text } }, id };
  chat.socket.send(JSON.stringify(message));
  const line = addLine("chat", user, text, "mine pending");
  const timer = setTimeout(() => settle(id, "no answer"), ANSWER_MS);
  chat.sent.push({ id, text, line, timer });
  $("chat-text").value = "";
  $("chat-text").focus();
}

/** The server answered our message; without a failure it may still be heard back. */
function settle(id, failure) {
  const sent = chat.sent.find((one) => one.id === id);
  if (!sent) return false;
  const waits = sent.line.classList.contains("pending");
  sent.line.classList.remove("pending");
  if (!failure) return true;
  if (waits) {
    sent.line.classList.add("failed");
    sent.line.querySelector(".head").append(` ${failure}`);
  }
  forget(sent);
  return true;
}

function forget(sent) {
  clearTimeout(sent.timer);
  chat.sent.splice(chat.sent.indexOf(sent), 1);
}

/* Notifications over EventSource */

const feed = { cursor: null, greeted: false, backoff: makeBackoff(openFeed) };

async function openFeed() {
  setState("feed", "connecting");
  let token;
  try {
    token = await getToken();
  } catch (error) {
    setState("feed", "connecting", error.message);
    feed.backoff.retry();
    return;
  }

  const url = new URL("/events", location.href);
  url.searchParams.set("token", token);
  url.searchParams.set("room", ROOM);
  if (feed.cursor) url.searchParams.set("cursor", feed.cursor);

  const source = new EventSource(url);
  const on = (type, handle) =>
    source.addEventListener(type, (event) => {
      if (event.lastEventId) feed.cursor = event.lastEventId;
      handle(JSON.parse(event.data));
    });

  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      // A status other than 200, such as 401 for a token of yesterday: a new one and a new source.
      setState("feed", "connecting", "refused");
      feed.backoff.retry();
    } else {
      setState("feed", "connecting");
    }
  });
  on("connected", ({ userId }) => {
    setState("feed", "open");
    feed.backoff.opened();
    if (!feed.greeted) addNote("feed", `Listening for ${userId}`);
    feed.greeted = true;
  });
  on("notification", (payload) => addLine("feed", "notification", asText(payload)));
  on("server:error", ({ code, message }) => addNote("feed", `${code}: ${message}`, true));
  on("gap", ({ reason }) => addNote("feed", `Something may be missing here (${reason})`, true));
  on("close", ({ code, reason, reconnectAfterMs }) => {
    const why = `${code} ${reason}`;
    source.close();
    if (FINAL_CODES.has(code)) {
      feed.backoff.stop();
      setState("feed", "closed", why);
      addNote("feed", `The connection ended: ${why}`, true);
    } else {
      setState("feed", "connecting", why);
      feed.backoff.retry(reconnectAfterMs);
    }
  });
}

/* Publishing over HTTP */

function showTarget() {
  const scope = $("scope").value;
  const field = $("target");
  $("target-field").hidden = scope === "everyone";
  field.disabled = scope === "everyone";
  $("target-label").textContent = scope === "room" ? "Room" : "User";
  field.value = scope === "room" ? ROOM : user;
}

async function onPublish(event) {
  event.preventDefault();
  const scope = $("scope").value;
  const to = scope === "everyone" ? { everyone: true } : { [scope]: $("target").value.trim() };
  const publication = { to, type: "notification", payload: { text: $("text").value } };
  const button = $("publish-send");
  button.disabled = true;
  try {
    const answer = await fetch("/publish", {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Authorization: `Bearer ${$("key").value.trim()}`,
      },
      body: JSON.stringify(publication),
    });
    if (answer.status === 401) throw new Error("This publish key is not accepted.");
    if (!answer.ok) throw new Error(`Refused: HTTP ${answer.status}`);
    const [receipt] = await answer.json();
    if (receipt?.error) throw new Error(`${receipt.error.code}: ${receipt.error.message}`);
    showAnswer("Published.");
    $("text").value = "";
  } catch (error) {
    showAnswer(error.message, true);
  } finally {
    button.disabled = false;
  }
}

function showAnswer(text, bad = false) {
  $("answer").textContent = text;
  $("answer").classList.toggle("bad", bad);
}

/* What is on the screen; text is only ever set as text */

function setState(pane, state, why = "") {
  const label = $(`${pane}-state`);
  label.dataset.state = state;
  label.textContent = state;
  label.title = why;
  if (pane === "chat") $("chat-send").disabled = state !== "open";
}

function addLine(pane, from, text, classes = "") {
  const line = document.createElement("li");
  line.className = classes;
  const head = document.createElement("div");
  head.className = "head";
  const name = document.createElement("b");
  name.textContent = from;
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  head.append(name, time);
  const body = document.createElement("div");
  body.className = "text";
  body.textContent = text;
  line.append(head, body);
  append(pane, line, classes.includes("mine"));
  if ($("panes").dataset.pane !== pane) markUnread(pane, true);
  return line;
}

function addNote(pane, text, bad = false) {
  const line = document.createElement("li");
  line.className = bad ? "note bad" : "note";
  line.textContent = text;
  append(pane, line, false);
}

function append(pane, line, always) {
  const log = $(`${pane}-log`);
  // Who has scrolled up to read is left there.
  const follow = always || log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(line);
  while (log.children.length > MOST_LINES) log.firstElementChild.remove();
  if (follow) log.scrollTop = log.scrollHeight;
}

function asText(data) {
  if (typeof data === "string") return data;
  return typeof data?.text === "string" ? data.text : JSON.stringify(data);
}

function showPane(pane) {
  $("panes").dataset.pane = pane;
  for (const tab of $("tabs").querySelectorAll("button")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.pane === pane));
  }
  markUnread(pane, false);
  $(`${pane}-log`).scrollTop = $(`${pane}-log`).scrollHeight;
}

function markUnread(pane, unread) {
  $("tabs").querySelector(`[data-pane="${pane}"] .unread`).hidden = !unread;
}
