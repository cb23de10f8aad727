// The client of Tidings for browsers, workers and Node. What it takes and gives is described in tidings-client.d.ts.

import { Client } from "./client.js";

export { TidingsError } from "./error.js";

export const connect = (url, options) => new Client(url, options);
