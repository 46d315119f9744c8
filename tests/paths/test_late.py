"""Processes that are late, being busy or stopped: nobody is blamed, and nobody hangs [T1, T3]."""

import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import attrs
import pytest

from tests.cli.helpers import (
    COMMAND,
    GOODBYE,
    HOST,
    PATIENCE,
    PROMPT,
    WELCOME,
    Peer,
    connected,
    connected_to_file,
    hello,
    scripted,
    serving,
    serving_at,
    started,
)
from tests.trio.certificates import Authority

from .crowd import WELL, converse

if sys.platform == "win32":
    pytest.skip("there is no SIGSTOP on Windows", allow_module_level=True)

QUIET = 0.02  # seconds; the silence that ends a name
WAYS = ("tcp", "unix", "tls")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and wait until it stands still; let it go on at the end."""
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@attrs.frozen
class Served:
    """A server, and how to connect to it."""

    pid: int
    connect: Callable[[], Peer]


@contextlib.contextmanager
def served(way: str, folder: Path, *options: str) -> Iterator[Served]:
    """Run a server that is reached over TCP, over a Unix socket, or by TLS."""
    if way == "tcp":
        with serving(*options) as server:
            yield Served(server.process.pid, lambda: connected(server.port))
    elif way == "unix":
        path = str(folder / "socket")
        with serving_at("--listen", f"unix:{path}", *options) as server:
            yield Served(server.process.pid, lambda: connected_to_file(path))
    else:
        authority = Authority(folder)
        context = ssl.create_default_context(cafile=authority.path)
        with serving("--tls-cert", authority.issue(HOST), *options) as server:

            def connect() -> Peer:
                sock = socket.create_connection((HOST, server.port), timeout=PATIENCE)
                return Peer(context.wrap_socket(sock, server_hostname=HOST))

            yield Served(server.process.pid, connect)


def connect_to(port: int) -> socket.socket:
    """Return a non-blocking socket that connects to a server."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.connect_ex((HOST, port))
    return sock


def test_many_original_clients_at_once() -> None:
    """However many come at once, and keep the server busy, none of them hangs [T1, S2.2]."""
    with serving() as server:
        connect = partial(connect_to, server.port)
        outcomes = converse(connect, [[b"Ada"]] * 400, patience=PATIENCE)
    assert set(outcomes) == {WELL}


def test_stopped_after_a_name() -> None:
    """A server that is late for all its timers still says one word at a time [T1, S2.2]."""
    said = threading.Event()
    over = threading.Event()

    def stop_when_said() -> None:
        while not over.is_set():
            if not said.wait(0.1):
                continue
            said.clear()
            time.sleep(0.005)  # it reads the names
            with stopped(pid):
                time.sleep(0.06)

    with serving() as server, ThreadPoolExecutor(1) as pool:
        pid = server.process.pid
        connect = partial(connect_to, server.port)
        stopping = pool.submit(stop_when_said)
        try:
            names = [(b"Ada", b"Grace Hopper", "小明".encode())] * 20
            outcomes = converse(connect, names, patience=PATIENCE, said=said.set)
        finally:
            over.set()
        stopping.result()
    assert set(outcomes) == {WELL}


@pytest.mark.parametrize("way", WAYS)
def test_stopped_within_a_name(way: str, tmp_path: Path) -> None:
    """What comes while the server is stopped goes on with the name, however late [T3, S4.2]."""
    with served(way, tmp_path) as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            peers = [stack.enter_context(server.connect()) for _ in range(10)]
            for peer in peers:
                peer.hear(WELCOME + PROMPT)
            began = time.monotonic()
            for peer in peers:
                peer.say(b"Grace Hop")
            time.sleep(0.002)  # the server reads that
            with stopped(server.pid):
                if time.monotonic() - began > QUIET:
                    continue  # it may have noticed the silence before it was stopped
                for peer in peers:
                    peer.say(b"per\nexit\n")
                time.sleep(0.2)
            for peer in peers:
                peer.hear(hello("Grace Hopper") + PROMPT + GOODBYE)
            return
    pytest.fail("the machine is too busy for this test")


def test_stopped_for_longer_than_the_idle_timeout(tmp_path: Path) -> None:
    """Nobody whose names came while the server was stopped is told that none came [T3, S9.1]."""
    over = threading.Event()

    def name_often(peer: Peer) -> None:
        with peer:
            names = 0
            while not over.wait(0.25):
                peer.say(b"Ada\n")
                names += 1
            peer.say(b"exit\n")
            peer.hear(WELCOME + (PROMPT + hello("Ada")) * names + PROMPT + GOODBYE)

    with contextlib.ExitStack() as stack:
        servers = []
        for way in WAYS:
            (tmp_path / way).mkdir()
            servers.append(stack.enter_context(served(way, tmp_path / way, "--idle-timeout", "2")))
        pool = stack.enter_context(ThreadPoolExecutor(30))
        stack.callback(over.set)
        talks = [pool.submit(name_often, server.connect()) for server in servers * 10]
        time.sleep(0.6)
        with contextlib.ExitStack() as stops:
            for server in servers:
                stops.enter_context(stopped(server.pid))
            time.sleep(3)
        time.sleep(0.6)
        over.set()
        for talk in talks:
            talk.result()


def test_client_stopped_for_longer_than_its_timeout() -> None:
    """A client that was stopped until its patience was over takes the answer [T3, C5.1]."""

    def server(peer: Peer) -> None:
        peer.say(WELCOME + PROMPT)
        peer.hear(b"Ada\n")
        with stopped(process.pid):
            peer.say(hello("Ada") + PROMPT)
            time.sleep(3)
        peer.hear(b"exit\n")
        peer.say(GOODBYE)
        assert peer.hear_rest() == b""

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(scripted(server))
        command = (*COMMAND, "client", "--port", str(port), "--timeout", "1.5", "Ada")
        process = stack.enter_context(started(*command))
        said, complained = process.communicate(timeout=PATIENCE)
    assert (said, complained, process.returncode) == (hello("Ada"), b"", 0)
