import { WAKE_MS } from "./limits.js";

let last = 0;
let setBack = 0;

/** The time in ms, which never goes back: while the machine's clock is set back, it stands still. */
export function now() {
  const time = Date.now();
  setBack += Math.max(0, last - time);
  last = time;
  return time + setBack;
}

/** Calls `then` at `time`, but never at once. Answers how to take that back. */
export function at(time, then) {
  let timer;
  const wait = () => {
    timer = setTimeout(() => (now() < time ? wait() : then()), Math.min(time - now(), WAKE_MS));
  };
  wait();
  return () => clearTimeout(timer);
}
