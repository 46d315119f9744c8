"""Streams of bytes that no good client sends: plain, behind PROXY headers, and with TLS."""

import contextlib
import random
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Final

from tests.support.accounting import Command
from tests.support.certificates import Authority
from tests.support.connections import dialogue
from tests.support.crowds import HOST, connect, expect, reset

from .finding import Finding, Sizes, at_most, exactly, none_of
from .server import Server, serving, wait_until

SEED: Final = 20_261
"""The same streams in each run, but for the order in which they come."""
AT_ONCE: Final = 50
MEMORY: Final = 8192  # KiB that a server may grow by in the second half
_MOMENT = 0.05  # seconds that a stream waits for an answer
_LINES = b"Ada\nGrace Hopper\r\n\nZo\xc3\xab\nexit\n"
_V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 6000\r\n"
_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 156, 64, 23, 112])
_HTTP = b"GET / HTTP/1.1\r\nHost: greeter\r\n\r\n"


def hostile(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Send streams of wrong bytes: nothing is left of them, and good clients are greeted."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        options = {
            "plain": [],
            "PROXY": ["--proxy-protocol", "require"],
            "TLS": ["--tls-cert", authority.issue(HOST)],
        }
        tls = ssl.create_default_context(cafile=authority.path)
        for kind, more in options.items():
            with serving(command, *more) as server:
                yield from _attacked(server, kind, tls, sizes)


def _attacked(server: Server, kind: str, tls: ssl.SSLContext, sizes: Sizes) -> Iterator[Finding]:
    number = sizes.hostile // 3
    good = partial(_GOOD[kind], server.port, tls)
    attack = partial(_attack, server.port, kind, tls)
    greeted, failures = 0, list[str]()
    good()
    descriptors = server.descriptors()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(attack, repeat(0, AT_ONCE)))  # what is made at first use is there now
        good()
        memory = server.memory()
        for first in range(0, number, AT_ONCE):
            if first <= number // 2:
                memory = server.memory()
            failures += filter(None, pool.map(attack, range(first + 1, first + AT_ONCE + 1)))
            good()
            greeted += 1
    yield none_of(f"hostile streams that met no server, {kind}", failures, number)
    yield Finding(f"good clients, each greeted, {kind}", f"{greeted:,}")
    wait_until(lambda: server.descriptors() <= descriptors, sizes.patience)
    left = max(server.descriptors() - descriptors, 0)
    yield exactly(f"descriptors left by hostile streams, {kind}", left, 0)
    yield at_most(
        f"growth of memory in the second half, {kind}", server.memory() - memory, MEMORY, "KiB"
    )
    yield from server.farewell()


# Good clients


def _greet_plain(port: int, _: ssl.SSLContext) -> None:
    with connect(port) as sock:
        sock.sendall(b"Ada\nexit\n")
        expect(sock, dialogue(b"Ada"))


def _greet_with_proxy(port: int, _: ssl.SSLContext) -> None:
    with connect(port) as sock:
        sock.sendall(_V1 + b"Ada\nexit\n")
        expect(sock, dialogue(b"Ada"))


def _greet_with_tls(port: int, context: ssl.SSLContext) -> None:
    with connect(port) as plain, context.wrap_socket(plain, server_hostname=HOST) as sock:
        sock.sendall(b"Ada\nexit\n")
        said, due = b"", dialogue(b"Ada")
        while len(said) < len(due) and (data := sock.recv(1000)):
            said += data
        if said != due:
            raise RuntimeError(f"a good client heard {said!r}")


_GOOD: Final[Mapping[str, Callable[[int, ssl.SSLContext], None]]] = {
    "plain": _greet_plain,
    "PROXY": _greet_with_proxy,
    "TLS": _greet_with_tls,
}


# Hostile streams


def _attack(port: int, kind: str, context: ssl.SSLContext, number: int) -> str:
    """Send a stream, and end it in some way; return why there was no connection, if so."""
    chance = random.Random(f"{SEED} {kind} {number}")
    stream = _stream(chance, context)
    try:
        sock = connect(port)
    except OSError as exc:
        return f"stream {number}: {exc}"
    with sock, contextlib.suppress(OSError):
        sock.settimeout(_MOMENT)
        if kind == "PROXY" and chance.random() < 0.5:
            sock.sendall(chance.choice((_V1, _V2)))
        if kind == "TLS" and chance.random() < 0.5:
            with context.wrap_socket(sock, server_hostname=HOST) as inside:
                _send(chance, inside, stream)
            return ""
        _send(chance, sock, stream)
        match chance.randrange(4):
            case 0:
                reset(sock)
            case 1:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            case 2:
                sock.recv(chance.randrange(1, 100))
    return ""


def _send(chance: random.Random, sock: socket.socket, stream: bytes) -> None:
    """Send it in pieces."""
    pieces = chance.choice((1, 1, 3, 20))
    size = len(stream) // pieces + 1
    for start in range(0, len(stream), size):
        sock.sendall(stream[start : start + size])


def _stream(chance: random.Random, context: ssl.SSLContext) -> bytes:
    made = chance.choice(
        (
            lambda: chance.randbytes(chance.randrange(1, 3000)),
            lambda: _LINES,
            lambda: _LINES * chance.randrange(1, 200),
            lambda: b"\n" * chance.randrange(1, 20_000),
            lambda: b"x" * chance.randrange(900, 5000),
            lambda: chance.choice((_V1, _V2)) + _LINES,
            lambda: _V2[:14] + struct.pack(">H", chance.randrange(65536)) + chance.randbytes(300),
            lambda: _HTTP,
            lambda: _client_hello(context),
            lambda: b"\x16\x03\x01" + struct.pack(">H", chance.randrange(65536)) + _LINES,
        )
    )()
    return _damaged(chance, made)


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """Return it as it is, cut, twice, or with some other bytes."""
    match chance.randrange(4):
        case 0:
            return data
        case 1:
            return data[: chance.randrange(len(data))] or b"\0"
        case 2:
            start = chance.randrange(len(data))
            return data[:start] + data[start // 2 :]
        case _:
            changed = bytearray(data)
            for _ in range(chance.randrange(1, 10)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            return bytes(changed)


def _client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=HOST).do_handshake()
    return outgoing.read()
