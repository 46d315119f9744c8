// The server of the Greeter protocol, without I/O. Clauses are those of PROTOCOL.md.

import { Connection } from "./connection.mjs";
import { CR, EXIT, GOODBYE, LF, NOTHING, PROMPT, WELCOME, hello, sorry } from "./words.mjs";

const DEFAULTS = {
  framing: "auto",
  max_name_size: 1024,
  pace: 0.02,
  quiet: 0.02,
  idle_timeout: 300,
  max_lifetime: null, // never
  linger: 2,
};

/**
 * @example
 * const server = new Server({ idle_timeout: 60 });
 * let { output, deadline } = server.open(performance.now() / 1000); // send the output
 * ({ output, eof, events, deadline } = server.data(bytes, performance.now() / 1000));
 */
export class Server extends Connection {
  #config;
  #full;
  #tail = NOTHING;
  #owedSince = null; // since when a PROMPT is owed

  /** @param {Partial<typeof DEFAULTS>} config */
  constructor(config = {}, { full = false } = {}) {
    const all = { ...DEFAULTS, ...config };
    super("open", all.framing, all.linger, ["pace", "quiet", "idle", "lifetime", "linger"]);
    this.#config = all;
    this.#full = full;
  }

  get promptOwed() {
    return this.#owedSince !== null;
  }

  _postpone() {
    if (!this.promptOwed) return;
    const owedFor = this._now - this.#owedSince;
    this._due.pace = this._now + Math.max(this.#config.pace, owedFor / 4);
  }

  _open() {
    if (this.#full) return this.#refuse("full", "the server is full");
    this._say(WELCOME);
    this.#owePrompt();
    this.#startIdle(this._now);
    this._due.lifetime = this._now + (this.#config.max_lifetime ?? Infinity);
  }

  // What arrives

  _receive(data) {
    if (this.#config.framing === "auto" && this.framing !== "lines" && data.includes(LF)) {
      this.#setFraming("lines");
    }
    if (this.framing === "raw") return this.#answer(data, this._now);
    if (this.framing === "lines") data = this.#answerLines(data);
    if (!this.isOpen) return;
    this.#tail = Buffer.concat([this.#tail, data]);
    const size = this.#tail.length - (this.#tail.at(-1) === CR ? 1 : 0); // that CR may end a line
    if (size > this.#config.max_name_size) this.#refuseName();
    else if (this.framing === "auto") this._due.quiet = this._now + this.#config.quiet;
  }

  /** Answer the names that are ended, and return what follows them. */
  #answerLines(data) {
    for (let end; this.isOpen && (end = data.indexOf(LF)) >= 0; data = data.subarray(end + 1)) {
      const line = Buffer.concat([this.#takeTail(), data.subarray(0, end)]);
      this.#answer(line.at(-1) === CR ? line.subarray(0, -1) : line, this._now);
    }
    return data;
  }

  _receiveEof() {
    if (this.isOpen && this.#tail.length) this.#answer(this.#takeTail(), this._now, { last: true });
    this._report("EOFReceived");
  }

  _shutDown(reason) {
    if (this.framing === "auto" && this.#tail.length) this.#answer(this.#takeTail(), this._now);
    if (this.isOpen) this.#close(reason, GOODBYE);
  }

  // Each timer, with the time at which it was due (T1)

  _timers = {
    pace: () => this.#sayPrompt(),
    quiet: (due) => {
      this.#setFraming("raw");
      this.#answer(this.#takeTail(), due);
    },
    idle: () => this.#refuse("idle", "no name came in time"),
    lifetime: () => this._shutDown("lifetime"),
  };

  #startIdle(since) {
    this._due.idle = since + (this.#config.idle_timeout ?? Infinity);
  }

  // What is said

  #answer(name, endedAt, { last = false } = {}) {
    if (name.length > this.#config.max_name_size) return this.#refuseName();
    if (name.equals(EXIT)) {
      this._report("ExitReceived");
      return this.#close("exit", GOODBYE);
    }
    if (name.length) {
      this.#reportName(name);
      this.#say(hello(name));
      this.#startIdle(endedAt);
    }
    if (!last) this.#owePrompt();
  }

  /** Names that an input ends are reported together. */
  #reportName(name) {
    const last = this._lastEvent;
    if (last?.event === "NamesReceived") last.names.push(name);
    else this._report("NamesReceived", { names: [name] });
  }

  #refuseName() {
    this.#refuse("name_too_long", `names are limited to ${this.#config.max_name_size} bytes`);
  }

  #refuse(reason, text) {
    const word = sorry(text);
    this._report("Refused", { reason, message: word.subarray(0, -1) });
    this.#close("refused", word);
  }

  #close(reason, word) {
    this.#say(word);
    this._close(reason);
  }

  #say(word) {
    this.#sayPrompt(); // S2.4
    this._say(word);
  }

  #owePrompt() {
    this.#owedSince = this._now;
    if (this.framing === "lines") this.#sayPrompt();
    else this._due.pace = this._now + this.#config.pace;
  }

  #sayPrompt() {
    if (this.promptOwed) this._say(PROMPT);
    this.#owedSince = null;
    this._due.pace = Infinity;
  }

  #setFraming(framing) {
    this.framing = framing;
    this._due.quiet = Infinity;
    if (framing === "lines") this.#sayPrompt(); // S2.3
  }

  #takeTail() {
    const tail = this.#tail;
    this.#tail = NOTHING;
    return tail;
  }
}
