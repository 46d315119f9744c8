"""Recording: a connection that reports each of its steps, and otherwise is the one it wraps."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from ._client import ClientConnection
from ._config import ClientConfig, Framing, ServerConfig
from ._connection import Connection
from ._errors import LocalProtocolError
from ._server import ServerConnection
from ._steps import Observed, Opening, Step, StepInput, TranscriptItem
from ._validators import checked_time

ConnectionT = TypeVar("ConnectionT", bound=ServerConnection | ClientConnection)
Write: TypeAlias = Callable[[TranscriptItem], object]
"""Called with each item of a transcript, in order; what it raises, the input's caller gets."""


class Recorder(Connection[Any, Any], Generic[ConnectionT]):
    """A connection in place of another one, of which it reports each step; with the same interface.

    `connection` must be new, and made with `now=0.0`: it lives on the conversation's own clock,
    which begins with its opening. So a replay is exact to the last bit. `now` is the time of the
    opening on the caller's clock, on which the recorder takes all times and gives `deadline`.

    `write` is called with a `Step` for each input, after the connection has handled it; `id` tells
    conversations of one transcript apart, `began` is when this one was opened, in seconds from the
    beginning of the recording, and `peer` the peer's address. With the step whose state is ENDED
    the record is complete: what comes after it has no effect (E4), and is not reported.

    Like any connection it wants its outputs taken after every input.
    """

    def __init__(  # noqa: PLR0913 - `Recording` gives most of them
        self,
        connection: ConnectionT,
        write: Write,
        *,
        now: float,
        id: int = 1,  # noqa: A002 - the transcript's word
        began: float = 0.0,
        peer: str | None = None,
    ) -> None:
        if connection.time != 0:
            raise LocalProtocolError(
                "a connection to be recorded must be new, and made with now=0.0, not "
                f"now={connection.time!r}"
            )
        self._connection = connection
        self._write = write
        self._opened = float(checked_time(now))
        self._id = id
        self.reads_while_sending: bool = connection.reads_while_sending
        self._output: list[bytes] = []
        self._eof_owed = False
        self._events: list[Any] = []
        self._deadline = math.inf
        self._is_complete = False  # nothing more will be reported
        full = not connection.state.is_open  # nothing else closes a server that is new
        opening = Opening(config=connection.config, full=full, peer=peer, began=began)
        self._step(StepInput.OPEN, opening=opening)

    def observe(self, what: str, now: float, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """Report something that was seen around the connection: JSON values, by their names."""
        at = float(checked_time(now)) - self._opened
        self._write(Observed(id=self._id, at=at, what=what, fields=fields))

    # Inputs

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        data = bytes(data) if isinstance(data, (bytearray, memoryview)) else data
        self._connection.receive_data(data, self._at(now))
        self._step(StepInput.DATA, data=data)

    def receive_eof(self, now: float) -> None:
        self._connection.receive_eof(self._at(now))
        self._step(StepInput.EOF)

    def handle_timeout(self, now: float) -> None:
        self._connection.handle_timeout(self._at(now))
        self._step(StepInput.TIMEOUT)

    def data_in_flight(self, now: float) -> None:
        self._connection.data_in_flight(self._at(now))
        self._step(StepInput.IN_FLIGHT)

    def shutdown(self, now: float) -> None:
        self._connection.shutdown(self._at(now))
        self._step(StepInput.SHUTDOWN)

    def connection_lost(self) -> None:
        self._output.clear()
        self._connection.connection_lost()
        self._step(StepInput.LOST)
        self._eof_owed = False

    # A client's inputs, and its question. A server has no such methods.

    def send_name(self: "Recorder[ClientConnection]", name: bytes, now: float) -> None:
        """Do what `ClientConnection.send_name` does."""
        self.send_names([name], now)

    def send_names(self: "Recorder[ClientConnection]", names: Iterable[bytes], now: float) -> None:
        """Do what `ClientConnection.send_names` does."""
        if isinstance(names, Iterable) and not isinstance(names, (bytes, bytearray, str)):
            names = tuple(names)
        was_open = self._connection.state.is_open
        try:
            self._connection.send_names(names, self._at(now))
        except LocalProtocolError:
            if was_open and not self._connection.state.is_open:
                self._step(StepInput.TIMEOUT)  # it came too late: the time has passed (E2)
            raise
        self._step(StepInput.NAMES, names=tuple(names))

    def send_exit(self: "Recorder[ClientConnection]", now: float) -> None:
        """Do what `ClientConnection.send_exit` does."""
        self._connection.send_exit(self._at(now))
        self._step(StepInput.EXIT)

    @property
    def unanswered(self: "Recorder[ClientConnection]") -> Sequence[bytes]:
        """The names that were asked and not greeted, in order."""
        return self._connection.unanswered

    @property
    def unsent(self: "Recorder[ClientConnection]") -> int:
        """How many of these are not sent yet."""
        return self._connection.unsent

    # Outputs

    def data_to_send(self) -> bytes:
        data = b"".join(self._output)
        self._output.clear()
        return data

    def eof_to_send(self) -> bool:
        if self._output or not self._eof_owed:
            return False
        self._eof_owed = False
        return True

    def events(self) -> list[Any]:
        events, self._events = self._events, []
        return events

    # Questions

    @property
    def deadline(self) -> float:
        return self._deadline

    @property
    def prompt_owed(self) -> bool:
        return self._connection.prompt_owed

    @property
    def state(self) -> Any:  # noqa: ANN401 - of either role
        return self._connection.state

    @property
    def framing(self) -> Framing:
        return self._connection.framing

    @property
    def finished(self) -> bool:
        return self._connection.state.is_ended and not self._eof_owed

    @property
    def time(self) -> float:
        return self._connection.time + self._opened

    # A step

    def _at(self, now: float) -> float:
        return float(checked_time(now)) - self._opened

    def _step(
        self,
        what: StepInput,
        *,
        opening: Opening | None = None,
        data: bytes = b"",
        names: Sequence[bytes] = (),
    ) -> None:
        """Take what came of an input, and report it."""
        connection = self._connection
        output, eof, events = (
            connection.data_to_send(),
            connection.eof_to_send(),
            connection.events(),
        )
        if not connection.state.is_open and isinstance(connection, ClientConnection):
            self._output.clear()  # a client that closes drops what nobody has taken
        if output:
            self._output.append(output)
        self._eof_owed = self._eof_owed or eof
        self._events += events
        deadline = connection.deadline
        self._deadline = self._on_callers_clock(deadline)
        if self._is_complete:
            return
        state = connection.state
        self._is_complete = state.is_ended
        self._write(
            Step(
                id=self._id,
                at=connection.time,
                input=what,
                opening=opening,
                data=data,
                names=names,
                output=output,
                eof=eof,
                events=events,
                deadline=deadline,
                state=state,
                framing=connection.framing,
            )
        )

    def _on_callers_clock(self, deadline: float) -> float:
        """Return the first time that the connection takes for its deadline, or a later time."""
        opened = self._opened
        if deadline == math.inf:
            return deadline
        # Rounded to the nearest float, the sum may be a time at which the connection's deadline has
        # not come yet: a driver that is woken then would call in vain, again and again.
        time = opened + deadline
        unit = math.ulp(max(abs(time), abs(opened), deadline))
        while time - opened < deadline:
            time += unit
        while time - unit - opened >= deadline:
            time -= unit
        return time


class Recording:
    """Makes connections that are recorded in one transcript, and numbers them from 1.

    `write` is called with the transcript's items; `now` is the beginning of the recording, on the
    clock that all its connections use. `server` and `client` take the place of `ServerConnection`
    and `ClientConnection`.
    """

    def __init__(self, write: Write, *, now: float) -> None:
        self._write = write
        self._began = float(checked_time(now))
        self._count = 0

    def server(
        self,
        config: ServerConfig = ServerConfig(),  # noqa: B008 - it is frozen
        *,
        now: float,
        full: bool = False,
        peer: str | None = None,
    ) -> Recorder[ServerConnection]:
        """Open a server's connection, with this address of its peer."""
        return self._recorder(ServerConnection(config, now=0.0, full=full), now, peer)

    def client(
        self,
        config: ClientConfig = ClientConfig(),  # noqa: B008 - it is frozen
        *,
        now: float,
        peer: str | None = None,
    ) -> Recorder[ClientConnection]:
        """Open a client's connection, with this address of its peer."""
        return self._recorder(ClientConnection(config, now=0.0), now, peer)

    def _recorder(
        self, connection: ConnectionT, now: float, peer: str | None
    ) -> Recorder[ConnectionT]:
        began = float(checked_time(now)) - self._began
        self._count += 1
        return Recorder(connection, self._write, now=now, id=self._count, began=began, peer=peer)
