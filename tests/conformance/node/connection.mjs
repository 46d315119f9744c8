// What the server and the client have in common: the inputs, the timers, and how they end.

/** The caller did what it must not do (E2). */
export class LocalProtocolError extends Error {
  name = "LocalProtocolError";
}

/**
 * One end of a conversation, without I/O.
 *
 * Each method is an input, and returns what came of it. Times are in seconds, on any clock that
 * does not run backwards. Names that begin with an underscore are for the two subclasses.
 *
 * @typedef {object} Outcome
 * @property {Buffer} output - what is to be sent
 * @property {boolean} eof - whether the stream is to be ended after that
 * @property {object[]} events - what happened: `{ event: "Greeted", name }` and so on
 * @property {number} deadline - when to call `timeout`, unless there is another input before
 * @property {string} state - `ended` means that no input matters any more
 * @property {string} framing - `auto`, `lines` or `raw`
 */
export class Connection {
  #output = [];
  #eof = false;
  #events = [];
  #linger;
  #reason;

  /** @param {string[]} timers - their names, in the order in which they fire on a tie (T2) */
  constructor(state, framing, linger, timers) {
    this.state = state;
    this.framing = framing;
    this.#linger = linger;
    this._now = -Infinity;
    this._due = Object.fromEntries(timers.map((timer) => [timer, Infinity]));
  }

  get isOpen() {
    return this.state !== "closing" && this.state !== "ended";
  }

  get deadline() {
    return Math.min(...Object.values(this._due));
  }

  // The inputs

  /** The first input. */
  open(now) {
    return this._input(now, () => this._open());
  }

  /** What one read returned, which is never empty. */
  data(bytes, now) {
    if (!bytes.length) throw new LocalProtocolError("the end of the stream is not data");
    return this._input(now, () => {
      if (this.isOpen) this._receive(Buffer.from(bytes)); // a copy, which nobody else changes
      this._fire(); // what came is handled before that (T3)
    });
  }

  /** The peer has ended its stream. */
  eof(now) {
    return this._input(now, () => {
      this._receiveEof();
      this._end("eof");
    });
  }

  /** Time has passed. */
  timeout(now) {
    return this._input(now, () => this._fire());
  }

  /** The peer's kernel has not yet acknowledged what was sent: instead of `timeout` (S2.7). */
  inFlight(now) {
    return this._input(now, () => {
      this._postpone();
      this._fire();
    });
  }

  /** End the conversation in good order. */
  shutdown(now) {
    return this._input(now, () => {
      this._fire();
      if (this.isOpen) this._shutDown("shutdown");
    });
  }

  /** The connection is broken: no time passes, and there is nothing more to send (E5). */
  lost() {
    return this._input(this._now, () => {
      this._end("connection_lost");
      this.#eof = false;
    });
  }

  /** @returns {Outcome} */
  _input(now, handle) {
    if (this.state !== "ended") {
      this._now = Math.max(this._now, now); // T4
      handle();
    }
    const { deadline, state, framing } = this;
    const output = Buffer.concat(this.#output);
    const outcome = { output, eof: this.#eof, events: this.#events, deadline, state, framing };
    this._discardOutput();
    this.#eof = false;
    this.#events = [];
    return outcome;
  }

  // What a subclass has to add: _open, _receive, _timers; and, where there is more to do:

  _postpone() {}
  _receiveEof() {}
  _shutDown(reason) {
    this._close(reason);
  }

  // The timers

  /** Fire what is due, in the order of the deadlines (T2). A timer may start or stop others. */
  _fire() {
    while (this.deadline <= this._now) {
      const due = this.deadline;
      const timer = Object.keys(this._due).find((name) => this._due[name] === due);
      this._due[timer] = Infinity;
      if (timer === "linger") this._end();
      else this._timers[timer](due);
    }
  }

  // The outputs

  _say(word) {
    this.#output.push(word);
  }

  _discardOutput() {
    this.#output = [];
  }

  get _lastEvent() {
    return this.#events.at(-1);
  }

  _report(event, fields) {
    this.#events.push({ event, ...fields });
  }

  /** Say no more, and linger (S8, C6.1). */
  _close(reason) {
    this.#stop("closing", reason);
    this._due.linger = this._now + this.#linger;
  }

  /** The reason that counts is the one for which closing began (S8.4). */
  _end(reason, fields) {
    this.#stop("ended", reason);
    this._report("ConversationEnded", { reason: this.#reason, ...fields });
  }

  #stop(state, reason) {
    if (this.isOpen) this.#eof = true;
    this.state = state;
    this.#reason ??= reason;
    for (const timer in this._due) this._due[timer] = Infinity;
  }
}
