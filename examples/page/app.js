// The demo page: a room over a WebSocket on the left, notifications over an event stream on the right.

import { connect } from "./tidings-client.js";

const ROOM = "lobby";
const MOST_LINES = 300;
const OVER = { websocket: "WebSocket, both ways", sse: "Server-Sent Events" };

const $ = (id) => document.getElementById(id);

let user = "";
/** What the user has pasted where the server gives no tokens. */
let pasted;
let chat;
/** Lines of ours that were not heard back yet: {text, line}. */
const sent = [];
/** Who else is in the room, when the server tells. */
const here = new Set();
/** What counts the seconds of a wait, by pane. */
const countdowns = {};

start();

async function start() {
  $("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("name").value.trim();
    if (!name) return;
    history.replaceState(null, "", `?user=${encodeURIComponent(name)}`);
    enter(name);
    $("chat-text").focus();
  });
  $("token-form").addEventListener("submit", onToken);
  $("switch").addEventListener("click", () => {
    location.assign(location.pathname);
  });
  $("chat-form").addEventListener("submit", onSay);
  $("publish-form").addEventListener("submit", onPublish);
  $("scope").addEventListener("change", showTarget);
  for (const tab of $("tabs").querySelectorAll("button")) {
    tab.addEventListener("click", () => showPane(tab.dataset.pane));
  }
  visualViewport.addEventListener("resize", fit);
  for (const pane of ["chat", "feed"]) keepAtNewest($(`${pane}-log`));

  const named = (new URLSearchParams(location.search).get("user") ?? "").trim();
  const hasTokens = await givesTokens();
  if (named && hasTokens) return enter(named);
  $("welcome").hidden = false;
  $(hasTokens ? "name-form" : "token-form").hidden = false;
  $(hasTokens ? "name" : "token").focus();
}

/** Only in demo mode; a server that is away may be in it. */
async function givesTokens() {
  try {
    const { status } = await fetch("/demo/token?user=anyone", { cache: "no-store" });
    return status !== 404 && status !== 403;
  } catch {
    return true;
  }
}

function onToken(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  try {
    const claims = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    const { sub } = JSON.parse(new TextDecoder().decode(Uint8Array.from(claims, (byte) => byte.charCodeAt())));
    if (typeof sub !== "string" || !sub) throw new Error("no `sub`");
    pasted = token;
    enter(sub);
    $("chat-text").focus();
  } catch {
    $("token-answer").textContent = "This is no JSON Web Token with a `sub`: three parts with dots between.";
  }
}

function enter(name) {
  user = name;
  document.title = `${name} · Tidings demo`;
  $("who-name").textContent = name;
  $("target").value = name;
  $("welcome").hidden = true;
  for (const id of ["who", "tabs", "panes"]) $(id).hidden = false;
  fit();
  openChat();
  openFeed();
}

