import { LONGEST_ADVICE_MS, POST_MS } from "./limits.js";
import { CLOSED_BY, REFUSED_BY } from "./protocol.js";

/**
 * An event stream, and POST for the way back. It is read with `fetch`, since an `EventSource` hides the status of a
 * refusal, the heartbeats, and each event whose type it was not told of.
 */
export function openStream(url, link, { fetch }, { heard, message, lost }) {
  const ended = new AbortController();
  const request = (address, more) =>
    fetch(address, {
      headers: link.token ? { Authorization: `Bearer ${link.token}` } : {},
      cache: "no-store",
      credentials: "include",
      signal: ended.signal,
      ...more,
    });

  const read = async () => {
    const answer = await request(url);
    if (!answer.ok) {
      const after = Math.min(answer.headers.get("Retry-After") * 1_000, LONGEST_ADVICE_MS) || undefined;
      return lost(CLOSED_BY[answer.status] ?? 1006, `HTTP ${answer.status}`, after);
    }
    let end = { code: 1006, reason: "" };
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return lost(end.code, end.reason, end.reconnectAfterMs);
      heard();
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const lines = event.split("\n");
        const field = (name) => lines.filter((line) => line.startsWith(name)).map((line) => line.slice(name.length)).join("\n");
        const data = field("data: ");
        const read = data ? JSON.parse(data) : { type: "cursor", cursor: field("id: ") };
        if (read.type === "close") end = read.payload;
        else if (data || read.cursor) message(read);
      }
    }
  };

  const post = async (body, id) => {
    if (ended.signal.aborted) return;
    const failed = (code, text) => message({ type: "error", id, payload: { code, message: text } });
    const address = new URL(url);
    address.pathname += `/${link.clientId}`;
    address.search = "";
    try {
      const { status } = await request(address.href, { method: "POST", body, signal: AbortSignal.timeout(POST_MS) });
      if (status === 404) lost(1006);
      else if (status !== 202 && id) failed(REFUSED_BY[status] ?? "unavailable", `HTTP ${status}`);
    } catch (error) {
      if (id) failed("connection_lost", error.message);
    }
  };

  read().catch((error) => lost(1006, error.message));
  // One after the other, so that they arrive in order. `send` returns when its turn comes.
  let last = Promise.resolve();
  return {
    send: (body, id) => {
      const turn = last;
      last = turn.then(() => post(body, id));
      return turn;
    },
    close: () => ended.abort(),
  };
}
