// The demo page where it is less than well: full rooms, phones, lost servers, servers that give no tokens.
// node states.mjs http://127.0.0.1:PORT http://127.0.0.1:WITHOUT_DEMO BINARY 127.0.0.1:FREE_PORT FOLDER CHROMIUM

import { spawn } from "node:child_process";
import { once } from "node:events";
import WebSocket from "ws";
import { isAccessible, launch } from "./chromium.mjs";
import { check, main, token, within } from "./lib.mjs";

const [base, withoutDemo, binary, listen, folder, executablePath] = process.argv.slice(2);
const PHONE = { width: 390, height: 844 };
const NAMES = 94;
const LONG = "a-very-long-name-".repeat(3) + "of-a-user";

const open = async (browser, address, viewport) => {
  const page = await browser.newPage({ viewport });
  page.setDefaultTimeout(15_000);
  await page.goto(address);
  return page;
};
const isOpen = (page) => page.waitForSelector('#chat-state[data-state="open"]');

const connect = async (user) => {
  const { token } = await (await fetch(`${base}/demo/token?user=${user}`)).json();
  const socket = new WebSocket(`${base.replace("http", "ws")}/ws?token=${token}&room=lobby`);
  await within(new Promise((resolve) => socket.once("message", resolve)), "connected");
  return socket;
};

/** Waits until the log is at its newest line. */
const newest = (page) => page.waitForFunction(() => {
  const log = document.getElementById("chat-log");
  return log.scrollHeight > log.clientHeight && log.scrollHeight - log.scrollTop - log.clientHeight < 2;
});

async function entering(browser) {
  const page = await open(browser, base, PHONE);
  await page.waitForSelector("#name");
  await isAccessible(page, "states: who are you");
  await page.fill("#name", LONG);
  await page.press("#name", "Enter");
  await isOpen(page);
  const focused = await page.evaluate("document.activeElement.id");
  check("states: a user that has entered can write at once", focused === "chat-text", focused);
  const title = await page.evaluate(() => {
    const { top, bottom } = document.querySelector(".top h1").getBoundingClientRect();
    const button = document.getElementById("switch").getBoundingClientRect();
    return { lines: (bottom - top) / parseFloat(getComputedStyle(document.querySelector(".top h1")).lineHeight),
      right: button.right, wide: document.documentElement.scrollWidth };
  });
  check("states: a long name leaves the title on its line", title.lines < 1.5 && title.right <= 390 && title.wide <= 390, title);
  return page;
}

async function phone(page) {
  const sockets = await Promise.all(Array.from({ length: NAMES }, (_, n) => connect(`colleague-${n}`)));
  await page.waitForFunction((many) => document.getElementById("here").textContent.split(", ").length > many, NAMES);
  for (let n = 0; n < 30; n += 1) {
    const payload = { roomId: "lobby", data: { text: `line ${n}` } };
    sockets[0].send(JSON.stringify({ type: "room:message", id: String(n), payload }));
  }
  await page.waitForSelector('#chat-log .text:text-is("line 29")');
  await newest(page);
  const high = await page.evaluate('document.getElementById("chat-log").clientHeight');
  check("states: a full room leaves a phone its messages", high > 400, high);
  await isAccessible(page, "states: a full room");
  const here = await page.textContent("#here");
  check("states: and the list of names says how many", here.startsWith(`${here.split(", ").length}: `), here);
  await page.screenshot({ path: `${folder}/page-full.png` });

  await page.setViewportSize({ ...PHONE, height: 500 });
  await newest(page);
  check("states: a page that becomes smaller stays at the newest message", true);
  await page.screenshot({ path: `${folder}/page-keyboard.png` });
  await page.setViewportSize(PHONE);
  await page.evaluate(() => {
    Object.defineProperty(visualViewport, "height", { value: 480, configurable: true });
    visualViewport.dispatchEvent(new Event("resize"));
  });
  await page.waitForFunction(() => document.getElementById("chat-form").getBoundingClientRect().bottom <= 480);
  await newest(page);
  check("states: and so does one with a keyboard over it", true);
  await page.evaluate(() => {
    document.getElementById("chat-log").scrollTop = 0;
    return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  });
  await page.evaluate(() => {
    delete visualViewport.height;
    visualViewport.dispatchEvent(new Event("resize"));
    return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  });
  const top = await page.evaluate('document.getElementById("chat-log").scrollTop');
  check("states: a user who reads further up stays there", top === 0, top);
  sockets.forEach((socket) => socket.terminate());
}

async function loss(browser) {
  const start = async () => {
    const server = spawn(binary, ["--listen", listen, "--admin-listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "ignore"] });
    await within(once(server.stdout, "data"), "the server");
    return server;
  };
  let server = await start();
  try {
    const page = await open(browser, `http://${listen}/?user=dee`, { width: 1280, height: 800 });
    await isOpen(page);
    const notes = () => page.locator("#chat-log .note").allTextContents();
    server.kill("SIGKILL");
    await page.waitForSelector('#chat-log .note:text("Connection lost")');
    await page.fill("#chat-text", "Is anybody there?");
    await page.press("#chat-text", "Enter");
    await page.waitForSelector('#chat-state[data-state="waiting"]');
    await isAccessible(page, "states: a lost server");
    await page.screenshot({ path: `${folder}/page-lost.png` });
    server = await start();
    await isOpen(page);
    await page.waitForSelector('#chat-log .note:text("may be missing here")');
    await page.waitForSelector("#chat-log li.mine:not(.pending)");
    const told = await notes();
    check("states: one loss is one note", told.length === 1 && told[0].startsWith("Back after"), told);
    await isAccessible(page, "states: a server that is back");
  } finally {
    server.kill("SIGKILL");
  }
}

async function tokens(browser) {
  const page = await open(browser, `${withoutDemo}/?user=ann`, PHONE);
  await page.waitForSelector("#token-form");
  const text = await page.textContent("#token-form");
  check("states: without demo mode the page says what to do",
    ["--jwt-hs256-secret", "--jwt-jwks", "--open-rooms", "lobby"].every((flag) => text.includes(flag)), text);
  check("states: and shows no chat that cannot work", !(await page.isVisible("#panes")));
  await page.fill("#token", "nonsense");
  await page.press("#token", "Enter");
  await page.waitForSelector("#token-answer:not(:empty)");
  await isAccessible(page, "states: without demo mode");
  await page.screenshot({ path: `${folder}/page-token.png` });
  await page.fill("#token", token("zoë"));
  await page.press("#token", "Enter");
  await isOpen(page);
  const name = await page.textContent("#who-name");
  check("states: a token that is pasted opens the chat", name === "zoë", name);

  await page.goto(withoutDemo);
  await page.fill("#token", token("zoë", "another-secret"));
  await page.press("#token", "Enter");
  await page.waitForSelector('#chat-state[data-state="closed"]');
  await page.waitForSelector('#chat-log .note:text("The connection ended")');
  await page.fill("#chat-text", "Hello?");
  await page.press("#chat-text", "Enter");
  await page.waitForSelector("#chat-log li.failed .failure");
  const notes = await page.locator("#chat-log .note").allTextContents();
  check("states: one that is no good is told once", notes.length === 1, notes);
  await isAccessible(page, "states: a connection that ended");
}

await main("states", async () => {
  const browser = await launch(executablePath);
  try {
    await phone(await entering(browser));
    await loss(browser);
    await tokens(browser);
  } finally {
    await browser.close();
  }
});
