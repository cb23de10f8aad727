import { WAKE_MS } from "./limits.js";

/** Calls `then` at `time`, in ms since 1970, but never at once. Answers how to take that back. */
export function at(time, then) {
  let timer;
  const look = () => {
    const left = time - Date.now();
    if (left > 0) timer = setTimeout(look, Math.min(left, WAKE_MS));
    else then();
  };
  timer = setTimeout(look, Math.min(time - Date.now(), WAKE_MS));
  return () => clearTimeout(timer);
}
