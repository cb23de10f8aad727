// The client of Tidings for browsers, workers and Node. What it takes and gives is described in tidings-client.d.ts.

export { connect } from "./client.js";
export { TidingsError } from "./error.js";
