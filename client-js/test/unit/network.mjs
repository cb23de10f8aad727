// Stands for the network behind `fetch`.

import { settle } from "./support.mjs";

/** Streams that tests feed, and what was POSTed. While `hold` is a promise, POSTs hang. */
export function network() {
  const net = { streams: [], posts: [], status: 200, postStatus: 202 };
  net.fetch = async (address, { method, headers, body, signal }) => {
    const url = new URL(address);
    if (method === "POST") {
      net.posts.push({ path: url.pathname, headers, message: JSON.parse(body) });
      const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      await Promise.race([net.hold, aborted]);
      if (net.postStatus instanceof Error) throw net.postStatus;
      return new Response(null, { status: net.postStatus });
    }
    const stream = { url, headers, signal };
    net.streams.push(stream);
    if (net.status !== 200) return new Response("no", { status: net.status, headers: net.headers });
    const body_ = new ReadableStream({ start: (controller) => (stream.controller = controller) });
    signal.addEventListener("abort", () => stream.controller.error(signal.reason));
    stream.text = async (text) => {
      stream.controller.enqueue(new TextEncoder().encode(text));
      await settle();
    };
    stream.says = (message) => stream.text(`event: ${message.type}\ndata: ${JSON.stringify(message)}\n\n`);
    stream.open = () =>
      stream.says({ type: "connected", payload: { clientId: "sse1", userId: "ann", heartbeatMs: 30_000 } });
    stream.ends = async () => {
      stream.controller.close();
      await settle();
    };
    return new Response(body_, { status: 200 });
  };
  net.last = () => net.streams.at(-1);
  return net;
}
