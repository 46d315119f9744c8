"""One server for each core: two processes on one port, one of which is ended under load."""

import contextlib
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.processes import HOST, PATIENCE, Process, free_port, run, run_client, started
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME

from .helpers import adapted, needs
from .test_systemd import PYTHON, settings

if sys.platform != "linux":
    pytest.skip("other systems share ports in other ways", allow_module_level=True)

UNIT = "greeter@.service"
GREETED = WELCOME + PROMPT + ADA + PROMPT + GOODBYE
VISITORS = 10  # at the same time


def command(port: int, certificate: str | None = None) -> list[str]:
    """Return the command of the unit for a port of this machine, perhaps without TLS."""
    (start,) = settings(UNIT, "ExecStart")
    words = start.replace(PYTHON, sys.executable).split()
    at = words.index("--tls-cert")
    words[at : at + 2] = ["--tls-cert", certificate] if certificate else []
    words[words.index("::")] = HOST
    return [*words, "--port", str(port)]


@contextlib.contextmanager
def serving_twice(port: int, certificate: str | None = None) -> Iterator[tuple[Process, Process]]:
    """Run two servers on one port."""
    arguments = command(port, certificate)
    with started(*arguments) as one, started(*arguments) as two:
        for each in (one, two):
            assert each.stderr
            assert b"Waiting for connection" in each.stderr.readline()
        yield one, two


def visit(port: int) -> bytes:
    """Return all that a server says to a client with one name."""
    with socket.create_connection((HOST, port), PATIENCE) as sock:
        sock.sendall(b"Ada\nexit\n")
        return b"".join(iter(lambda: sock.recv(4096), b""))


@needs("systemd-analyze")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    (tmp_path / UNIT).write_text(adapted(UNIT, {PYTHON: sys.executable}))
    unit = tmp_path / "greeter@0.service"
    unit.symlink_to(tmp_path / UNIT)
    verified = run(str(unit), command=("systemd-analyze", "verify"))
    complaints = (verified.stdout + verified.stderr).splitlines()
    assert [line for line in complaints if b"greeter" in line] == []


def test_it_is_confined_as_the_service_with_a_socket_is() -> None:
    """But for its network, which it needs."""
    both = [
        {line for line in adapted(unit, {}).splitlines() if "=" in line and line[0] != "#"}
        for unit in ("greeter.service", UNIT)
    ]
    assert {line.partition("=")[0] for line in both[0] - both[1]} == {
        *("Description", "Requires", "After", "ExecStart", "Also"),
        *("PrivateNetwork", "IPAddressDeny", "RestrictAddressFamilies"),
    }


def test_tls(tmp_path: Path) -> None:
    """Each has loaded the certificate, whichever a client reaches."""
    authority, port = Authority(tmp_path), free_port()
    with serving_twice(port, authority.issue(HOST)):
        for _ in range(8):
            assert run_client(port, "--tls", "--ca", authority.path, "Ada").stdout == ADA


def test_one_is_ended_under_load() -> None:
    """No client is reset or refused: all are greeted, before, meanwhile and afterwards."""
    port, half_way = free_port(), threading.Event()
    visits = 0

    def visit_often(_: int) -> Counter[bytes]:
        nonlocal visits
        said = Counter[bytes]()
        while not half_way.is_set() or said.total() < 200:
            said[visit(port)] += 1
            visits += 1
        return said

    with serving_twice(port) as servers, ThreadPoolExecutor(VISITORS) as pool:
        results = [pool.submit(visit_often, number) for number in range(VISITORS)]
        while visits < 100 * VISITORS:
            assert not any(result.done() for result in results)
            threading.Event().wait(0.01)
        servers[0].send_signal(signal.SIGTERM)
        assert servers[0].wait(PATIENCE) == 0
        half_way.set()
        said = sum((result.result(PATIENCE) for result in results), Counter[bytes]())
        # Who had not said a name yet is told goodbye, and that only.
        assert {*said} <= {GREETED, WELCOME + PROMPT + GOODBYE}
        assert said[GREETED] > 100 * VISITORS
        served = [each.stderr.read() for each in servers[:1] if each.stderr]
        assert served[0].count(b"the client said exit") > 100, "clients reach both"
        servers[1].terminate()
        assert servers[1].wait(PATIENCE) == 0
