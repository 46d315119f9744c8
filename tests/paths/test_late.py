"""Processes that are late, being busy or stopped: the peer is not blamed, and none hangs [T1, T3].

The core and the driver are tested with virtual time, on sockets of all kinds. Here processes are
really stopped.
"""

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
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.certificates import Authority
from tests.support.processes import COMMAND, HOST, PATIENCE, Peer, connected, serving
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME

from .crowd import WELL, converse

if sys.platform == "win32":
    pytest.skip("there is no SIGSTOP on Windows", allow_module_level=True)


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


@contextlib.contextmanager
def served(
    way: str, folder: Path, authority: Authority, *options: str
) -> Iterator[tuple[int, Callable[[], Peer]]]:
    """Run a server that is reached in this way; yield its process ID, and how to connect."""
    if way == "unix":
        path = str(folder / "socket")
        with processes.serving_at("--listen", f"unix:{path}", *options) as server:
            yield server.process.pid, lambda: processes.connected_to_file(path)
    elif way == "tcp":
        with serving(*options) as server:
            yield server.process.pid, lambda: connected(server.port)
    else:
        tls = ssl.create_default_context(cafile=authority.path)
        with serving("--tls-cert", authority.issue(HOST), *options) as server:

            def connect() -> Peer:
                sock = connected(server.port).socket
                return Peer(tls.wrap_socket(sock, server_hostname=HOST))

            yield server.process.pid, connect


def connect_to(port: int) -> Callable[[], socket.socket]:
    """Return a function that returns a non-blocking socket, which connects to a server."""

    def connect() -> socket.socket:
        sock = socket.socket()
        sock.settimeout(0)
        sock.connect_ex((HOST, port))
        return sock

    return connect


def test_many_original_clients_at_once() -> None:
    """However many come at once, and keep the server busy, none of them hangs [T1, S2.2]."""
    with serving() as server:
        outcomes = converse(connect_to(server.port), [[b"Ada"]] * 400, patience=PATIENCE)
    assert set(outcomes) == {WELL}


def test_stopped_after_a_name() -> None:
    """A server that is late for all its timers still says one word at a time [T1, S2.2]."""
    said, over = threading.Event(), threading.Event()

    def stop_when_said() -> None:
        while not over.is_set():
            if said.wait(0.1):
                said.clear()
                time.sleep(0.005)  # it reads the names
                with stopped(server.process.pid):
                    time.sleep(0.06)

    names = [(b"Ada", b"Grace Hopper", "小明".encode())] * 20
    with serving() as server, ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop_when_said)
        try:
            outcomes = converse(connect_to(server.port), names, patience=PATIENCE, said=said.set)
        finally:
            over.set()
        stopping.result()
    assert set(outcomes) == {WELL}


def test_stopped_for_longer_than_the_idle_timeout(tmp_path: Path, authority: Authority) -> None:
    """A client whose names came while the server was stopped is not told otherwise [T3, S9.1]."""
    over = threading.Event()

    def name_often(peer: Peer) -> None:
        with peer:
            names = 0
            while not over.wait(0.2):
                peer.say(b"Ada\n")
                names += 1
            peer.say(b"exit\n")
            peer.hear(WELCOME + (PROMPT + ADA) * names + PROMPT + GOODBYE)

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        servers = [enter(served(way, tmp_path, authority, "--idle-timeout", "1")) for way in WAYS]
        pool = enter(ThreadPoolExecutor(30))
        stack.callback(over.set)
        talks = [pool.submit(name_often, connect()) for _, connect in servers * 10]
        time.sleep(0.3)
        with contextlib.ExitStack() as stops:
            for pid, _ in servers:
                stops.enter_context(stopped(pid))
            time.sleep(1.2)
        time.sleep(0.3)
        over.set()
        for talk in talks:
            talk.result()


def test_client_stopped_for_longer_than_its_timeout() -> None:
    """It takes the answer that came meanwhile [T3, C5.1]."""

    def server(peer: Peer) -> None:
        peer.say(WELCOME + PROMPT)
        peer.hear(b"Ada\n")
        with stopped(process.pid):
            peer.say(ADA + PROMPT)
            time.sleep(1.2)
        peer.hear(b"exit\n")
        peer.say(GOODBYE)
        assert peer.hear_rest() == b""

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(processes.scripted(server))
        command = (*COMMAND, "client", "--port", str(port), "--timeout", "1", "Ada")
        process = stack.enter_context(processes.started(*command))
        said, complained = process.communicate(timeout=PATIENCE)
    assert (said, complained, process.returncode) == (ADA, b"", 0)
