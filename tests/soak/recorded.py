"""Conversations of all kinds under load, recorded, and replayed."""

import contextlib
import random
import socket
import struct
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from greeter_core import Step, read_transcript, replay
from tests.support.accounting import Command
from tests.support.crowds import HOST

from .finding import Finding, Sizes, at_most, exactly
from .server import serving

THREADS = 20  # of clients, which overload the server's one thread
MEMORY = 50 * 2**20  # bytes, for the replay


def recorded(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Record pipelined, raw, slow, reset and shut-down conversations: all of them replay."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.jsonl"
        with serving(command, "--record", str(path), "--idle-timeout", "2") as server:
            left = [sizes.recorded]
            threads = [
                threading.Thread(target=_converse, args=(server.port, left, number))
                for number in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            open_ends = [socket.create_connection((HOST, server.port)) for _ in range(20)]
            for each in open_ends[::2]:
                each.sendall(b"Ada\nGra")  # the shutdown finds them in the middle
            yield from server.farewell()
            for each in open_ends:
                each.close()
        yield from _replayed(path, sizes.recorded)


def _replayed(path: Path, least: int) -> Iterator[Finding]:
    steps = conversations = 0
    tracemalloc.start()
    start = time.process_time()
    with path.open("rb") as file:

        def counted() -> Iterator[tuple[int, object]]:
            nonlocal steps, conversations
            for number, item in read_transcript(file):
                if isinstance(item, Step):
                    steps += 1
                    conversations += item.opening is not None
                yield number, item

        difference = replay(counted())  # type: ignore[arg-type]
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Finding("conversations, steps, size", f"{conversations:,}, {steps:,}, {_mib(path)}")
    yield Finding("CPU to replay, with memory traced", f"{seconds:.1f} s")
    yield at_most("conversations that are missing", max(0, least - conversations), 0)
    yield at_most("memory for the replay, MiB", round(peak / 2**20, 1), MEMORY / 2**20)
    yield exactly("first difference", str(difference), "None")


def _mib(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"


def _converse(port: int, left: list[int], seed: int) -> None:
    """Have conversations of all kinds, until there were enough."""
    chance = random.Random(seed)
    while left[0] > 0:
        left[0] -= 1
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, port), timeout=10) as sock,
        ):
            chance.choice([_pipelines, _sends_raw, _is_slow, _resets, _ends, _says_too_much])(sock)


def _pipelines(sock: socket.socket) -> None:
    names = b"".join(b"%d \xe5\xb0\x8f\xff\n" % number for number in range(100))
    sock.sendall(names + b"exit\n")
    while sock.recv(65536):
        pass


def _sends_raw(sock: socket.socket) -> None:
    for word in (b"Ada", "\u5c0f\u660e".encode(), b"exit"):
        while not sock.recv(1024).endswith(b"name?"):
            pass
        sock.sendall(word)
        sock.recv(1024)


def _is_slow(sock: socket.socket) -> None:
    for piece in (b"G", b"ra", b"ce\r\n", b"\n", b"exi", b"t\n"):
        sock.sendall(piece)
        time.sleep(0.005)
    while sock.recv(1024):
        pass


def _resets(sock: socket.socket) -> None:
    sock.sendall(b"Ada\nGrace")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _ends(sock: socket.socket) -> None:
    sock.sendall(b"Ada")
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(1024):
        pass


def _says_too_much(sock: socket.socket) -> None:
    sock.sendall(b"x" * 5000)
    while sock.recv(1024):
        pass
