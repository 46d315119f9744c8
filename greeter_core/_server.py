"""The server's side of the conversation (PROTOCOL.md, S)."""

from collections.abc import Sequence

from ._config import Framing, ServerConfig, check_config
from ._events import (
    EOFReceived,
    ExitReceived,
    Names,
    NamesReceived,
    Refusal,
    Refused,
    ServerEvent,
)
from ._framing import Framer
from ._machine import Machine
from ._states import SERVER_TRANSITIONS, Input, ServerState
from ._timers import Timer
from ._wire import BANG, BETWEEN_NAMES, EXIT, GOODBYE, HELLO, LF, LF_BYTE, PROMPT, WELCOME, sorry

# Members looked up for each name: as attributes of their enums each takes 50 ns more (Python 3.11).
_AUTO, _LINES = Framing.AUTO, Framing.LINES
_PACE, _QUIET, _IDLE = Timer.PACE, Timer.QUIET, Timer.IDLE


class ServerConnection(Machine[ServerState, ServerEvent]):
    """A server that greets one client.

    `now` is when the connection was opened, on the clock that every other call uses. WELCOME waits
    to be sent as soon as the object exists; if the server is `full`, it is SORRY instead, and the
    server is closing.
    """

    reads_while_sending = False  # its output is a multiple of its input

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
        self._owed_since = self._now  # counts while a PROMPT is owed
        if full:
            self._refuse(Input.FULL, Refusal.FULL, "the server is full")
            return
        self._say(WELCOME)
        self._owe_prompt()
        self._timers.start(_IDLE, self._now + config.idle_timeout)
        self._timers.start(Timer.LIFETIME, self._now + config.max_lifetime)

    @property
    def config(self) -> ServerConfig:
        """How it behaves."""
        return self._config

    def data_in_flight(self, now: float) -> None:
        self._set_time(now)
        if self.prompt_owed:
            wait = max(self._config.pace, (self._now - self._owed_since) / 4)
            self._timers.start(_PACE, self._now + wait)
        self._fire_timers()

    @property
    def prompt_owed(self) -> bool:
        return self._timers.is_running(_PACE)

    @property
    def framing(self) -> Framing:
        return self._framer.framing

    # What happens

    def _data_received(self, data: bytes) -> None:
        framer = self._framer
        was_lines = framer.framing is _LINES
        names = framer.feed(data)
        if not was_lines:
            self._follow_framing()
        if names is not None:
            if LF_BYTE in names and framer.framing is _LINES:
                self._answer_lines(names)
            else:
                self._answer(names)
        # To look at the tail first saves 4 % of a name that comes alone.
        if framer.tail and framer.tail_is_too_long:
            self._refuse_long_name()

    def _follow_framing(self) -> None:
        """Wait for more bytes of an undecided tail (S4.2), or act on the decision (S2.3)."""
        if self._framer.framing is _AUTO:
            self._timers.start(_QUIET, self._now + self._config.quiet)
            return
        self._timers.stop(_QUIET)
        if self._framer.framing is _LINES:
            self._say_owed_prompt()

    def _eof_received(self) -> None:
        self._answer_tail()
        self._events.append(EOFReceived())
        self._close(Input.EOF)

    def _shut_down(self) -> None:
        self._say_goodbye(Input.SHUTDOWN)

    def _timer_fired(self, timer: Timer, deadline: float) -> None:
        match timer:
            case Timer.PACE:
                self._output.append(PROMPT)
            case Timer.QUIET:
                self._answer(self._framer.guess_raw())
                if self._state.is_open:  # the name was complete when that silence ended (T1)
                    self._timers.start(_IDLE, deadline + self._config.idle_timeout)
            case Timer.IDLE:
                self._refuse(Input.IDLE, Refusal.IDLE, "no name came in time")
            case _:  # LIFETIME
                self._say_goodbye(Input.LIFETIME)

    # What is answered

    def _answer(self, name: bytes) -> None:
        """Answer one name (S5, S6)."""
        if len(name) > self._config.max_name_size:
            self._refuse_long_name()
        elif name == EXIT:
            self._events.append(ExitReceived())
            self._say(GOODBYE)
            self._close(Input.EXIT)
        else:
            if name:
                self._say(HELLO + name + BANG)
                self._names_greeted((name,))
            self._owe_prompt()

    def _answer_lines(self, lines: bytes) -> None:
        """Do what `_answer` does, for several lines in a few steps, and with one event.

        The framing is LINES, so no PROMPT is owed from before. A hundred names that come together
        take a fifteenth of the time that way.
        """
        block, last = self._framer.cut(lines)
        names = block[:-1]
        if block.startswith(LF) or LF + LF in block:
            cut = names.split(LF)
            words = [HELLO + name + BANG + PROMPT if name else PROMPT for name in cut]
            self._output.extend(words)
            names = LF.join(filter(None, cut))
        elif names:
            self._output += [HELLO, names.replace(LF, BETWEEN_NAMES), BANG, PROMPT]
        if names:
            self._names_greeted(Names(names))
        if last:
            self._answer(last)

    def _answer_tail(self) -> None:
        """Answer what nothing has ended yet as a name, if there is any."""
        tail = self._framer.end_tail()
        if tail:
            self._answer(tail)

    def _names_greeted(self, names: Sequence[bytes]) -> None:
        self._events.append(NamesReceived(names))
        self._timers.start(_IDLE, self._now + self._config.idle_timeout)

    def _say_goodbye(self, what: Input) -> None:
        """End the conversation unasked: first answer a tail that may be a name (S10)."""
        if self._framer.framing is _AUTO:
            self._answer_tail()
        if self._state.is_open:
            self._say(GOODBYE)
            self._close(what)

    def _refuse_long_name(self) -> None:
        limit = f"names are limited to {self._config.max_name_size} bytes"
        self._refuse(Input.TOO_LONG, Refusal.NAME_TOO_LONG, limit)

    def _refuse(self, what: Input, reason: Refusal, words: str) -> None:
        word = sorry(words)
        self._events.append(Refused(reason, word[:-1]))
        self._say(word)
        self._close(what)

    def _close(self, what: Input) -> None:
        self._framer.tail = b""
        super()._close(what)

    def _unanswered(self) -> tuple[bytes, ...]:
        return ()

    # What is said. A PROMPT is owed exactly while the pace timer runs.

    def _say(self, words: bytes) -> None:
        """Say words, after the PROMPT that is owed (S2.4)."""
        self._say_owed_prompt()
        self._output.append(words)

    def _say_owed_prompt(self) -> None:
        if self._timers.is_running(_PACE):
            self._timers.stop(_PACE)
            self._output.append(PROMPT)

    def _owe_prompt(self) -> None:
        if self._peer_eof:
            return  # S7.1: there is no client left to ask
        if self._framer.framing is _LINES:
            self._output.append(PROMPT)
        else:
            self._owed_since = self._now
            self._timers.start(_PACE, self._now + self._config.pace)
