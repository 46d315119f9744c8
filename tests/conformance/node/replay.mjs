// Replays transcripts: node replay.mjs FILE...
//
// Prints the first difference of each conversation. The exit status is 0 if there is none, 1 if
// there are some, and 2 if a file cannot be used.

import { isDeepStrictEqual } from "node:util";

import { Client } from "./client.mjs";
import { LocalProtocolError } from "./connection.mjs";
import { Server } from "./server.mjs";
import { Damage, readTranscript } from "./transcript.mjs";

const OPEN = {
  server: ({ config, full }) => new Server(config, { full }),
  client: ({ config }) => new Client(config),
};

const INPUTS = {
  open: (core, { at }) => core.open(at),
  data: (core, { at, data }) => core.data(data, at),
  eof: (core, { at }) => core.eof(at),
  timeout: (core, { at }) => core.timeout(at),
  in_flight: (core, { at }) => core.inFlight(at),
  shutdown: (core, { at }) => core.shutdown(at),
  lost: (core) => core.lost(),
  names: (core, { at, names = [] }) => core.names(names, at),
  exit: (core, { at }) => core.exit(at),
};

/** Give a step's input to its core; return what came of it, as it stands in a transcript. */
function play(core, step) {
  try {
    const outcome = INPUTS[step.input](core, step);
    return { ...outcome, deadline: outcome.deadline === Infinity ? null : outcome.deadline };
  } catch (error) {
    if (!(error instanceof LocalProtocolError)) throw error;
    return { error: error.message };
  }
}

/** What a step asserts. Fields that are absent stand for nothing. */
const expect = ({ output = Buffer.alloc(0), eof = false, events = [], ...step }) => ({
  error: undefined,
  output,
  eof,
  events,
  deadline: step.deadline,
  state: step.state,
  framing: step.framing,
});

/** Bytes are shown as characters of Latin-1. */
const show = (given) =>
  JSON.stringify(given, (_, item) =>
    item?.type === "Buffer" ? Buffer.from(item.data).toString("latin1") : item,
  );

/** Replay a file, and count its conversations and those that differ. */
function replay(file, counts) {
  const cores = new Map();
  for (const [number, step] of readTranscript(file)) {
    if (step.input === "open") {
      counts.conversations++;
      cores.set(step.id, OPEN[step.role](step));
    }
    const core = cores.get(step.id);
    if (!core) continue; // this conversation has differed
    const got = play(core, step);
    for (const [field, expected] of Object.entries(expect(step))) {
      if (isDeepStrictEqual(expected, got[field])) continue;
      const values = `expected ${show(expected)}, got ${show(got[field])}`;
      console.log(`${file}:${number}: ${field}: ${values}`);
      counts.different++;
      cores.delete(step.id);
      break;
    }
  }
}

const counts = { conversations: 0, different: 0 };
const files = process.argv.slice(2);
try {
  if (!files.length) throw new Damage("usage: node replay.mjs FILE...");
  for (const file of files) replay(file, counts);
  console.log(`${counts.conversations} conversations, ${counts.different} differ`);
  process.exitCode = counts.different ? 1 : 0;
} catch (error) {
  if (!(error instanceof Damage) && !error.syscall) throw error; // syscall: a file cannot be read
  console.error(error.message);
  process.exitCode = 2;
}
