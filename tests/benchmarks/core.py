"""The core alone, in this process: what it costs to turn bytes into events and bytes.

Beside it, in the same run, stands a loop that splits, formats and joins, name by name, and knows no timers, no events
and no limits. What both say is compared with what they should have said, after the clock has been read.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from greeter_core import NamesReceived, ServerConnection, ServerEvent

from .load import Measured
from .servers import answer
from .wire import PROMPT, WELCOME, exchange

CHUNK_SIZE = 65536  # bytes; what Greeter reads at once
SINGLES = 5000  # names, each in a chunk of its own

Answer: TypeAlias = Callable[[Sequence[bytes]], tuple[int, list[bytes]]]
"""Answer chunks; return the nanoseconds of CPU time that this took, and the output."""


class WrongOutputError(Exception):
    """The core, or the loop beside it, said something else than it should have."""


def in_chunks(run: Answer) -> Measured:
    """Measure a stream of 65,536 lines of 13 bytes, cut into chunks: CPU in nanoseconds per name."""
    chunks, reply = _chunks()
    return Measured(cost=_verified(run, chunks, reply) / CHUNK_SIZE, count=CHUNK_SIZE)


def singly(run: Answer) -> Measured:
    """Measure names that come one at a time: CPU in microseconds per exchange."""
    lines, reply = _singles()
    return Measured(cost=_verified(run, lines, reply) / 1000 / len(lines), count=len(lines))


@functools.cache
def _chunks() -> tuple[Sequence[bytes], bytes]:
    lines, reply = exchange(0, CHUNK_SIZE)  # that makes 13 chunks, most of which end within a name
    return [lines[at : at + CHUNK_SIZE] for at in range(0, len(lines), CHUNK_SIZE)], reply


@functools.cache
def _singles() -> tuple[Sequence[bytes], bytes]:
    lines, replies = zip(*map(exchange, range(SINGLES)), strict=True)
    return lines, b"".join(replies)


def _verified(run: Answer, chunks: Sequence[bytes], reply: bytes) -> int:
    spent, output = run(chunks)
    if b"".join(output) != reply:
        msg = f"{run.__name__} has not said what it should have said to {len(chunks)} chunks"
        raise WrongOutputError(msg)
    return spent


def answer_with_core(chunks: Sequence[bytes]) -> tuple[int, list[bytes]]:
    """Do with each chunk what an adapter does."""
    connection = ServerConnection(now=0.0)
    connection.handle_timeout(1.0)
    if connection.data_to_send() != WELCOME + PROMPT:
        msg = "the core has not begun as it should have begun"
        raise WrongOutputError(msg)
    now, deadline = 1.0, 0.0
    output: list[bytes] = []
    events: list[ServerEvent] = []
    before = time.process_time_ns()
    for chunk in chunks:
        now += 0.0001  # it moves on, and the deadline with it
        connection.receive_data(chunk, now)
        output.append(connection.data_to_send())
        events += connection.events()
        deadline = connection.deadline
    spent = time.process_time_ns() - before
    names = [name for event in events if isinstance(event, NamesReceived) for name in event.names]
    if names != b"".join(chunks).splitlines() or deadline <= now:
        msg = f"the core has reported {len(names)} names, which are not those that it was told"
        raise WrongOutputError(msg)
    return spent, output


def answer_with_loop(chunks: Sequence[bytes]) -> tuple[int, list[bytes]]:
    """Do with each chunk what the epoll loop does."""
    tail = b""
    output: list[bytes] = []
    before = time.process_time_ns()
    for chunk in chunks:
        reply, tail, _ = answer(tail + chunk)
        output.append(reply)
    return time.process_time_ns() - before, output


CORE: Final[Mapping[str, Mapping[str, Callable[[], Measured]]]] = {
    "core": {
        "loop": functools.partial(in_chunks, answer_with_loop),
        "core": functools.partial(in_chunks, answer_with_core),
    },
    "core, singly": {
        "loop": functools.partial(singly, answer_with_loop),
        "core": functools.partial(singly, answer_with_core),
    },
}
"""What is measured, and for each what is compared with the first."""
