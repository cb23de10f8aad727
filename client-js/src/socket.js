/** A WebSocket. A wire tells `heard`, `message` and `lost`, and can `send` and be closed. */
export function openSocket(url, link, { WebSocket }, { heard, message, lost }) {
  const socket = new WebSocket(url);
  socket.onmessage = ({ data }) => {
    heard();
    try {
      message(JSON.parse(data));
    } catch (error) {
      lost(1006, error.message);
    }
  };
  // `close` follows and says more.
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) => lost(code, reason);
  return {
    send: (text) => socket.send(text),
    // The end of a dead connection may be minutes away: nobody waits for it.
    close: () => socket.close(1000),
  };
}
