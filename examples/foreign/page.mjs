// The demo page in Chromium: node page.mjs http://127.0.0.1:PORT PUBLISH_KEY FOLDER CHROMIUM

import { isAccessible, launch } from "./chromium.mjs";
import { check, main } from "./lib.mjs";

const [base, key, folder, executablePath] = process.argv.slice(2);

const open = async (browser, user, viewport, complaints) => {
  const page = await browser.newPage({ viewport });
  page.setDefaultTimeout(15_000);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  await page.goto(`${base}/?user=${user}`);
  for (const pane of ["chat", "feed"]) {
    // A phone shows one pane at a time.
    const state = pane === "chat" || viewport.width > 600 ? "visible" : "attached";
    await page.waitForSelector(`#${pane}-state[data-state="open"]`, { state });
  }
  return page;
};

await main("page", async () => {
  const browser = await launch(executablePath);
  try {
    const complaints = [];
    const ann = await open(browser, "ann", { width: 1280, height: 800 }, complaints);
    check("page: both panes are open", true);
    const bob = await open(browser, "bob", { width: 390, height: 844 }, complaints);

    const line = (pane, text) => `#${pane}-log li:not(.pending):not(.failed) .text:text-is("${text}")`;
    await ann.fill("#chat-text", "Is the parcel out?");
    await ann.click("#chat-send");
    await ann.waitForSelector(line("chat", "Is the parcel out?"));
    check("page: what one says is confirmed", true);
    await bob.waitForSelector(line("chat", "Is the parcel out?"));
    check("page: another user sees it", true);
    await bob.fill("#chat-text", "It left an hour ago.");
    await bob.press("#chat-text", "Enter");
    await ann.waitForSelector(line("chat", "It left an hour ago."));
    check("page: and answers", true);
    const said = await ann.locator("#chat-log .text").count();
    check("page: nothing is shown twice", said === 2, said);

    await ann.click("#publish > summary");
    await ann.fill("#key", "wrong");
    await ann.fill("#text", "Your order has shipped");
    const unauthorised = ann.waitForEvent("console", (entry) => entry.text().includes("401"));
    await ann.click("#publish-send");
    await ann.waitForSelector("#answer.bad");
    await unauthorised;
    await isAccessible(ann, "page: with an error");
    check("page: a wrong key is told", complaints.length === 1, complaints);
    complaints.length = 0;
    await ann.fill("#key", key);
    await ann.click("#publish-send");
    await ann.waitForSelector(line("feed", "Your order has shipped"));
    check("page: a notification arrives", true);
    await ann.selectOption("#scope", "everyone");
    await ann.fill("#text", "Maintenance at noon");
    await ann.click("#publish-send");
    await ann.waitForSelector(line("feed", "Maintenance at noon"));
    await bob.waitForSelector('[data-pane="feed"] .unread', { state: "visible" });
    check("page: one to everyone arrives at the phone", true);

    await isAccessible(ann, "page: in use");
    await isAccessible(bob, "page: on a phone");
    await ann.screenshot({ path: `${folder}/page.png` });
    await bob.screenshot({ path: `${folder}/page-phone.png` });
    const wide = await bob.evaluate("document.documentElement.scrollWidth");
    check("page: fits a phone", wide <= 390, wide);
    await bob.click('#tabs [data-pane="feed"]');
    await bob.waitForSelector(line("feed", "Maintenance at noon"));
    check("page: the other tab shows the notification", true);
    await isAccessible(bob, "page: on a phone, the other tab");
    const leaked = await bob.locator(line("feed", "Your order has shipped")).count();
    check("page: but not another user's", leaked === 0, leaked);
    const closed = await ann.evaluate(async () => {
      const { token } = await (await fetch("/demo/token?user=ann")).json();
      const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws?token=${token}`);
      return new Promise((resolve) => {
        socket.onopen = () => socket.send("x".repeat(200_000));
        socket.onclose = ({ code }) => resolve(code);
      });
    });
    check("page: a browser is told that its message is too big", closed === 1009, closed);
    check("page: no error in the console", complaints.length === 0, complaints);
  } finally {
    await browser.close();
  }
});
