// A server: node serve.mjs [--host HOST] [--port PORT] [--config JSON] [--send-timeout SECONDS]
//
// SIGTERM ends it in good order. What Node cannot do of INTEGRATING.md: ask the kernel what is not
// acknowledged, so `inFlight` is never called; and read less than 64 KiB at a time on a server.

import { createServer } from "node:net";
import { parseArgs } from "node:util";

import { Server } from "./server.mjs";

const SLICE = 65536; // bytes, for each of which there are `--send-timeout` seconds
const GRACE = 10; // seconds for all conversations to end
const LONGEST_WAIT = 86400; // seconds; setTimeout does not take any number

const option = (value) => ({ type: "string", default: value });
const options = { host: option("127.0.0.1"), port: option("0"), config: option("{}") };
options["send-timeout"] = option("30");
const { values } = parseArgs({ options });
const config = JSON.parse(values.config);

const clock = () => performance.now() / 1000;
const after = (seconds, act) => setTimeout(act, Math.ceil(Math.min(seconds, LONGEST_WAIT) * 1000));

const conversations = new Map(); // sockets, and the function that looks at `stopping`
let stopping = false;

async function send(socket, output) {
  for (let start = 0; start < output.length; start += SLICE) {
    const limit = after(Number(values["send-timeout"]), () => socket.resetAndDestroy());
    const slice = output.subarray(start, start + SLICE);
    await new Promise((resolve) => socket.write(slice, resolve)); // it resolves on errors, too
    clearTimeout(limit);
  }
}

function converse(socket) {
  const server = new Server(config);
  let timer = null; // none while a send is blocked: there is no input then
  let check = null;
  let turn = Promise.resolve();

  /** Give an input in its turn: Node reports the end of a stream although it is paused. */
  function give(input) {
    turn = turn.then(() => take(input()));
  }

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

  // The loop polls between a timer and an immediate. If there is something to read, `take` cancels
  // the call: what has arrived comes first (T3).
  function judge() {
    check = setImmediate(() =>
      give(() => (stopping ? server.shutdown(clock()) : server.timeout(clock()))),
    );
  }

  function stop() {
    if (!timer) return;
    clearTimeout(timer);
    timer = after(0, judge);
  }

  conversations.set(socket, stop);
  socket.on("data", (data) => give(() => server.data(data, clock())));
  socket.on("end", () => give(() => server.eof(clock())));
  socket.on("error", () => {}); // `close` follows
  socket.on("close", () => {
    server.lost();
    clearImmediate(check);
    clearTimeout(timer);
    conversations.delete(socket);
  });
  give(() => server.open(clock()));
}

const listener = createServer({ allowHalfOpen: true, noDelay: true }, converse);
listener.listen(Number(values.port), values.host, () => {
  const { address, port } = listener.address();
  console.log(`listening on ${address}:${port}`);
});

process.once("SIGTERM", () => {
  stopping = true;
  for (const stop of conversations.values()) stop();
  after(0, () => setImmediate(() => listener.close())); // the backlog is accepted before
  after(GRACE, () => conversations.forEach((_, socket) => socket.resetAndDestroy())).unref();
});
