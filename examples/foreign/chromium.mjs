// Chromium for the pages, and what is asked of each of their states.

import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { check } from "./lib.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const launch = (executablePath) => chromium.launch({ executablePath, args, timeout: 30_000 });

/** axe finds nothing, neither light nor dark. */
export async function isAccessible(page, what) {
  await page.addScriptTag({ path: axe });
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    const found = await page.evaluate(async () => {
      const { violations } = await window.axe.run();
      return violations.flatMap(({ id, nodes }) => nodes.map(({ target, any }) => [id, target, any[0]?.message]));
    });
    check(`${what}, ${colorScheme}: accessible`, found.length === 0, found);
  }
}
