"""The core alone, in this process: the cost of turning bytes into events and bytes.

Beside it, in the same run, a naive loop splits lines, formats and joins, name by name; it has no
timers, no events and no limits. Both outputs are verified after the clock was read.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from greeter_core import NamesReceived, ServerConnection, ServerEvent
from tests.support.crowds import exchange

from .servers import OPENING, answer
from .workloads import Measured

CHUNK_SIZE = 16384  # bytes; as much as the server receives at once
LINES = 65536  # names of 12 bytes, in 52 chunks, most of which end within a name
SINGLES = 5000  # names, each in a chunk of its own

Answer: TypeAlias = Callable[[Sequence[bytes]], tuple[int, list[bytes]]]
"""Answer chunks; return the CPU time that this took, in nanoseconds, and the output."""


class WrongOutputError(Exception):
    """The core, or the loop beside it, returned something else than it should have."""


def in_chunks(run: Answer) -> Measured:
    """Measure 65,536 lines of 13 bytes, cut into chunks: CPU in ns per name."""
    lines, reply = exchange(0, LINES)
    chunks = [lines[at : at + CHUNK_SIZE] for at in range(0, len(lines), CHUNK_SIZE)]
    return Measured(cost=_verified(run, chunks, reply) / LINES, count=LINES)


def singly(run: Answer) -> Measured:
    """Measure names that arrive one at a time: CPU in µs per name."""
    lines, replies = zip(*map(exchange, range(SINGLES)), strict=True)
    return Measured(cost=_verified(run, lines, b"".join(replies)) / 1000 / SINGLES, count=SINGLES)


def _verified(run: Answer, chunks: Sequence[bytes], reply: bytes) -> int:
    spent, output = run(chunks)
    if b"".join(output) != reply:
        raise WrongOutputError(f"{run.__name__} gave a wrong reply to {len(chunks)} chunks")
    return spent


def answer_with_core(chunks: Sequence[bytes]) -> tuple[int, list[bytes]]:
    """Do with each chunk what an adapter does."""
    connection = ServerConnection(now=0.0)
    connection.handle_timeout(1.0)
    if connection.data_to_send() != OPENING:
        raise WrongOutputError("the core did not send WELCOME and PROMPT first")
    now, deadline = 1.0, 0.0
    output: list[bytes] = []
    events: list[ServerEvent] = []
    before = time.process_time_ns()
    for chunk in chunks:
        now += 0.0001  # so the deadline moves, too
        connection.receive_data(chunk, now)
        output.append(connection.data_to_send())
        events += connection.events()
        deadline = connection.deadline
    spent = time.process_time_ns() - before
    names = [name for event in events if isinstance(event, NamesReceived) for name in event.names]
    if names != b"".join(chunks).splitlines() or deadline <= now:
        raise WrongOutputError(
            f"the core reported {len(names)} names, which are not those that were sent"
        )
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
    load: {
        "loop": functools.partial(measure, answer_with_loop),
        "core": functools.partial(measure, answer_with_core),
    }
    for load, measure in {"core": in_chunks, "core-singly": singly}.items()
}
"""What is measured, and for each what is compared with the first, the base."""
