// What the client knows of the wire protocol besides single types.

/** After these close codes it does not come back. */
export const FINAL = [1000, 1002, 1003, 1007, 1009, 4002, 4009];

/** After these it comes back with another token, or not at all. */
export const NEW_TOKEN = [1008, 4001];

/** A room that was refused with one of these is not tried again. */
export const REFUSED = ["forbidden", "invalid_message", "too_many_rooms"];

/** The close code for a stream that is refused with an HTTP status. */
export const CLOSED_BY = { 401: 1008, 403: 1008, 429: 4009 };

/** The error code for a message that is refused with one. */
export const REFUSED_BY = {
  400: "invalid_message",
  401: "forbidden",
  403: "forbidden",
  413: "too_large",
  429: "rate_limited",
  // Of a proxy, which does not know whether the server has it.
  502: "connection_lost",
  504: "connection_lost",
};

/** The answer to `leave:room`, also where the server need not be asked. */
export const leftRoom = (roomId) => ({ type: "room:left", payload: { roomId } });

/** The room that a message came to or, for one of the protocol, that it is about. */
export const roomOf = ({ type, room, payload }) => room ?? (ABOUT_A_ROOM.test(type) ? payload?.roomId : undefined);

const ABOUT_A_ROOM = /^(error|gap|(room|presence):(joined|left))$/;
