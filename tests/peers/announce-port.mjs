// Preloaded into a Node server (`node --import`): prints `listening PORT` on standard output once
// the server listens, since some print the port they were asked for (0) and not the one they got.
// It also ends the server with whoever started it; see listening.py.

import { Server } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const listen = Server.prototype.listen;
Server.prototype.listen = function (...options) {
  this.once("listening", () => {
    const address = this.address();
    if (address !== null && typeof address === "object") {
      process.stdout.write(`listening ${address.port}\n`);
    }
  });
  return listen.apply(this, options);
};

const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) {
    process.exit(0);
  }
}, 500).unref();

// At SIGUSR2 it prints `kept BYTES`, the heap in use after a collection: what a server holds on to,
// without the garbage that Node has not looked at yet.
setFlagsFromString("--expose-gc");
process.on("SIGUSR2", () => {
  runInNewContext("gc")();
  process.stdout.write(`kept ${process.memoryUsage().heapUsed}\n`);
});
