// The client of the Greeter protocol, without I/O. Clauses are those of PROTOCOL.md.

import { Connection, LocalProtocolError } from "./connection.mjs";
import { CR, EXIT, GOODBYE, LF, NOTHING, PROMPT, SORRY, WELCOME, hello, line } from "./words.mjs";

const DEFAULTS = { framing: "auto", reply_timeout: 10, linger: 2 };
const MAX_SIZE = 1024; // of a name (C2.1), and of a SORRY (C1.4)

export class Client extends Connection {
  #replyTimeout;
  #input = NOTHING;
  #asked = []; // what is not answered yet: names, and perhaps EXIT at the end
  #sent = 0; // how many of these are sent

  /** @param {Partial<typeof DEFAULTS>} config */
  constructor(config = {}) {
    const { framing, reply_timeout, linger } = { ...DEFAULTS, ...config };
    super("connected", framing, linger, ["reply", "linger"]);
    this.#replyTimeout = reply_timeout ?? Infinity;
  }

  // What is asked

  /** Have names greeted. @param {Uint8Array[]} names */
  names(names, now) {
    for (const name of names) {
      const valid = name.length >= 1 && name.length <= MAX_SIZE && !EXIT.equals(name);
      if (!valid || name.includes(LF) || name.includes(CR)) {
        throw new LocalProtocolError("this is not a name (C2.1)");
      }
    }
    return this._input(now, () => {
      this._fire();
      if (!this.isOpen || this.#asked.at(-1) === EXIT) {
        throw new LocalProtocolError("no name can be asked any more (C2.2)");
      }
      this.#ask(names.map((name) => Buffer.from(name)));
    });
  }

  /** Say `exit`, after all names. */
  exit(now) {
    return this._input(now, () => {
      this._fire();
      if (this.isOpen && this.#asked.at(-1) !== EXIT) this.#ask([EXIT]);
    });
  }

  #ask(names) {
    const awaited = this.#isAwaiting;
    this.#asked = this.#asked.concat(names);
    this.#send();
    if (!awaited) this.#restartReply();
  }

  /** Send what may be sent in the present state (C3). */
  #send() {
    if (this.state !== "prompted" && this.state !== "greeted") return;
    const isLines = this.framing === "lines";
    if (!isLines && this.state === "greeted") return;
    const end = isLines ? undefined : 1; // one for each PROMPT
    for (const name of this.#asked.slice(this.#sent, end)) {
      this._say(this.framing === "raw" ? name : line(name));
      this.#sent++;
    }
  }

  // What is awaited (C5)

  get #isAwaiting() {
    return this.state !== "prompted" || this.#sent > 0;
  }

  #restartReply() {
    this._due.reply = this.#isAwaiting ? this._now + this.#replyTimeout : Infinity;
  }

  _timers = { reply: () => this._end("timed_out") };

  // What arrives

  _open() {
    this.#restartReply();
  }

  _receive(data) {
    let input = Buffer.concat([this.#input, data]);
    for (let size; this.isOpen && (size = this.#takeWord(input));) {
      input = input.subarray(size);
      if (this.isOpen) this.#restartReply();
    }
    this.#input = Buffer.from(input); // a copy, which does not keep the rest in memory (M3)
  }

  /** Act on the word at the beginning; return its size, or 0 if it is not complete. */
  #takeWord(input) {
    if (startsWith(input, SORRY)) return this.#takeSorry(input);
    const words = this.#nextWords();
    for (const [word, act] of words) {
      if (!startsWith(input, word)) continue;
      act();
      return word.length;
    }
    const mayCome = [SORRY, ...words.map(([word]) => word)];
    if (!mayCome.some((word) => agree(input, word))) this.#violate(input); // C1.3
    return 0;
  }

  #takeSorry(input) {
    const size = input.indexOf(LF) + 1; // 0 if it is not complete
    if (size > MAX_SIZE || (!size && input.length >= MAX_SIZE)) {
      this.#violate(input); // C1.4
    } else if (size) {
      this._report("SorryReceived", { message: input.subarray(0, size - 1) });
      this._close("refused");
    }
    return size;
  }

  #violate(input) {
    const [[expected]] = this.#nextWords();
    this._report("ProtocolViolated", { expected, received: input.subarray(0, 64) });
    this._end("violation");
  }

  /** The words that may come now, other than SORRY, and what each does (C1.1, C1.2). */
  #nextWords() {
    const goodbye = [GOODBYE, () => this.#receiveGoodbye()];
    if (this.state === "connected") {
      return [[WELCOME, () => this.#become("welcomed", "Welcomed")], goodbye];
    }
    if (this.state !== "prompted") return [[PROMPT, () => this.#receivePrompt()], goodbye];
    if (!this.#sent) return [goodbye];
    const name = this.#asked[0];
    const greeting = [hello(name), () => this.#receiveHello(name, "lines")];
    const withItsLF = [hello(line(name)), () => this.#receiveHello(name, "raw")]; // C3.6
    const words = name === EXIT ? [goodbye] : [greeting, goodbye];
    return this.framing === "auto" ? [...words, withItsLF] : words;
  }

  #become(state, event) {
    this.state = state;
    this._report(event);
  }

  #receivePrompt() {
    this.#become("prompted", "NameRequested");
    this.#send();
  }

  /** The first reply proves the framing (C3.5, C3.6). */
  #receiveHello(name, framing) {
    if (this.framing === "auto") this.framing = framing;
    this.state = "greeted";
    this.#sent--;
    if (name === EXIT) return; // it is sent again (C3.7)
    this.#asked.shift();
    this._report("Greeted", { name });
    this.#send();
  }

  #receiveGoodbye() {
    const answered = this.#sent > 0 && this.#asked[0] === EXIT; // C6.3
    this._report("GoodbyeReceived");
    this._close(answered ? "exit" : "shutdown");
  }

  _close(reason) {
    this._discardOutput(); // it would not be answered
    super._close(reason);
  }

  _end(reason) {
    this._discardOutput();
    const unanswered = this.#asked.filter((name) => name !== EXIT);
    super._end(reason, unanswered.length ? { unanswered } : {});
  }
}

const agree = (input, word) => {
  const size = Math.min(input.length, word.length);
  return input.subarray(0, size).equals(word.subarray(0, size));
};
const startsWith = (input, word) => input.length >= word.length && agree(input, word);
