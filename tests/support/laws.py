"""What the laws share: scripts of inputs, what is drawn, and how many examples are tried."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    Connection,
    Framing,
    LocalProtocolError,
    ServerConfig,
    ServerConnection,
)

from .words import GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello

AnyConnection: TypeAlias = ServerConnection | ClientConnection

Step = tuple[str, Any]
"""A method of a connection, and what it is given besides the time, or None."""

Script = list[tuple[float, Step]]
"""Steps with their times, which never decrease."""

WAIT: Step = ("handle_timeout", None)


@attrs.frozen
class Outcome:
    """All that a caller can know after a script."""

    stream: bytes
    eofs: int
    events: Sequence[object]
    errors: int
    state: object
    framing: Framing
    deadline: float
    finished: bool


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of scripts that were played one after another."""
    return attrs.evolve(
        outcomes[-1],
        stream=b"".join(outcome.stream for outcome in outcomes),
        eofs=sum(outcome.eofs for outcome in outcomes),
        events=[event for outcome in outcomes for event in outcome.events],
        errors=sum(outcome.errors for outcome in outcomes),
    )


def _taken(c: Connection[Any, Any], errors: int = 0) -> Outcome:
    stream, eofs, events = c.data_to_send(), int(c.eof_to_send()), c.events()
    return Outcome(stream, eofs, events, errors, c.state, c.framing, c.deadline, c.finished)


def play(connection: Connection[Any, Any], script: Iterable[tuple[float, Step]]) -> Outcome:
    """Play a script, taking all outputs before it and after every step."""
    outcomes = [_taken(connection)]
    for now, (method, argument) in script:
        arguments = [] if argument is None else [argument]
        if method == "connection_lost":  # it carries no time: what was due before it comes first
            connection.handle_timeout(now)
            outcomes.append(_taken(connection))
        else:
            arguments.append(now)
        errors = 0
        try:
            getattr(connection, method)(*arguments)
        except LocalProtocolError:  # a name after the end
            errors = 1
        outcomes.append(_taken(connection, errors))
    return together(outcomes)


# What the laws draw from

small_sizes = st.integers(1, 6)
"""Limits so low that random names often reach them; below 4 even `exit` is too long."""

client_bytes = st.lists(
    st.sampled_from(b"\n,\n,\r\n,\r,exit,exit\n,a,bc,Ada\n,12345,!".split(b",")),
    min_size=1,
    max_size=6,
).map(b"".join)
"""What a client may send: rich in everything that has a meaning."""

seconds = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 20.0])
"""Waits, in halves of a second: sums are exact, and coincidences frequent."""

lifetimes = st.sampled_from([math.inf, math.inf, 0.5, 1.5, 3.0, 20.0])
"""How long a conversation may last: often forever, so that it also comes to its other ends."""

server_configs = st.builds(
    ServerConfig,
    framing=st.sampled_from(Framing),
    max_name_size=small_sizes,
    pace=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    quiet=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    idle_timeout=st.sampled_from([0.5, 2.0, 3.0, 20.0, math.inf]),
    max_lifetime=lifetimes,
    linger=st.sampled_from([0.0, 1.0, 5.0]),
)

client_configs = st.builds(
    ClientConfig,
    framing=st.sampled_from(Framing),
    reply_timeout=st.sampled_from([0.5, 2.0, 3.0, 20.0, math.inf]),
    linger=st.sampled_from([0.0, 1.0, 5.0]),
)

client_names = st.sampled_from([b"a", b"Ada", b"Hello ", b"!", b"\x00\xff"])

_greetings = [hello(name) for name in ("a", "Ada", "a\n", "Ada\n", "exit\n")]
_words = st.sampled_from([WELCOME, PROMPT, *_greetings, GOODBYE, TOO_SLOW])
_streams = st.lists(_words, max_size=6).map(b"".join)
server_streams = st.one_of(
    _streams.map(lambda stream: WELCOME + PROMPT + stream),
    _streams,
    st.tuples(_streams, st.binary(max_size=4)).map(b"".join),
)
"""What a server may send: mostly sense, sometimes nonsense."""


def _timed(waits_and_steps: list[tuple[float, Step]]) -> Script:
    script: Script = []
    now, ended = 0.0, False
    for wait, step in waits_and_steps:
        now += wait
        if not (ended and step[0] == "receive_data"):
            script.append((now, step))
        ended = ended or step[0] == "receive_eof"
    return script


def _scripts(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Script]:
    """Draw scripts of these steps; no data comes after the end of the stream."""
    return st.lists(st.tuples(seconds, steps), max_size=8).map(_timed)


def _steps(*plain: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    steps = [st.tuples(st.just(what), argument) for what, argument in arguments.items()]
    return st.one_of(*steps, *(st.just((what, None)) for what in plain))


_ends = ("receive_eof", "shutdown", "connection_lost")
server_scripts = _scripts(
    st.one_of(
        _steps(receive_data=client_bytes),
        _steps("data_in_flight", *_ends, receive_data=client_bytes),
    )
)
client_scripts = _scripts(
    st.one_of(
        _steps(receive_data=server_streams.filter(bool), send_name=client_names),
        _steps("send_exit", *_ends, receive_data=_words, send_name=client_names),
    )
)


@attrs.frozen
class Case:
    """A connection that can be opened again and again, and what is to happen to it."""

    config: ServerConfig | ClientConfig
    script: Script
    full: bool = False

    def open(self, now: float = 0) -> AnyConnection:
        if isinstance(self.config, ServerConfig):
            return ServerConnection(self.config, now=now, full=self.full)
        return ClientConnection(self.config, now=now)

    def after(self, wait: float) -> float:
        """Return a time that long after the script."""
        return wait + (self.script[-1][0] if self.script else 0)


server_cases = st.builds(
    Case, server_configs, server_scripts, st.sampled_from([False] * 5 + [True])
)
client_cases = st.builds(Case, client_configs, client_scripts)
cases = st.one_of(server_cases, client_cases)

cut_sizes = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=8)


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes, taken in turn, again and again."""
    pieces: list[bytes] = []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]
    return pieces


EXPLORE = int(os.environ.get("GREETER_EXPLORE", "0"))
"""0: the same examples at every run. N: N times as many, drawn at random, to find new faults."""


def law(examples: int) -> settings:
    """Return the settings of a law that is tried with so many examples, on any machine."""
    return settings(
        max_examples=examples * max(EXPLORE, 1),
        derandomize=not EXPLORE,
        deadline=None,
        database=None,
    )
