"""Every way in which short conversations can go: a search through all states of both ends.

A *world* is two ends and the bytes under way between them. From each world all *moves* are tried:
any number of the bytes arrives, or the end of a stream; an end notices that something is due; a
second passes; an end is told to shut down; the connection breaks. Worlds that have the same future
are visited once, so the search ends.

All times are small whole numbers, so that whatever can be due together is due together. A second
may pass although something is due, because processes are late; but only while nothing is later than
`LATEST`, so everything that is due a second apart can be found due together.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import attrs

from greeter_core import (
    ClientConfig,
    ConversationEnded,
    EndReason,
    Framing,
    Greeted,
    NamesReceived,
    ServerConfig,
    ServerConnection,
)
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

LATEST: Final = 1  # seconds
PATIENCE: Final = 6  # seconds: the quarter of it is more than `pace` (S2.7)

_ValueT = TypeVar("_ValueT")
_Key = tuple[object, ...]

Move = tuple[str, str, int]
"""Which end, what happens to it, and how many bytes arrive."""


class Violation(AssertionError):
    """What must not happen, and the moves that lead there."""

    def __init__(self, what: str, moves: Sequence[Move]) -> None:
        steps = [f"  {end}: {what}{f' {size}' if size else ''}\n" for end, what, size in moves]
        super().__init__(f"{what}, after\n{''.join(steps)}")
        self.what = what
        self.moves = moves


def server_config(framing: Framing, idle_timeout: float = 4) -> ServerConfig:
    """Return a configuration whose times are small whole numbers."""
    return ServerConfig(framing=framing, pace=1, quiet=2, idle_timeout=idle_timeout, linger=2)


def client_config(framing: Framing) -> ClientConfig:
    """Return such a configuration for a client."""
    return ClientConfig(framing=framing, reply_timeout=5, linger=2)


class Script:
    """An original script, as far as it looks like a connection: it has no timers."""

    deadline = math.inf
    prompt_owed = False

    def __init__(self) -> None:
        self.heard: tuple[bytes, ...] = ()
        self.output = b""
        self.eof = False
        self.reason: EndReason | None = None

    def receive_eof(self, _: float) -> None:
        self.eof = True
        self.reason = self.reason or EndReason.EOF

    def data_to_send(self) -> bytes:
        data, self.output = self.output, b""
        return data

    def eof_to_send(self) -> bool:
        eof, self.eof = self.eof, False
        return eof

    def events(self) -> list[object]:
        return [ConversationEnded(self.reason)] if self.reason else []


class OriginalClient(Script):
    """It takes what one `recv` returns for one word, and sends names without terminators."""

    def __init__(self, names: Sequence[bytes]) -> None:
        super().__init__()
        self.says = (*names, b"exit")

    def receive_data(self, data: bytes, _: float) -> None:
        self.heard += (data,)
        asked, is_answer = divmod(len(self.heard) - 1, 2)
        if is_answer == 0 and asked == len(self.says):
            self.eof, self.reason = True, EndReason.EXIT
        elif is_answer:
            self.output = self.says[asked]

    @property
    def words(self) -> tuple[bytes, ...]:
        """What it must hear, in one `recv` each."""
        greetings = (word for name in self.says[:-1] for word in (PROMPT, hello(name)))
        return (WELCOME, *greetings, PROMPT, GOODBYE)


class OriginalServer(Script):
    """It takes what one `recv` returns for one name."""

    def __init__(self) -> None:
        super().__init__()
        self.output = WELCOME + PROMPT

    def receive_data(self, data: bytes, _: float) -> None:
        self.heard += (data,)
        self.output = GOODBYE if data == b"exit" else hello(data) + PROMPT
        if data == b"exit":
            self.eof, self.reason = True, EndReason.EXIT


@attrs.define(slots=False)
class End:
    """One end: a connection, and what an adapter sees of it."""

    connection: Any
    names: tuple[bytes, ...] = ()
    """Those that it has reported: received by a server, greeted for a client."""
    ended: ConversationEnded | None = None
    says: bytes = b""
    """What it has said, and has not arrived."""
    says_eof: bool = False
    has_heard_eof: bool = False

    def key(self, now: float) -> _Key:
        """Return all on which the future depends; times count from the present."""
        rest = (self.names, self.ended, self.says, self.says_eof, self.has_heard_eof)
        return rest if self.ended else (*rest, _key(self.connection, now))

    def take(self) -> None:
        """Take all outputs, as an adapter does after each input."""
        data = self.connection.data_to_send()
        assert not (data and self.says_eof), "something is said after the end of the stream"
        self.says += data
        self.says_eof |= self.connection.eof_to_send()
        for event in self.connection.events():
            assert self.ended is None or isinstance(self.connection, Script), "reported too late"
            match event:
                case NamesReceived(names):
                    self.names += tuple(names)
                case Greeted(name):
                    self.names += (name,)
                case ConversationEnded():
                    self.ended = event


# What a connection has, by kinds; a test sees to it that nothing is left out. Outputs are taken
# after each input, so `EMPTY` are empty wherever a world is copied or compared.
SHARED: Final = {"_config", "_transitions", "_linger"}
TIMES: Final = {"_now", "_owed_since"}
QUEUES: Final = {"_sent", "_waiting"}
EMPTY: Final = {"_output", "_events"}
PARTS: Final = {"_timers", "_framer"}
VALUES: Final = {
    *("_state", "_peer_eof", "_eof_owed", "_reason"),
    *("_framing", "_buffer", "_exit_asked"),
}


def _copied(connection: Any) -> Any:
    """Return a connection that goes its own way."""
    copied = _clone(connection)
    if not isinstance(connection, Script):
        has = vars(copied)
        for name in has.keys() & (QUEUES | EMPTY):
            has[name] = has[name].copy()
        for name in has.keys() & PARTS:
            part, old = object.__new__(type(has[name])), has[name]
            for slot in type(old).__slots__:
                setattr(part, slot, getattr(old, slot))
            has[name] = part
        has["_timers"]._deadlines = has["_timers"]._deadlines.copy()
    return copied


def _clone(value: _ValueT) -> _ValueT:
    """Do what `copy.copy` does for a value with a `__dict__`, in a third of the time."""
    clone = object.__new__(type(value))
    clone.__dict__.update(value.__dict__)
    return clone


def _key(connection: Any, now: float) -> object:
    has = vars(connection)
    if isinstance(connection, Script):
        return tuple(has.values())
    values: list[object] = [each - now for each in has["_timers"]._deadlines]
    values += [has[name] for name in has.keys() & VALUES]
    values += [tuple(has[name]) for name in has.keys() & QUEUES]
    if isinstance(connection, ServerConnection):
        framer = has["_framer"]
        owed_for = now - has["_owed_since"] if connection.prompt_owed else None
        values += [framer.framing, framer.tail, owed_for]
    return tuple(values)


@attrs.define(slots=False)
class World:
    """Two ends, and what is under way between them."""

    client: End
    server: End
    now: float = 0
    may: frozenset[tuple[str, str]] = frozenset()
    """What may happen, once, besides what the ends and the network do: `("server", "shutdown")`."""
    is_lost: bool = False
    cuts_everywhere: bool = True
    """Whether any number of bytes may arrive at once, or only one or all of them."""
    asks_kernel: bool = False
    """Whether the server's adapter can tell that words are in flight (S2.7)."""

    def key(self) -> _Key:
        """Return all on which the future depends."""
        return (self.client.key(self.now), self.server.key(self.now), self.may, self.is_lost)

    @property
    def is_over(self) -> bool:
        """Whether both ends are."""
        return bool(self.client.ended and self.server.ended)

    def moves(self) -> Iterator[Move]:
        """Yield what may happen next."""
        for name, to, comes in self._ends():
            if to.ended:
                continue
            if self.is_lost:
                yield name, "loses the connection", 0
            elif comes.says:
                yield from ((name, "hears", size) for size in self._sizes(to, len(comes.says)))
            elif comes.says_eof and not to.has_heard_eof:
                yield name, "hears the end", 0
            if to.connection.deadline <= self.now:
                yield name, "notices that something is due", 0
            if (name, "shutdown") in self.may:
                yield name, "is told to shut down", 0
        if ("both", "lost") in self.may:
            yield "both", "connection breaks", 0
        deadlines = [end.connection.deadline for _, end, _ in self._ends() if not end.ended]
        is_late = self.now - min(deadlines, default=math.inf) >= LATEST
        if min(deadlines, default=math.inf) < math.inf and not (is_late or self._has_long_waited()):
            yield "both", "a second passes", 0

    def after(self, move: Move) -> "World":
        """Return the world after a move; raise `AssertionError` for what must not happen."""
        name, what, size = move
        world = _clone(self)
        if name == "both":
            if what == "a second passes":
                world.now += 1
            else:
                world.is_lost, world.may = True, self.may - {("both", "lost")}
            return world
        world.client, world.server = _clone(self.client), _clone(self.server)
        (end, other) = (world.client, world.server)
        if name == "server":
            end, other = other, end
        connection = end.connection = _copied(end.connection)
        match what:
            case "hears":
                data, other.says = other.says[:size], other.says[size:]
                connection.receive_data(data, world.now)
            case "hears the end":
                end.has_heard_eof = True
                connection.receive_eof(world.now)
            case "loses the connection":
                connection.connection_lost()
            case "is told to shut down":
                connection.shutdown(world.now)
                world.may -= {(name, "shutdown")}
            case _ if self.asks_kernel and connection.prompt_owed and end.says:
                connection.data_in_flight(world.now)
            case _:
                connection.handle_timeout(world.now)
        end.take()
        return world

    def _has_long_waited(self) -> bool:
        """Return whether words have been in flight for `PATIENCE` seconds: then they arrive."""
        connection = self.server.connection
        is_asking = self.asks_kernel and connection.prompt_owed and bool(self.server.says)
        return is_asking and self.now - connection._owed_since >= PATIENCE

    def _sizes(self, to: End, most: int) -> Sequence[int]:
        """Return how many bytes may arrive at once: of scripts, and at them, all of a segment."""
        is_of_script = isinstance(self.client.connection, Script) or isinstance(
            to.connection, Script
        )
        if is_of_script:
            return (most,)
        return range(1, most + 1) if self.cuts_everywhere else sorted({1, most})

    def _ends(self) -> tuple[tuple[str, End, End], tuple[str, End, End]]:
        return ("client", self.client, self.server), ("server", self.server, self.client)


