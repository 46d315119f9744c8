"""Replaying a transcript: the same inputs at the same times have the same outputs (T5)."""

from collections.abc import Iterable
from typing import Any

import attrs

from ._client import ClientConnection
from ._config import ServerConfig
from ._errors import LocalProtocolError
from ._recorder import Recorder, Write
from ._server import ServerConnection
from ._steps import Opening, Step, StepInput, TranscriptItem
from ._transcript import Line, TranscriptError


@attrs.frozen
class Difference:
    """A step that does not come out as it was recorded."""

    line: int
    """Its number in the file."""
    expected: Step
    """What was recorded."""
    got: Step
    """What comes of the same input now."""

    @property
    def fields(self) -> list[str]:
        """The names of the fields that differ."""
        names = [each.name for each in attrs.fields(Step)]
        return [name for name in names if getattr(self.expected, name) != getattr(self.got, name)]


def replay(lines: Iterable[Line]) -> Difference | None:
    """Give the recorded inputs to new connections; return the first difference, if there is one.

    `lines` come from `read_transcript`. It takes them one by one, and keeps only the connections
    that go on. Raises `TranscriptError` for an input that the connection refuses.
    """
    connections: dict[int, Recorder[Any]] = {}
    got: list[TranscriptItem] = []
    for number, step in lines:
        if not isinstance(step, Step):
            continue
        try:
            if step.opening:
                connections[step.id] = _opened(step, step.opening, got.append)
            else:
                _give(connections[step.id], step)
        except LocalProtocolError as exc:
            raise TranscriptError(number, f"no connection takes this input: {exc}") from None
        again = got.pop()
        if again != step:
            assert isinstance(again, Step)  # noqa: S101 - nothing else was written
            return Difference(number, step, again)
        if step.state.is_ended:
            del connections[step.id]
    return None


def _opened(step: Step, opening: Opening, write: Write) -> Recorder[Any]:
    connection: ServerConnection | ClientConnection
    if isinstance(opening.config, ServerConfig):
        connection = ServerConnection(opening.config, now=0.0, full=opening.full)
    else:
        connection = ClientConnection(opening.config, now=0.0)
    return Recorder(connection, write, now=0.0, id=step.id, began=opening.began, peer=opening.peer)


def _give(connection: Recorder[Any], step: Step) -> None:
    """Give a connection the input of a step, and take its outputs."""
    match step.input:
        case StepInput.DATA:
            connection.receive_data(step.data, step.at)
        case StepInput.EOF:
            connection.receive_eof(step.at)
        case StepInput.TIMEOUT:
            connection.handle_timeout(step.at)
        case StepInput.IN_FLIGHT:
            connection.data_in_flight(step.at)
        case StepInput.SHUTDOWN:
            connection.shutdown(step.at)
        case StepInput.NAMES:
            connection.send_names(step.names, step.at)
        case StepInput.EXIT:
            connection.send_exit(step.at)
        case _:  # LOST; an OPEN is not given, but makes the connection
            connection.connection_lost()
    connection.data_to_send()
    connection.eof_to_send()
    connection.events()
