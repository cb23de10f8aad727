/** Why something could not be done. `code` is the server's, or one of those in tidings-client.d.ts. */
export class TidingsError extends Error {
  constructor(code, message = code) {
    super(message);
    this.name = "TidingsError";
    this.code = code;
  }
}

export const queueFull = () => new TidingsError("queue_full");
