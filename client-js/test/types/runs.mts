// The package as an application imports it in Node.

import { connect, TidingsError } from "tidings-client";

const t = connect("http://127.0.0.1:9", { WebSocket: null });
if (t.state !== "connecting") throw new Error(`it is ${t.state}`);
t.close();
const error = await t.send("chat").catch((error: unknown) => error);
if (!(error instanceof TidingsError) || error.code !== "closed") throw new Error(String(error));
