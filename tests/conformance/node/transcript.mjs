// Reads a transcript (TRANSCRIPT.md), and checks that every line is as described there.

import { readFileSync } from "node:fs";

export class Damage extends Error {}

// The values of a line. Each of these is, or makes, a function that checks a value and returns it.

const value =
  (wanted, test, convert = (given) => given) =>
  (given) => {
    if (!test(given)) throw new Damage(`${JSON.stringify(given)} is not ${wanted}`);
    return convert(given);
  };

const isObject = (given) => typeof given === "object" && given !== null && !Array.isArray(given);
const isSeconds = (given) => Number.isFinite(given) && given >= 0;
const isText = (given) => typeof given === "string";
const isUnicode = (given) => isText(given) && Buffer.from(given).toString() === given;
const isHex = (given) => isText(given) && /^([0-9a-f]{2})*$/i.test(given);

const oneOf = (...words) => value(`one of ${words.join(", ")}`, (given) => words.includes(given));
const list = (item) => value("a list", Array.isArray, (given) => given.map((each) => item(each)));

/** Fields that are not known are passed over. */
const object = (known, ...required) =>
  value("an object", isObject, (given) => {
    const missing = required.find((name) => !Object.hasOwn(given, name));
    if (missing) throw new Damage(`${missing} is missing`);
    const names = Object.keys(given).filter((name) => Object.hasOwn(known, name));
    return Object.fromEntries(names.map((name) => [name, known[name](given[name])]));
  });

const flag = oneOf(true, false);
const text = value("text", isText);
const whole = value("a whole number", Number.isSafeInteger);
const number = value("a number", Number.isFinite);
const seconds = value("seconds", isSeconds);
const timeOrNever = value("a time or null", (given) => given === null || Number.isFinite(given));
const secondsOrNever = value("seconds or null", (given) => given === null || isSeconds(given));
const framing = oneOf("auto", "lines", "raw");
const textOrHex = object({
  text: value("text that UTF-8 can encode", isUnicode, (given) => Buffer.from(given)),
  hex: value("hexadecimal digits", isHex, (given) => Buffer.from(given, "hex")),
});
const bytes = (given) => {
  const [decoded, ...others] = Object.values(textOrHex(given));
  if (!decoded || others.length) throw new Damage("bytes are either text or hex");
  return decoded;
};

const EVENTS = [
  ["NamesReceived", "ExitReceived", "EOFReceived", "Refused"],
  ["Welcomed", "NameRequested", "Greeted", "GoodbyeReceived", "SorryReceived", "ProtocolViolated"],
  ["ConversationEnded"],
];

const EVENT = {
  event: oneOf(...EVENTS.flat()),
  names: list(bytes),
  unanswered: list(bytes),
  name: bytes,
  message: bytes,
  expected: bytes,
  received: bytes,
  reason: text,
};

const STEP = {
  id: whole,
  at: number,
  input: text,
  role: oneOf("server", "client"),
  full: flag,
  data: bytes,
  names: list(bytes),
  output: bytes,
  eof: flag,
  events: list(object(EVENT, "event")),
  deadline: timeOrNever,
  state: oneOf("open", "connected", "welcomed", "prompted", "greeted", "closing", "ended"),
  framing,
};

const CONFIG = {
  framing,
  max_name_size: value("a size", (given) => Number.isSafeInteger(given) && given >= 1),
  pace: seconds,
  quiet: seconds,
  idle_timeout: secondsOrNever,
  max_lifetime: secondsOrNever,
  reply_timeout: secondsOrNever,
  linger: seconds,
};

const REQUIRED = {
  open: ["role", "config"],
  data: ["data"],
  eof: [],
  timeout: [],
  in_flight: [],
  shutdown: [],
  lost: [],
  names: [],
  exit: [],
};
const CLIENT_ONLY = ["names", "exit"];

const readHeader = object({ transcript: oneOf(1) }, "transcript");
const readObservation = object({ id: whole, at: number, observed: text }, "id", "at", "observed");
const readStep = (item) => {
  const input = oneOf(...Object.keys(REQUIRED))(item.input);
  const needed = ["id", "at", "deadline", "state", "framing", ...REQUIRED[input]];
  return object({ ...STEP, config: object(CONFIG) }, ...needed)(item);
};

/** Check a step against those before it; `open` has the conversations that are not complete. */
function checkOrder(step, open) {
  const before = open.get(step.id);
  if ((step.input === "open") !== !before) {
    throw new Damage(`conversation ${step.id} is ${before ? "already" : "not"} open`);
  }
  const role = before?.role ?? step.role;
  if (role === "server" && CLIENT_ONLY.includes(step.input)) {
    throw new Damage(`${step.input} is an input of clients only`);
  }
  if (step.at < (before?.at ?? 0)) throw new Damage("time runs backwards");
  if (step.state === "ended") open.delete(step.id);
  else open.set(step.id, { role, at: step.at });
  return step;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Return undefined for what is not JSON in UTF-8. */
function parse(line) {
  try {
    return JSON.parse(utf8.decode(Buffer.from(line, "latin1")));
  } catch {
    return undefined;
  }
}

/** Return a step, or null for a line that a replay passes over. */
function readLine(item, isFirst, open) {
  if (item === undefined) throw new Damage("this is not JSON");
  if (isFirst) readHeader(item);
  else if (isObject(item) && Object.hasOwn(item, "input")) return checkOrder(readStep(item), open);
  else readObservation(item);
  return null;
}

/** Yield each step, with the number of its line. A last line that is cut short is left out. */
export function* readTranscript(file) {
  const lines = readFileSync(file, "latin1")
    .replace(/^\xef\xbb\xbf/, "")
    .split("\n");
  const unfinished = lines.at(-1) === "" ? null : lines.length;
  if (!unfinished && lines.length > 1) lines.pop();
  const open = new Map();
  for (const [index, line] of lines.entries()) {
    const number = index + 1;
    const item = parse(line);
    if (item === undefined && number === unfinished && number > 1) {
      console.error(`${file}:${number}: left out, because it is cut short`);
      return;
    }
    let step;
    try {
      step = readLine(item, number === 1, open);
    } catch (error) {
      if (error instanceof Damage) error.message = `${file}:${number}: ${error.message}`;
      throw error;
    }
    if (step) yield [number, step];
  }
}