async function getToken() {
  if (pasted) return pasted;
  const answer = await fetch(`/demo/token?user=${encodeURIComponent(user)}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`no token: HTTP ${answer.status}`);
  return (await answer.json()).token;
}

/** A client of this page whose state, reconnects and gaps are shown in a pane. */
function open(pane, options) {
  const t = connect("/ws", { token: getToken, rooms: [ROOM], ...options });
  let lostAt = 0;
  let reconnects = 0;
  let back = "";
  let note;
  // What comes of one loss is told by one note, which moves to where the log goes on.
  const tell = (text, bad) => {
    note?.remove();
    note = addNote(pane, text, bad);
  };
  t.on("state", (status) => {
    showState(pane, status);
    if (status.state === "waiting" && !lostAt) {
      lostAt = Date.now();
      note = undefined;
      tell(`Connection lost: ${reasonOf(status)}`, true);
    }
    if (status.state !== "closed") return;
    if (!lostAt) note = undefined;
    tell(`The connection ended: ${reasonOf(status)}`, true);
  });
  t.on("connected", ({ recovered }) => {
    if (!lostAt) return;
    reconnects += 1;
    const seconds = Math.max(1, Math.round((Date.now() - lostAt) / 1000));
    back = `Back after ${seconds} s`;
    tell(`${back}, ${recovered ? "nothing was missed" : "something may have been missed"}`, !recovered);
    lostAt = 0;
    $(`${pane}-count`).textContent = reconnects === 1 ? "1 reconnect" : `${reconnects} reconnects`;
  });
  t.on("gap", ({ reason }) => {
    const follows = note && note === $(`${pane}-log`).lastElementChild;
    if (!follows) {
      note = undefined;
      back = "";
    }
    tell(`${back ? `${back}, something` : "Something"} may be missing here (${reason})`, true);
  });
  t.on("error", ({ code, message }) => addNote(pane, `${code}: ${message}`, true));
  return t;
}

const reasonOf = ({ code, reason }) => (reason ? `${code} ${reason}` : String(code));

/* Chat over a WebSocket */

function openChat() {
  chat = open("chat", { presence: true });
  const room = chat.room(ROOM);
  room.on("room:joined", ({ members = [] }) => showHere(() => [here.clear(), ...members.map((id) => here.add(id))]));
  room.on("presence:joined", ({ userId }) => showHere(() => here.add(userId)));
  room.on("presence:left", ({ userId }) => showHere(() => here.delete(userId)));
  room.on("room:left", ({ reason }) => addNote("chat", `You left ${ROOM}${reason ? `: ${reason}` : ""}`, true));
  room.on("room:message", ({ userId, data }) => onRoomMessage(userId, asText(data)));
}

function onRoomMessage(userId, text) {
  // Ours is on the screen since it was said: hearing it back only confirms it.
  const own = userId === user ? sent.find((one) => one.text === text) : undefined;
  if (own) {
    own.line.classList.remove("pending", "failed");
    own.line.querySelector(".failure")?.remove();
    sent.splice(sent.indexOf(own), 1);
  } else {
    addLine("chat", userId, text, userId === user ? "mine" : "");
  }
}

async function onSay(event) {
  event.preventDefault();
  const text = $("chat-text").value.trim();
  if (!text) return;
  const one = { text, line: addLine("chat", user, text, "mine pending") };
  sent.push(one);
  $("chat-text").value = "";
  $("chat-text").focus();
  try {
    // While there is no connection it waits for one.
    await chat.send("room:message", { roomId: ROOM, data: { text } });
  } catch ({ code, message }) {
    const unsure = code === "connection_lost" || code === "timeout";
    if (!sent.includes(one)) return;
    if (!unsure) sent.splice(sent.indexOf(one), 1);
    one.line.classList.replace("pending", "failed");
    const failure = document.createElement("span");
    failure.className = "failure";
    failure.textContent = unsure ? "may not have arrived" : message;
    one.line.querySelector(".head").append(failure);
  }
}

function showHere(change) {
  change();
  const count = here.size > 9 ? `${here.size}: ` : "";
  $("here").textContent = count + [...here].sort().join(", ");
  $("here").hidden = here.size === 0;
}

/* Notifications over an event stream */

function openFeed() {
  open("feed", { transport: "sse" }).on("notification", (payload) =>
    addLine("feed", "notification", asText(payload)),
  );
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

function showState(pane, status) {
  const label = $(`${pane}-state`);
  clearInterval(countdowns[pane]);
  label.dataset.state = status.state;
  label.textContent = status.state;
  label.title = status.code ? reasonOf(status) : "";
  if (status.transport) $(`${pane}-over`).textContent = OVER[status.transport];
  if (status.state !== "waiting") return;
  const at = Date.now() + status.retryInMs;
  const count = () => {
    label.textContent = `again in ${Math.max(0, Math.ceil((at - Date.now()) / 1000))} s`;
  };
  count();
  countdowns[pane] = setInterval(count, 500);
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
  return line;
}

function append(pane, line, always) {
  const log = $(`${pane}-log`);
  // A user that has scrolled up to read is left there.
  const follow = always || log.dataset.reading === undefined;
  log.append(line);
  while (log.children.length > MOST_LINES) log.firstElementChild.remove();
  if (follow) log.scrollTop = log.scrollHeight;
}

/** A log that becomes smaller or is shown again stays at its newest line, unless its user reads further up. */
function keepAtNewest(log) {
  log.addEventListener("scroll", () => {
    const away = log.scrollHeight - log.scrollTop - log.clientHeight;
    if (away < 60) delete log.dataset.reading;
    else log.dataset.reading = "";
  });
  new ResizeObserver(() => {
    if (log.dataset.reading === undefined) log.scrollTop = log.scrollHeight;
  }).observe(log);
}

/** Some phones lay their keyboard over the page; a page that is zoomed in is left as it is. */
function fit() {
  if ($("panes").hidden || visualViewport.scale > 1) return;
  document.body.style.height = `${visualViewport.height}px`;
  scrollTo(0, 0);
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
}

function markUnread(pane, unread) {
  $("tabs").querySelector(`[data-pane="${pane}"] .unread`).hidden = !unread;
}