def explore(world: World, check: Callable[[World], object]) -> int:
    """Visit all worlds that can come of this one, and return how many there are.

    `check` is called with each, and raises `AssertionError` for what must not be. Raises
    `Violation` for that, with the shortest way there; and where a world that is not over has no
    future, or none in which it is over.
    """
    world.client.take()
    world.server.take()
    search = _Search(world)
    while search.todo:
        search.visit(*search.todo.popleft(), check)
    search.see_that_all_can_end()
    return len(search.before)


class _Search:
    """Breadth first, so that the first way to a world is a shortest one."""

    def __init__(self, world: World) -> None:
        key = world.key()
        self.todo = deque([(key, world)])
        self.before: dict[_Key, list[tuple[_Key, Move]]] = {key: []}
        """From which worlds each is reached, and how; the first is the one it was found from."""
        self._over: list[_Key] = []

    def visit(self, key: _Key, world: World, check: Callable[[World], object]) -> None:
        """Look at a world, and at all that can happen next."""
        try:
            check(world)
        except AssertionError as exc:
            raise Violation(str(exc), self._way(key)) from exc
        if world.is_over:
            self._over.append(key)
            return
        moves = [*world.moves()]
        if not moves:
            raise Violation("nothing can happen any more", self._way(key))
        for move in moves:
            try:
                following = world.after(move)
            except Exception as exc:
                raise Violation(f"{type(exc).__name__}: {exc}", [*self._way(key), move]) from exc
            next_key = following.key()
            if next_key not in self.before:
                self.before[next_key] = []
                self.todo.append((next_key, following))
            self.before[next_key].append((key, move))

    def see_that_all_can_end(self) -> None:
        """Go backwards from the worlds that are over; raise `Violation` if one is not reached."""
        good, todo = set(self._over), deque(self._over)
        while todo:
            for key, _ in self.before[todo.popleft()]:
                if key not in good:
                    good.add(key)
                    todo.append(key)
        for key in self.before:
            if key not in good:
                raise Violation("it cannot end any more", self._way(key))

    def _way(self, key: _Key) -> list[Move]:
        moves: list[Move] = []
        while self.before[key]:
            key, move = self.before[key][0]
            moves.insert(0, move)
        return moves
