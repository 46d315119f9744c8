"""Shutting down under load.

What the server was told before the signal is known for sure: the kernel says when all of it was
acknowledged (SIOCOUTQ in tcp(7)), which is when it lies in the server's socket, or was read. In
every other turn the server is stopped meanwhile (SIGSTOP), so that it cannot have read it, nor have
accepted those who came last: they are in the backlog.
"""

import fcntl
import random
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import attrs

from tests.benchmarks.wire import GOODBYE, HELLO, LF

from .clients import connect, transcript
from .finding import Command, Finding, Sizes, none_of, note
from .server import Server, serving, wait_until

EARLY, LATE = 20, 200
"""Clients who send some names right before the signal, and then only read: how many connect at first, and how many
shortly before it. The latter are more than the server accepts until it has noticed the signal, so
the last of them are still in the backlog when it shuts down."""
NAMES = [b"Ada", b"Grace", b"Hedy"]
MANNERS = [
    [b"", b"Ada\n", b"Grace\n", b"exit\n"],  # one thing after another
    [b"Ada\nGrace\nHedy\nexit\n"],  # all at once
    [b"Ada\nGra", b"ce\nHe", b"dy\n", b"exit\n"],  # a name stays unfinished for a while
]
"""What reconnecting clients say. Each waits for the replies to all complete names before it says the next part."""


@attrs.define
class _Tally:
    conversations: int = 0
    unwelcomed: list[str] = attrs.field(factory=list)  # resets of those who had heard nothing
    resets: list[str] = attrs.field(factory=list)  # the others'
    wrong: list[str] = attrs.field(factory=list)

    def add(self, other: "_Tally") -> None:
        self.conversations += other.conversations
        self.unwelcomed += other.unwelcomed
        self.resets += other.resets
        self.wrong += other.wrong


def drain(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Send SIGTERM to one server after another, each with clients who come again and again, in all kinds of states."""
    comers, witnesses = _Tally(), _Tally()
    statuses, seconds = [], []
    for turn in range(sizes.drains):
        with serving(command) as server, ThreadPoolExecutor(sizes.reconnecting) as pool:
            over = threading.Event()
            tallies = [
                pool.submit(_come_again, server.port, MANNERS[number % len(MANNERS)], over)
                for number in range(sizes.reconnecting)
            ]
            try:
                witnesses.add(_witness(server, sizes, stopped=turn % 2 == 0))
                start = time.monotonic()
                statuses.append(server.wait())
                seconds.append(time.monotonic() - start)
            finally:
                over.set()
            for tally in tallies:
                comers.add(tally.result())
    failed = [f"status {status}" for status in statuses if status != 0]
    yield none_of("servers that did not end with status 0", failed, sizes.drains)
    lost = witnesses.wrong + witnesses.resets + witnesses.unwelcomed
    yield none_of(
        "whose names were there first, and were not answered", lost, witnesses.conversations
    )
    yield none_of("resets in the midst of a conversation", comers.resets, comers.conversations)
    yield none_of(
        "resets of those who came back, before WELCOME", comers.unwelcomed, comers.conversations
    )
    yield none_of("wrong conversations", comers.wrong, comers.conversations)
    yield note("until the last server had ended", f"{max(seconds):.3g} s after its clients")


def _witness(server: Server, sizes: Sizes, *, stopped: bool) -> _Tally:
    """Shut the server down when names are in its sockets; return what became of them."""
    if sys.platform != "linux":
        raise NotImplementedError
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(server.port)) for _ in range(EARLY)]
        time.sleep(random.uniform(0.3, 0.6))
        if stopped:
            server.send_signal(signal.SIGSTOP)
        socks += [stack.enter_context(connect(server.port)) for _ in range(LATE)]
        for sock in socks:
            sock.sendall(b"".join(name + LF for name in NAMES))
        have_arrived = wait_until(lambda: all(map(_has_arrived, socks)), sizes.patience)
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        tally = _Tally()
        if not have_arrived:
            tally.wrong.append("what was sent was never acknowledged")
        for sock in socks:
            _converse(sock, [], tally, NAMES)
        return tally


def _has_arrived(sock: socket.socket) -> bool:
    if sys.platform != "linux":
        raise NotImplementedError
    return fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)) == bytes(
        4
    )  # which is SIOCOUTQ for a socket


def _come_again(port: int, manner: Sequence[bytes], over: threading.Event) -> _Tally:
    """Have one conversation after another, until nobody listens any more."""
    tally = _Tally()
    while not over.is_set():
        try:
            sock = connect(port)
        except ConnectionRefusedError:
            break
        except OSError as exc:
            tally.unwelcomed.append(str(exc))
            continue
        with sock:
            _converse(sock, manner, tally)
    return tally


def _converse(
    sock: socket.socket, manner: Sequence[bytes], tally: _Tally, names: Sequence[bytes] = ()
) -> None:
    """Say all parts, or what can be said before the server says goodbye. These names, said before, must be greeted."""
    tally.conversations += 1
    certain = len(names)
    said = b"".join(name + LF for name in names)
    heard, ended = b"", False
    try:
        for part in manner:
            said += part
            sock.sendall(part)
            names = [name for name in said.split(LF)[:-1] if name != b"exit"]
            awaited = len(transcript(names))
            while len(heard) < awaited and not ended:
                heard, ended = _hear(sock, heard)
            if ended:
                break
            time.sleep(random.uniform(0, 0.03))
        while not ended:
            heard, ended = _hear(sock, heard)
    except (ConnectionResetError, BrokenPipeError) as exc:
        (tally.resets if heard else tally.unwelcomed).append(
            f"{exc} after {said[-80:]!r} and {heard[-80:]!r}"
        )
        return
    except BlockingIOError:
        tally.wrong.append(f"no end after {said[-80:]!r} and {heard[-80:]!r}")
        return
    greeted = heard.count(HELLO)
    if greeted < certain or heard != transcript(names[:greeted]) + GOODBYE:
        tally.wrong.append(f"{heard[-80:]!r} after {said[-80:]!r}")


def _hear(sock: socket.socket, heard: bytes) -> tuple[bytes, bool]:
    data = sock.recv(65536)
    return heard + data, not data
