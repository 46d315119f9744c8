"""The client's side of the conversation (PROTOCOL.md, C)."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from ._config import ClientConfig, Framing, check_config
from ._errors import LocalProtocolError
from ._events import (
    ClientEvent,
    GoodbyeReceived,
    Greeted,
    NameRequested,
    ProtocolViolated,
    SorryReceived,
    Welcomed,
    greeted_together,
)
from ._machine import Machine
from ._states import CLIENT_TRANSITIONS, ClientState, Input
from ._timers import Timer
from ._wire import (
    BANG,
    BETWEEN_NAMES,
    CR,
    EXIT,
    GOODBYE,
    HELLO,
    LF,
    MAX_NAME_SIZE,
    MAX_SORRY_SIZE,
    MAX_WORD_SIZE,
    PROMPT,
    SORRY,
    WELCOME,
    hello,
)


class ClientConnection(Machine[ClientState, ClientEvent]):
    """A client that has its names greeted by one server.

    `now` is when the connection was opened, in seconds on the clock that every other call uses.
    Names can be asked from the start; they are sent when the protocol allows it.
    """

    reads_while_sending = True  # a server may answer names before it reads more of them

    def __init__(self, config: ClientConfig = ClientConfig(), *, now: float) -> None:  # noqa: B008 - it is frozen
        check_config(config, ClientConfig)
        super().__init__(ClientState.CONNECTED, CLIENT_TRANSITIONS, config.linger, now)
        self._config = config
        self._framing = config.framing
        self._buffer = b""  # the beginning of a word
        # What was asked, in order: names, and b"exit", which is no name. First what is sent, then
        # what waits.
        self._sent: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._exit_asked = False
        self._watch_reply()

    @property
    def config(self) -> ClientConfig:
        """How it behaves."""
        return self._config

    @property
    def framing(self) -> Framing:
        return self._framing

    @property
    def unanswered(self) -> Sequence[bytes]:
        """The names that were asked and not greeted, in order."""
        return self._unanswered()

    @property
    def unsent(self) -> int:
        """How many of these are not sent yet: the server has yet to ask for them (C3)."""
        exit_waits = bool(self._waiting) and self._waiting[-1] == EXIT
        return len(self._waiting) - exit_waits

    # Inputs

    def send_name(self, name: bytes, now: float) -> None:
        """Ask for a name to be greeted: 1 to 1024 bytes, no CR or LF, not `exit` (C2)."""
        self.send_names([name], now)

    def send_names(self, names: Iterable[bytes], now: float) -> None:
        """Ask for names to be greeted, in this order: all of them, or none if one is wrong."""
        if isinstance(names, (bytes, bytearray, str)):
            raise LocalProtocolError(
                f"names must be several names, not one: {names[:64]!r}; send_name takes one"
            )
        if not isinstance(names, Iterable):
            raise LocalProtocolError(f"names must be several names, not {names!r}")
        words = list(names)
        if not _are_names(words):
            for word in words:
                _check_name(word)
        self._check_that_names_may_come()
        self.handle_timeout(now)
        self._check_that_names_may_come()
        self._ask(words)

    def send_exit(self, now: float) -> None:
        """Say `exit` after all names, to end the conversation; without effect if it is ending."""
        self.handle_timeout(now)
        if self._state.is_open and not self._exit_asked:
            self._exit_asked = True
            self._ask([EXIT])

    # What happens

    def _data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        has_lines = self._framing is Framing.LINES and len(self._sent) > 1
        at = self._hear_greetings(buffer) if has_lines else 0
        while self._state.is_open and (size := self._hear(buffer[at : at + MAX_WORD_SIZE])):
            at += size
        self._buffer = buffer[at:] if self._state.is_open else b""

    def _eof_received(self) -> None:
        self._close(Input.EOF)

    def _shut_down(self) -> None:
        self._close(Input.SHUTDOWN)

    def _timer_fired(self, timer: Timer, deadline: float) -> None:  # noqa: ARG002 - a client has but one
        self._close(Input.REPLY)

    def _close(self, what: Input) -> None:
        self._output.clear()  # it would not be answered any more, and is reported as unanswered
        super()._close(what)

    def _unanswered(self) -> tuple[bytes, ...]:
        return tuple(word for word in (*self._sent, *self._waiting) if word != EXIT)

    # What is heard

    def _hear(self, heard: bytes) -> int:
        """Handle the word that begins what was heard; return its size, or 0 if it is not whole."""
        if not heard:
            return 0
        words = self._words_that_may_come()
        for what, word in words:
            if heard.startswith(word):
                self._word_heard(what, word)
                return len(word)
            if word.startswith(heard):
                return 0
        if heard.startswith(SORRY):
            size = heard.find(LF, 0, MAX_SORRY_SIZE) + 1
            if size:
                self._word_heard(Input.SORRY, heard[:size])
            if size or len(heard) < MAX_SORRY_SIZE:
                return size
        elif SORRY.startswith(heard):
            return 0
        self._events.append(ProtocolViolated(expected=words[0][1], received=heard[:64]))
        self._close(Input.OTHER)
        return 0

    def _hear_greetings(self, heard: bytes) -> int:
        """Handle greetings that begin what was heard, each with its PROMPT; return their size.

        What `_hear` does for one word, this does for all at once: names that are greeted together
        take a tenth of the time that way. It returns 0 where anything else comes among them.
        """
        prompt = PROMPT if self._state is ClientState.GREETED else b""
        # No name has an LF: up to the last greeting that is whole, each LF ends one.
        end = heard.rfind(BANG + PROMPT) + len(BANG)
        count = min(heard.count(LF, 0, end), len(self._sent) - (self._sent[-1] == EXIT))
        names = list(islice(self._sent, count))
        greetings = prompt + HELLO + BETWEEN_NAMES.join(names) + BANG + PROMPT
        if not (names and heard.startswith(greetings)):
            return 0
        if prompt:
            self._word_heard(Input.PROMPT, prompt)
        for _ in names:
            self._sent.popleft()
        events: list[ClientEvent] = [NameRequested()] * (2 * len(names))
        events[::2] = greeted_together(names)
        self._events += events
        self._move(Input.HELLO)
        self._move(Input.PROMPT)
        self._timers.stop(Timer.REPLY)
        self._watch_reply()
        return len(greetings)

    def _words_that_may_come(self) -> list[tuple[Input, bytes]]:
        """Return the words that may come next, the expected one first; SORRY may always come."""
        row = self._transitions[self._state]
        words = []
        if Input.WELCOME in row:
            words.append((Input.WELCOME, WELCOME))
        if Input.PROMPT in row:
            words.append((Input.PROMPT, PROMPT))
        name = self._sent[0] if self._sent and Input.HELLO in row else None
        if name is not None and name != EXIT:
            words.append((Input.HELLO, hello(name)))
        # `exit` is sent last (C6.3), so this is its answer when it is the first that has none.
        is_answer = bool(self._sent) and self._sent[0] == EXIT
        words.append((Input.GOODBYE if is_answer else Input.EARLY_GOODBYE, GOODBYE))
        if name is not None and self._framing is Framing.AUTO:
            words.append((Input.HELLO, hello(name + LF)))
        return words

    def _word_heard(self, what: Input, word: bytes) -> None:
        match what:
            case Input.WELCOME:
                self._events.append(Welcomed())
            case Input.PROMPT:
                self._events.append(NameRequested())
            case Input.HELLO:
                self._hello_heard(word)
            case Input.SORRY:
                self._events.append(SorryReceived(word[:-1]))
                self._close(what)
                return
            case _:
                self._events.append(GoodbyeReceived())
                self._close(what)
                return
        self._move(what)
        self._timers.stop(Timer.REPLY)
        self._send_what_may_go()

    def _hello_heard(self, word: bytes) -> None:
        name = self._sent.popleft()
        if self._framing is Framing.AUTO:
            self._framing = Framing.LINES if word == hello(name) else Framing.RAW
        if name == EXIT:
            self._waiting.appendleft(EXIT)  # the original server took `exit` LF for a name
        else:
            self._events.append(Greeted(name))

    # What is sent

    def _check_that_names_may_come(self) -> None:
        if not self._state.is_open:
            msg = "names cannot be sent after the end of the conversation"
        elif self._exit_asked:
            msg = "names cannot be sent after exit"
        else:
            return
        raise LocalProtocolError(msg)

    def _ask(self, words: list[bytes]) -> None:
        self._waiting.extend(words)
        self._send_what_may_go()

    def _send_what_may_go(self) -> None:
        if self._framing is Framing.LINES:
            if self._state in (ClientState.PROMPTED, ClientState.GREETED):
                self._output.append(LF.join((*self._waiting, b"")))
                self._sent.extend(self._waiting)
                self._waiting.clear()
        elif self._state is ClientState.PROMPTED and self._waiting and not self._sent:
            word = self._waiting.popleft()
            self._sent.append(word)
            self._output.append(word + LF if self._framing is Framing.AUTO else word)
        self._watch_reply()

    def _watch_reply(self) -> None:
        """Run the reply timer exactly while a word is awaited."""
        awaited = self._sent or self._state is not ClientState.PROMPTED
        if not awaited:
            self._timers.stop(Timer.REPLY)
        elif not self._timers.is_running(Timer.REPLY):
            self._timers.start(Timer.REPLY, self._now + self._config.reply_timeout)


def _are_names(words: list[bytes]) -> bool:
    """Return whether no word is wrong; to look at many together takes a third of the time."""
    if not words or set(map(type, words)) != {bytes} or b"" in words or EXIT in words:
        return False
    together = b"".join(words)
    is_long = len(together) > MAX_NAME_SIZE and max(map(len, words)) > MAX_NAME_SIZE
    return not (is_long or CR in together or LF in together)


def _check_name(name: bytes) -> None:
    if not isinstance(name, bytes):
        msg = f"a name must be bytes, not {type(name).__name__}"
    elif name == EXIT:
        msg = "exit is not a name; send_exit says it"
    elif CR in name or LF in name:
        msg = f"a name cannot contain CR or LF, as this one does: {name[:64]!r}"
    elif not name:
        msg = "a name cannot be empty"
    elif len(name) > MAX_NAME_SIZE:
        msg = f"a name has at most {MAX_NAME_SIZE} bytes, and this one has more: {name[:32]!r}..."
    else:
        return
    raise LocalProtocolError(msg)
