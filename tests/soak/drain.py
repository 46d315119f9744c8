"""Shutting down under load, and being killed.

What the server was told before the signal is known for sure: the kernel says when all of it was
acknowledged (SIOCOUTQ in tcp(7)), which is when it lies in the server's socket, or was read. In
every other turn the server is stopped meanwhile (SIGSTOP), so that it cannot have read it, nor have
accepted the clients that came last: they are in the backlog.
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
from contextlib import ExitStack, suppress

from tests.support.accounting import Command
from tests.support.connections import dialogue
from tests.support.crowds import connect, crowd, leave
from tests.support.words import HELLO

from .clients import transcript
from .finding import Finding, Sizes, exactly, none_of
from .server import Server, serving, wait_until

EARLY, LATE = 20, 200
"""Witnesses, which send names right before the signal and then only read: how many connect at
first, and how many shortly before it. The latter are more than the server accepts until it has
noticed the signal, so the last of them are still in the backlog when it shuts down."""
SAID_BY_WITNESSES = b"Ada\nGrace\nHedy\n"
MANNERS = [
    [b"", b"Ada\n", b"Grace\n", b"exit\n"],  # one thing after another
    [SAID_BY_WITNESSES + b"exit\n"],  # all at once
    [b"Ada\nGra", b"ce\nHe", b"dy\n", b"exit\n"],  # a name stays unfinished for a while
]
"""What reconnecting clients say: each part when all complete names before it are answered."""


OK, WRONG, RESET = "ok", "wrong", "reset"
UNWELCOMED = "reset before the server had said anything"
Outcome = tuple[str, str]
"""How a conversation ended, and what was said and heard last."""


def drain(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Shut servers down while clients reconnect all the time: each name gets its answer."""
    comers: list[Outcome] = []
    witnesses: list[Outcome] = []
    statuses, seconds = [], []
    for turn in range(sizes.drains):
        with serving(command) as server, ThreadPoolExecutor(sizes.reconnecting) as pool:
            over = threading.Event()
            manners = [MANNERS[number % len(MANNERS)] for number in range(sizes.reconnecting)]
            coming = [pool.submit(_come_again, server.port, each, over) for each in manners]
            try:
                witnesses += _witness(server, sizes, stopped=turn % 2 == 0)
                start = time.monotonic()
                statuses.append(server.wait())
                seconds.append(time.monotonic() - start)
            finally:
                over.set()
            for conversations in coming:
                comers += conversations.result()
    failed = [f"status {status}" for status in statuses if status != 0]
    yield none_of("servers that did not end with status 0", failed, sizes.drains)
    lost = [last for outcome, last in witnesses if outcome != OK]
    yield none_of("not answered, though the names came first", lost, len(witnesses))
    for what, outcome in (
        ("resets in the midst of a conversation", RESET),
        ("resets of reconnected clients before WELCOME", UNWELCOMED),
        ("wrong conversations", WRONG),
    ):
        failures = [last for each, last in comers if each == outcome]
        yield none_of(what, failures, len(comers))
    yield Finding("until the last server had ended", f"{max(seconds):.3g} s after its clients")


def _witness(server: Server, sizes: Sizes, *, stopped: bool) -> list[Outcome]:
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
            sock.sendall(SAID_BY_WITNESSES)
        have_arrived = wait_until(lambda: all(map(_has_arrived, socks)), sizes.patience)
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        outcomes = [_converse(sock, [], SAID_BY_WITNESSES) for sock in socks]
        if not have_arrived:
            outcomes.append((WRONG, "what was sent was never acknowledged"))
        return outcomes


def _has_arrived(sock: socket.socket) -> bool:
    if sys.platform != "linux":
        raise NotImplementedError
    # TIOCOUTQ is SIOCOUTQ for a socket
    return fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)) == bytes(4)


def _come_again(port: int, manner: Sequence[bytes], over: threading.Event) -> list[Outcome]:
    """Have one conversation after another, until no process listens any more."""
    outcomes: list[Outcome] = []
    while not over.is_set():
        try:
            sock = connect(port)
        except ConnectionRefusedError:
            break
        except OSError as exc:
            outcomes.append((UNWELCOMED, str(exc)))
            continue
        with sock:
            outcomes.append(_converse(sock, manner))
    return outcomes


def _converse(sock: socket.socket, manner: Sequence[bytes], said: bytes = b"") -> Outcome:
    """Say all parts, or what can be said before the server says goodbye.

    Names in what was `said` before must be greeted.
    """
    certain = said.count(b"\n")
    heard, data = b"", b"something"
    try:
        for part in manner:
            said += part
            sock.sendall(part)
            names = [name for name in said.split(b"\n")[:-1] if name != b"exit"]
            awaited = len(transcript(*names))
            while len(heard) < awaited and (data := sock.recv(65536)):
                heard += data
            if not data:
                break
            time.sleep(random.uniform(0, 0.03))
        while data:
            data = sock.recv(65536)
            heard += data
    except (ConnectionResetError, BrokenPipeError) as exc:
        last = f"{exc} after {said[-80:]!r} and {heard[-80:]!r}"
        return RESET if heard else UNWELCOMED, last
    except BlockingIOError:
        return WRONG, f"no end after {said[-80:]!r} and {heard[-80:]!r}"
    greeted = heard.count(HELLO)
    right = greeted >= certain and heard == dialogue(*said.split(b"\n")[:greeted])
    return OK if right else WRONG, f"{heard[-80:]!r} after {said[-80:]!r}"


CONNECTIONS = 100


def restart(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Kill servers, and start others on their ports while the old clients are still there."""
    if sys.platform != "linux":
        raise NotImplementedError
    ports, seconds = [], []
    hanging: list[str] = []
    for _ in range(sizes.restarts):
        with serving(command) as first, crowd(first.port, CONNECTIONS) as left_alone:
            for sock in left_alone[::2]:
                sock.sendall(b"Ada\nGra")
            first.send_signal(signal.SIGKILL)
            first.wait()
            start = time.monotonic()
            with (
                serving(command, "--port", str(first.port)) as second,
                crowd(second.port, CONNECTIONS) as newcomers,
            ):
                seconds.append(time.monotonic() - start)
                leave(newcomers)
            ports.append(second.port == first.port)
            for sock in left_alone:
                try:
                    with suppress(ConnectionResetError):
                        while sock.recv(65536):
                            pass
                except BlockingIOError:
                    hanging.append(str(sock.getsockname()))
    number = sizes.restarts * CONNECTIONS
    yield exactly("servers that came back on their port", sum(ports), sizes.restarts)
    yield none_of("connections to dead servers that did not end", hanging, number)
    yield Finding("until all newcomers were asked for a name", f"{max(seconds):.3g} s, the longest")
