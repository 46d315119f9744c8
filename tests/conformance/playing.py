"""From a case of the corpus to a script that a client can play over a socket. No I/O here.

A transcript has the time of each input. A client decides when some of them come; the others are
the server's own. And what is sent over a network comes a little later than it was sent. So a case
can be played if all that its outcome depends on is the client's to decide, with some time to spare.
"""

import enum
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import attrs

from greeter_core import ServerConfig, ServerConnection, Step, StepInput

from .corpus import Case

MARGIN: Final = 0.1
"""Seconds; an input that is nearer to a deadline, or to the input before it, is not played."""

LONGEST: Final = 10.0
"""Seconds that a case may take."""


class Act(enum.Enum):
    """What the client does, or has done to the server."""

    CONNECT = "connect"
    SEND = "send"
    END = "end"  #: end the stream, by a half-close
    RESET = "reset"
    SHUT_DOWN = "shut down"  #: have the server shut down
    WAIT = "wait"  #: do nothing: what comes is due to the server's own timers


@attrs.frozen
class Turn:
    """Something that the client does, and what the server has to say then."""

    act: Act
    at: float
    """Seconds since the opening."""
    data: bytes = b""
    """What to send."""
    says: bytes = b""
    """What the server says next."""
    ends: bool = False
    """Whether it ends its stream after that."""
    closes: bool = False
    """Whether it closes its socket although the client does not: linger is over."""


@attrs.frozen
class Script:
    """A case that can be played."""

    config: ServerConfig
    turns: tuple[Turn, ...]

    @property
    def shuts_down(self) -> bool:
        """Whether the server has to be shut down, which ends the whole process."""
        return any(turn.act is Act.SHUT_DOWN for turn in self.turns)


class NotPlayableError(Exception):
    """A case cannot be played over a socket; the message says why."""


_ACTS: Final = {
    StepInput.OPEN: Act.CONNECT,
    StepInput.DATA: Act.SEND,
    StepInput.EOF: Act.END,
    StepInput.LOST: Act.RESET,
    StepInput.SHUTDOWN: Act.SHUT_DOWN,
    StepInput.TIMEOUT: Act.WAIT,
}


def script_of(case: Case) -> Script:
    """Return the script of a server's case; raise `NotPlayableError` if there can be none."""
    opening = case.opening.opening
    assert opening
    if not isinstance(opening.config, ServerConfig):
        raise NotPlayableError("it is about a client")
    if opening.full:
        raise NotPlayableError("a client cannot see to it that the server is full")
    steps = [*_with_effect([step for _, step in case.steps])]
    for before, step in pairwise(steps):
        if reason := _obstacle(before, step):
            raise NotPlayableError(reason)
    if sum(step.input is StepInput.SHUTDOWN for step in steps) > 1:
        raise NotPlayableError("a second signal need not be for a shutdown")
    if steps[-1].at > LONGEST:
        raise NotPlayableError(f"it takes longer than {LONGEST:g} s")
    script = Script(opening.config, tuple(_turn(step) for step in steps))
    if not _is_robust(script):
        raise NotPlayableError("two deadlines are too near to each other")
    return script


def _with_effect(steps: list[Step]) -> Iterator[Step]:
    """Yield all steps but timeouts that come early: an adapter may call as often as it likes."""
    yield steps[0]
    for before, step in pairwise(steps):
        if step.input is not StepInput.TIMEOUT or step.at >= before.deadline:
            yield step


def _obstacle(before: Step, step: Step) -> str:
    """Return why this step cannot be played after the one before it; `""` if it can."""
    if step.input is StepInput.IN_FLIGHT:
        return "the server asks its kernel what has been acknowledged"
    if step.at > before.deadline:
        return "the server is late"
    if step.input is StepInput.TIMEOUT:
        return ""
    if step.at > before.deadline - MARGIN:
        return "it is too near to a deadline"
    is_near = step.at < before.at + MARGIN and step.input is not StepInput.LOST  # it has no time
    return "it is too near to what comes before it" if is_near else ""


def _turn(step: Step) -> Turn:
    act = _ACTS[step.input]
    closes = act is Act.WAIT and step.state.is_ended
    return Turn(act, step.at, step.data, step.output, step.eof, closes)


def _is_robust(script: Script) -> bool:
    """Say whether the core says the same, turn by turn, if all that the client does comes late."""
    server = ServerConnection(script.config, now=0.0)
    for turn in script.turns:
        match turn.act:
            case Act.SEND:
                server.receive_data(turn.data, turn.at + MARGIN / 2)
            case Act.END:
                server.receive_eof(turn.at + MARGIN / 2)
            case Act.RESET:
                server.connection_lost()
            case Act.SHUT_DOWN:
                server.shutdown(turn.at + MARGIN / 2)
            case Act.WAIT:
                server.handle_timeout(server.deadline)
        if (server.data_to_send(), server.eof_to_send()) != (turn.says, turn.ends):
            return False
    return True
