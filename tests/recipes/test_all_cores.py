"""One server for each core: two processes, of which one is ended under load."""

import contextlib
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.support.certificates import Authority
from tests.support.documents import OPERATING, code_blocks
from tests.support.listening import needs_ipv6
from tests.support.processes import (
    COMMAND,
    HOST,
    PATIENCE,
    Server,
    free_port,
    run,
    run_client,
    serving_at,
)
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME

from .helpers import adapted, needs

if sys.platform != "linux":
    pytest.skip("other systems share ports in other ways", allow_module_level=True)

from .test_balancers import balancing, haproxy
from .test_systemd import CONFINING, PYTHON, confinement, setting, state

UNIT = "greeter@.service"
HOSTS = (HOST, "::1")
GREETED = WELCOME + PROMPT + ADA + PROMPT + GOODBYE
DISMISSED = WELCOME + PROMPT + GOODBYE
"""What a client hears that had not said a name when its server was ended."""
VISITORS = 10  # at the same time
VISITS = 1000  # before one server is ended, and again afterwards


def options(start: str, changes: dict[str, str]) -> list[str]:
    """Return the options in a command of a unit, in which each of these words is another one."""
    words = start.removeprefix(f"{PYTHON} -m greeter_trio serve ").split()
    assert {*changes} <= {*words}
    return [changes.get(word, word) for word in words if changes.get(word, word)]


def shared(port: int, certificate: str = "") -> list[str]:
    """Return the unit's options for a port of this machine, without TLS if no certificate is given.

    Without it nothing is read and no handshake delays the load.
    """
    return options(
        setting(UNIT, "ExecStart"),
        {
            "0.0.0.0:6000": f"{HOST}:{port}",
            "[::]:6000": f"[::1]:{port}",
            "--tls-cert": "--tls-cert" if certificate else "",
            "/etc/greeter/tls.pem": certificate,
        },
    )


@contextlib.contextmanager
def serving_twice(port: int, certificate: str = "") -> Iterator[tuple[Server, Server]]:
    """Run two servers on one port."""
    words = shared(port, certificate)
    with serving_at(*words) as one, serving_at(*words) as two:
        for server in (one, two):
            server.log.expect(b"[::1]")
        yield one, two


def visit(host: str, port: int) -> bytes:
    """Return all that a server says to a client with one name."""
    with socket.create_connection((host, port), PATIENCE) as sock:
        sock.sendall(b"Ada\nexit\n")
        return b"".join(iter(lambda: sock.recv(4096), b""))


class Visits:
    """What the servers have said to clients that come all the time."""

    def __init__(self) -> None:
        self._said = SimpleQueue[bytes]()
        self._over = threading.Event()
        self.said = Counter[bytes]()

    @contextlib.contextmanager
    def going_on(self, port: int, *hosts: str) -> Iterator[None]:
        with ThreadPoolExecutor(VISITORS) as pool:
            visitors = [
                pool.submit(self._visit, hosts[number % len(hosts)], port)
                for number in range(VISITORS)
            ]
            try:
                yield
            finally:
                self._over.set()
                for visitor in visitors:
                    visitor.result()  # or what went wrong
        while not self._said.empty():
            self.said[self._said.get()] += 1

    def _visit(self, host: str, port: int) -> None:
        while not self._over.is_set():
            self._said.put(visit(host, port))

    def wait(self) -> None:
        """Wait until there were some more."""
        for _ in range(VISITS):
            self.said[self._said.get(timeout=PATIENCE)] += 1


@needs("systemd-analyze")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    """Also with what OPERATING.md adds to it for a load balancer."""
    (tmp_path / UNIT).write_text(adapted(UNIT, {PYTHON: sys.executable}))
    unit = tmp_path / "greeter@0.service"
    unit.symlink_to(tmp_path / UNIT)
    added = tmp_path / f"{UNIT}.d"
    added.mkdir()
    (added / "ports.conf").write_text(drop_in().replace(PYTHON, sys.executable))
    verified = run(str(unit), command=("systemd-analyze", "verify"))
    complaints = (verified.stdout + verified.stderr).splitlines()
    assert [line for line in complaints if b"greeter" in line] == []


def drop_in() -> str:
    (block,) = code_blocks("ini", OPERATING)
    return block


def test_it_is_as_confined_as_the_service_with_a_socket() -> None:
    """But for its network, which it needs."""
    both = [
        {line for line in adapted(unit, {}).splitlines() if "=" in line and line[0] != "#"}
        for unit in ("greeter.service", UNIT)
    ]
    assert {line.partition("=")[0] for line in both[0] - both[1]} == {
        *("Description", "Requires", "After", "ExecStart", "Also"),
        *("PrivateNetwork", "IPAddressDeny", "RestrictAddressFamilies"),
    }


@CONFINING
@needs_ipv6
def test_a_confined_server(tmp_path: Path) -> None:
    """It can open its sockets, serve and end."""
    port, command = free_port(), (*confinement(tmp_path, UNIT), *COMMAND)
    with serving_at(*shared(port), command=command) as server:
        assert [state(server.process, name) for name in ("CapBnd", "Seccomp")] == ["0" * 16, "2"]
        for host in HOSTS:
            assert visit(host, port) == GREETED


@needs_ipv6
def test_tls(tmp_path: Path) -> None:
    """Each has loaded the certificate, whichever a client reaches, at whichever address."""
    authority, port = Authority(tmp_path), free_port()
    with serving_twice(port, authority.issue(*HOSTS)):
        for host in HOSTS * 4:
            done = run_client(port, "--host", host, "--tls", "--ca", authority.path, "Ada")
            assert done.stdout == ADA


@needs_ipv6
def test_one_is_ended_under_load() -> None:
    """No client is reset or refused: all are greeted, before, meanwhile and afterwards."""
    port, visits = free_port(), Visits()
    with serving_twice(port) as (one, two), visits.going_on(port, *HOSTS):
        visits.wait()
        logs = [one.stop()]
        visits.wait()
    logs.append(two.log.all().decode())
    assert {*visits.said} <= {GREETED, DISMISSED}
    for log in logs:
        assert log.count("the client said exit") > VISITS / 10, "clients reach both"


@needs("haproxy")
def test_one_is_ended_under_load_behind_haproxy(tmp_path: Path) -> None:
    """Each has a port of its own there. HAProxy has not been told of the end of one."""
    (start,) = re.findall("^ExecStart=(.+)$", drop_in(), re.MULTILINE)
    words, visits = options(start, {"--port": "", "610%i": ""}), Visits()
    with balancing(tmp_path, haproxy, words) as balancer, visits.going_on(balancer.port, HOST):
        visits.wait()
        log = balancer.one.stop()
        visits.wait()
    assert {*visits.said} <= {GREETED, DISMISSED}
    assert log.count("the client said exit") > VISITS / 10
