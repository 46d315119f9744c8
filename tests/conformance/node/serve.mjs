// A server over node:net: node serve.mjs [--host HOST] [--port PORT] [--config JSON]
//                                        [--send-timeout SECONDS]
//
// SIGTERM ends it in good order. What INTEGRATING.md asks for and Node cannot do: it cannot ask the
// kernel whether the peer has acknowledged everything, so `inFlight` is never called; and one read
// of a server's socket is at most 64 KiB, not 16.

import { createServer } from "node:net";
import { parseArgs } from "node:util";
import { Server } from "./server.mjs";

const SLICE = 65536; // bytes, each of which may take `send-timeout` seconds
const GRACE = 10; // seconds to end all conversations
const LONGEST_WAIT = 86400; // seconds; setTimeout does not take any number

const { values } = parseArgs({
  options: {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "0" },
    config: { type: "string", default: "{}" },
    "send-timeout": { type: "string", default: "30" },
  },
});
const config = JSON.parse(values.config);
const clock = () => performance.now() / 1000;
const after = (seconds, call) => setTimeout(call, Math.ceil(Math.min(seconds, LONGEST_WAIT) * 1000));

const conversations = new Map(); // sockets, and the functions that make them look at `stopping`
let stopping = false;

async function send(socket, output) {
  for (let start = 0; start < output.length; start += SLICE) {
    const limit = after(values["send-timeout"], () => socket.resetAndDestroy());
    const slice = output.subarray(start, start + SLICE);
    await new Promise((resolve) => socket.write(slice, resolve)); // also if it fails
    clearTimeout(limit);
  }
}

function converse(socket) {
  const server = new Server(config);
  let timer; // none while a send is blocked: there is no input then
  let check;

  async function take({ output, eof, deadline, state }) {
    clearImmediate(check);
    clearTimeout(timer);
    timer = null;
    socket.pause();
    await send(socket, output);
    if (socket.destroyed) return;
    if (state === "ended") return socket.destroySoon();
    if (eof) socket.end();
    socket.resume();
    timer = after(stopping && server.isOpen ? 0 : deadline - clock(), judge);
  }

  function stop() {
    if (!timer) return;
    clearTimeout(timer);
    timer = after(0, judge);
  }

  // Between a timer and an immediate the loop polls. If anything has arrived, `take` cancels this.
  function judge() {
    check = setImmediate(() => take(stopping ? server.shutdown(clock()) : server.timeout(clock())));
  }

  conversations.set(socket, stop);
  socket.on("data", (data) => take(server.data(data, clock())));
  socket.on("end", () => take(server.eof(clock())));
  socket.on("error", () => {}); // `close` follows
  socket.on("close", () => {
    server.lost();
    clearTimeout(timer);
    clearImmediate(check);
    conversations.delete(socket);
  });
  take(server.open(clock()));
}

const listener = createServer({ allowHalfOpen: true, noDelay: true }, converse);
listener.listen(Number(values.port), values.host, () => {
  const { address, port } = listener.address();
  console.log(`listening on ${address}:${port}`);
});

process.once("SIGTERM", () => {
  stopping = true;
  for (const stop of conversations.values()) stop();
  after(0, () => setImmediate(() => listener.close())); // after the connections that wait
  after(GRACE, () => conversations.forEach((_, socket) => socket.resetAndDestroy())).unref();
});
