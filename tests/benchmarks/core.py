"""The core alone, in this process: the cost of turning bytes into events and bytes.

Beside it, in the same run, a naive loop splits lines, formats and joins, name by name; it has no
timers, no events and no limits. Both outputs are verified after the clock was read.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from greeter_core import NamesReceived, ServerConnection, ServerEvent

from .servers import answer
from .wire import PROMPT, WELCOME, exchange
from .workloads import Measured

CHUNK_SIZE = 16384  # bytes; as much as the server receives at once
LINES = 65536  # names, in chunks
SINGLES = 5000  # names, each in a chunk of its own

Answer: TypeAlias = Callable[[Sequence[bytes]], tuple[int, list[bytes]]]
"""Answer chunks; return the CPU time that this took, in nanoseconds, and the output."""


class WrongOutputError(Exception):
    """The core, or the loop beside it, returned something else than it should have."""


def in_chunks(run: Answer) -> Measured:
    """Measure 65,536 lines of 13 bytes, cut into chunks: CPU in ns per name."""
    chunks, reply = _chunks()
    return Measured(cost=_verified(run, chunks, reply) / LINES, count=LINES)


def singly(run: Answer) -> Measured:
    """Measure names that arrive one at a time: CPU in µs per name."""
    lines, reply = _singles()
    return Measured(cost=_verified(run, lines, reply) / 1000 / len(lines), count=len(lines))


@functools.cache
def _chunks() -> tuple[Sequence[bytes], bytes]:
    lines, reply = exchange(0, LINES)  # 52 chunks, most of which end within a name
    return [lines[at : at + CHUNK_SIZE] for at in range(0, len(lines), CHUNK_SIZE)], reply


@functools.cache
def _singles() -> tuple[Sequence[bytes], bytes]:
    lines, replies = zip(*map(exchange, range(SINGLES)), strict=True)
    return lines, b"".join(replies)


def _verified(run: Answer, chunks: Sequence[bytes], reply: bytes) -> int:
    spent, output = run(chunks)
    if b"".join(output) != reply:
        msg = f"{run.__name__} gave a wrong reply to {len(chunks)} chunks"
        raise WrongOutputError(msg)
    return spent


def answer_with_core(chunks: Sequence[bytes]) -> tuple[int, list[bytes]]:
    """Do with each chunk what an adapter does."""
    connection = ServerConnection(now=0.0)
    connection.handle_timeout(1.0)
    if connection.data_to_send() != WELCOME + PROMPT:
        msg = "the core did not send WELCOME and PROMPT first"
        raise WrongOutputError(msg)
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
        msg = f"the core reported {len(names)} names, which are not those that were sent"
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
    "core-singly": {
        "loop": functools.partial(singly, answer_with_loop),
        "core": functools.partial(singly, answer_with_core),
    },
}
"""What is measured, and for each what is compared with the first, the base."""
