"""The server's side of the conversation (PROTOCOL.md, S)."""

from ._config import Framing, ServerConfig, check_config
from ._connection import Connection
from ._events import EndReason, EOFReceived, ExitReceived, Names, NamesReceived, Refusal, Refused, ServerEvent
from ._framing import Framer
from ._states import SERVER_TRANSITIONS, Input, ServerState
from ._timers import Timer
from ._wire import BANG, BETWEEN_NAMES, GOODBYE, HELLO, LF, PROMPT, WELCOME, hello, sorry

# These are looked up for each name. As attributes of their enums each look-up would take 50 ns (Python 3.11).
_AUTO, _LINES = Framing.AUTO, Framing.LINES
_PACE, _QUIET, _IDLE = Timer.PACE, Timer.QUIET, Timer.IDLE
_NAMES = Input.NAMES


class ServerConnection(Connection[ServerState, ServerEvent]):
    """A server that greets one client.

    `now` is when the connection was opened, in seconds on the clock that every other call uses. WELCOME is waiting to
    be sent as soon as the object exists. Where the server is `full`, it is SORRY instead, and the server is closing.
    """

    def __init__(
        self,
        config: ServerConfig = ServerConfig(),  # noqa: B008 - it is frozen
        *,
        now: float,
        full: bool = False,
    ) -> None:
        check_config(config, ServerConfig)
        super().__init__(ServerState.OPEN, SERVER_TRANSITIONS, config.linger, now)
        self._config = config
        self._framer = Framer(config.framing, config.max_name_size)
        if full:
            self._refuse(Input.FULL, Refusal.FULL, "the server is full", self._now)
            return
        self._say(WELCOME)
        self._owe_prompt(self._now)
        self._timers.start(_IDLE, self._now + config.idle_timeout)
        self._timers.start(Timer.LIFETIME, self._now + config.max_lifetime)

    @property
    def framing(self) -> Framing:
        """How names end: AUTO until that is known."""
        return self._framer.framing

    # What happens

    def _data_received(self, data: bytes) -> None:
        block, ending = self._framer.feed(data)
        if self._framer.framing is _AUTO:
            self._timers.start(_QUIET, self._now + self._config.quiet)
        else:
            self._timers.stop(_QUIET)
        self._answer(block, ending, self._now)

    def _eof_received(self) -> None:
        self._answer(*self._framer.end_tail(), self._now)
        self._events.append(EOFReceived())
        self._close(Input.EOF, EndReason.EOF, self._now)

    def _shut_down(self) -> None:
        self._say_goodbye(Input.SHUTDOWN, EndReason.SHUTDOWN, self._now)

    def _timer_fired(self, timer: Timer, when: float) -> None:
        match timer:
            case Timer.PACE:
                self._output.append(PROMPT)
            case Timer.QUIET:
                self._answer(*self._framer.guess_raw(), when)
            case Timer.IDLE:
                self._refuse(Input.IDLE, Refusal.IDLE, "no name came in time", when)
            case _:  # LIFETIME
                self._say_goodbye(Input.LIFETIME, EndReason.LIFETIME, when)

    # What is said

    def _answer(self, block: bytes, ending: Input | None, when: float) -> None:
        """Answer names, each followed by LF, and then what ends the conversation."""
        if block:
            self._greet(block, when)
        match ending:
            case Input.EXIT:
                self._events.append(ExitReceived())
                self._say(GOODBYE)
                self._close(Input.EXIT, EndReason.EXIT, when)
            case Input.TOO_LONG:
                limit = f"names are limited to {self._config.max_name_size} bytes"
                self._refuse(Input.TOO_LONG, Refusal.NAME_TOO_LONG, limit, when)

    def _greet(self, block: bytes, when: float) -> None:
        self._move(_NAMES)
        if block.startswith(LF) or LF + LF in block:
            names = self._greet_with_blanks(block, when)
        else:
            names = block[:-1]
            self._say_hellos(names)
        self._owe_prompt(when)
        if names:
            self._events.append(NamesReceived(Names(names)))
            self._timers.start(_IDLE, when + self._config.idle_timeout)

    def _greet_with_blanks(self, block: bytes, when: float) -> bytes:
        """Say all but the last PROMPT for lines of which some are empty; return those that are not."""
        lines = block.split(LF)[:-1]
        names = LF.join(filter(None, lines))
        if self._framer.framing is _LINES:
            self._say(PROMPT.join([hello(line) if line else b"" for line in lines]))
        elif names:
            if not lines[0]:
                self._owe_prompt(when)
            self._say_hellos(names)
        return names

    def _say_goodbye(self, what: Input, reason: EndReason, when: float) -> None:
        """End the conversation, though the client has not asked for it: first answer a tail that may be a name."""
        if self._framer.framing is _AUTO:
            self._answer(*self._framer.end_tail(), when)
        if self._state.is_open:
            self._say(GOODBYE)
            self._close(what, reason, when)

    def _close(self, what: Input, reason: EndReason, when: float) -> None:
        self._framer.clear()
        super()._close(what, reason, when)

    def _refuse(self, what: Input, reason: Refusal, words: str, when: float) -> None:
        word = sorry(words)
        self._events.append(Refused(reason, word[:-1]))
        self._say(word)
        self._close(what, EndReason.REFUSED, when)

    def _say_hellos(self, names: bytes) -> None:
        """Greet names that are separated by LFs, a PROMPT between each two.

        One `replace` over the whole block costs a fraction of a loop over its names.
        """
        self._say(HELLO, names.replace(LF, BETWEEN_NAMES), BANG)

    # A PROMPT is owed exactly while the pace timer runs.

    def _say(self, *words: bytes) -> None:
        if self._timers.is_running(_PACE):
            self._timers.stop(_PACE)
            self._output.append(PROMPT)
        self._output.extend(words)

    def _owe_prompt(self, when: float) -> None:
        if self._peer_eof:
            return  # nobody is left to be asked
        if self._framer.framing is _LINES:
            self._output.append(PROMPT)
        elif not self._timers.is_running(_PACE):
            self._timers.start(_PACE, when + self._config.pace)
