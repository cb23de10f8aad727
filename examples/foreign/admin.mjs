// The administrators' page in Chromium: node admin.mjs http://127.0.0.1:PORT http://127.0.0.1:ADMIN FOLDER CHROMIUM

import WebSocket from "ws";
import { isAccessible, launch } from "./chromium.mjs";
import { check, main, within } from "./lib.mjs";

const [base, admin, folder, executablePath] = process.argv.slice(2);

const connect = async (user, room) => {
  const { token } = await (await fetch(`${base}/demo/token?user=${encodeURIComponent(user)}`)).json();
  const socket = new WebSocket(`${base.replace("http", "ws")}/ws?token=${token}&room=${room}`);
  await within(new Promise((resolve) => socket.once("message", resolve)), "connected");
  return socket;
};

await main("admin", async () => {
  const sockets = [await connect("ann", "lobby"), await connect("<b>bob</b>", "lobby"), await connect("cyd", "kitchen")];
  const browser = await launch(executablePath);
  try {
    const complaints = [];
    const page = await browser.newPage({ viewport: { width: 1100, height: 620 } });
    page.setDefaultTimeout(15_000);
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("dialog", (dialog) => dialog.accept());
    await page.goto(admin);
    await page.waitForSelector('#users td:text-is("ann")');
    check("admin: the page shows who is there", true);
    await page.waitForSelector('#users td:text-is("<b>bob</b>")');
    check("admin: a name is a text, whatever it is", true);
    await page.waitForSelector('#rooms td:text-is("lobby")');
    const state = await page.textContent("#state");
    check("admin: and how the bus is", state === "bus (memory) up", state);
    await isAccessible(page, "admin: with rows");
    await page.screenshot({ path: `${folder}/admin.png` });

    const closed = new Promise((resolve) => sockets[2].once("close", (code, reason) => resolve([code, String(reason)])));
    await page.click('button[aria-label="Disconnect cyd"]');
    const [code, reason] = await within(closed, "the close");
    check("admin: the button disconnects", code === 4002 && reason === "by an administrator", [code, reason]);
    await page.waitForSelector('#users td:text-is("cyd")', { state: "detached" });
    check("admin: and the page sees it", true);
    await page.setViewportSize({ width: 390, height: 844 });
    const wide = await page.evaluate("document.documentElement.scrollWidth");
    check("admin: fits a phone", wide <= 390, wide);
    await isAccessible(page, "admin: on a phone");
    sockets.forEach((socket) => socket.terminate());
    await page.waitForSelector("#users .none");
    await isAccessible(page, "admin: nobody there");
    await page.route("**/stats", (route) => route.abort());
    await page.waitForSelector('#state.bad:text("this node does not answer")');
    await isAccessible(page, "admin: a node that is away");
    const icon = await page.getAttribute('link[rel="icon"]', "href");
    check("admin: the page brings its icon along", icon === "data:,", icon);
    check("admin: no error in the page", complaints.length === 0, complaints);
  } finally {
    await browser.close();
    sockets.forEach((socket) => socket.terminate());
  }
});
