import { WAKE_MS } from "./limits.js";

/** Calls `then` at `time`, in ms since 1970, but never at once. Answers how to take that back. */
export function at(time, then) {
  let timer;
  const wait = () => {
    timer = setTimeout(() => (Date.now() < time ? wait() : then()), Math.min(time - Date.now(), WAKE_MS));
  };
  wait();
  return () => clearTimeout(timer);
}
