"""The core alone, in this process: what it costs to turn bytes into events and bytes.

Beside it, in the same run, stands a loop that splits, formats and joins, name by name, and knows no timers, no events
and no limits. What both say is compared with what they should have said, after the clock has been read.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from greeter_core import NamesReceived, ServerConnection, ServerEvent

from .servers import answer
from .wire import PROMPT, WELCOME, exchange

CHUNK_SIZE = 65536  # bytes; what Greeter reads at once

Run: TypeAlias = tuple[int, list[bytes]]
"""Nanoseconds of CPU time, and the output."""


class WrongOutputError(Exception):
    """The core, or the loop beside it, said something else than it should have."""


@attrs.frozen(kw_only=True)
class CoreMeasured:
    """One measurement."""

    core_ns: float  # per name, in chunks of 64 KiB
    loop_ns: float
    core_single_us: float  # per exchange of a single name
    loop_single_us: float
    count: int  # of names that were greeted and verified, by both together


def measure(*, passes: int = 8, singles: int = 10_000) -> CoreMeasured:
    """Measure `passes` streams of 65,536 names, cut into chunks, and one of `singles` names in a chunk each."""
    lines, reply = exchange(0, CHUNK_SIZE)  # 13 chunks, most of which end within a name
    chunks = [lines[at : at + CHUNK_SIZE] for at in range(0, len(lines), CHUNK_SIZE)]
    core = loop = 0
    for _ in range(passes):
        core += _verified(_core, chunks, reply)
        loop += _verified(_loop, chunks, reply)
    names, replies = zip(*map(exchange, range(singles)), strict=True)
    core_single = _verified(_core, names, b"".join(replies))
    loop_single = _verified(_loop, names, b"".join(replies))
    return CoreMeasured(
        core_ns=core / passes / CHUNK_SIZE,
        loop_ns=loop / passes / CHUNK_SIZE,
        core_single_us=core_single / 1000 / singles,
        loop_single_us=loop_single / 1000 / singles,
        count=2 * (passes * CHUNK_SIZE + singles),
    )


def _verified(run: Callable[[Sequence[bytes]], Run], chunks: Sequence[bytes], reply: bytes) -> int:
    spent, output = run(chunks)
    if b"".join(output) != reply:
        msg = f"{run.__name__} has not said what it should have said to {len(chunks)} chunks"
        raise WrongOutputError(msg)
    return spent


def _core(chunks: Sequence[bytes]) -> Run:
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
        now += 0.0001  # it moves on, so the deadline does
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


def _loop(chunks: Sequence[bytes]) -> Run:
    tail = b""
    output: list[bytes] = []
    before = time.process_time_ns()
    for chunk in chunks:
        reply, tail, _ = answer(tail + chunk)
        output.append(reply)
    return time.process_time_ns() - before, output
