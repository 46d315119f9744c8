"""HAProxy: clients keep their addresses, checks are calm, and a server can be drained and come back."""

import contextlib
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.cli.helpers import (
    GOODBYE,
    HOST,
    PATIENCE,
    PROMPT,
    free_port,
    hello,
    met,
    run_client,
    serving,
)
from tests.readme import code_blocks

from .helpers import adapted, balancing, clients, visit, visitors, wait_until, where

if sys.platform == "win32":
    pytest.skip("these tests use signals", allow_module_level=True)

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="there is no haproxy on PATH")

REQUIRE = ("--proxy-protocol", "require")


@attrs.frozen
class HAProxy:
    """HAProxy, running."""

    port: int
    api: Path

    def ask(self, command: str) -> str:
        """Give it a command, and return its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.api))
            sock.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode().strip()

    def set_state(self, server: str, state: str) -> None:
        """Take a server out of service, or put it back."""
        assert self.ask(f"set server greeters/{server} state {state}") == ""

    def fact(self, server: str, name: str) -> str:
        """Return what HAProxy knows of a server."""
        names, *rows = self.ask("show stat greeters 4 -1").removeprefix("# ").splitlines()
        facts = [dict(zip(names.split(","), row.split(","), strict=True)) for row in rows]
        return next(each[name] for each in facts if each["svname"] == server)


@contextlib.contextmanager
def haproxy(folder: Path, one: int, two: int, *, inter: str = "2s") -> Iterator[HAProxy]:
    """Run HAProxy in front of two servers with these ports, with this time between checks."""
    port, api = free_port(), folder / "api"
    changes = {
        f"{HOST}:6000": f"{HOST}:{port}",
        f"{HOST}:6001": f"{HOST}:{one}",
        f"{HOST}:6002": f"{HOST}:{two}",
        "/run/haproxy/admin.sock": str(api),
        "inter 2s": f"inter {inter}",
    }
    path = folder / "haproxy.cfg"
    path.write_text(adapted("haproxy.cfg", changes))
    with balancing("haproxy", "-db", "-f", str(path)):
        assert run_client(port, "--retry-for", "10", "ready").returncode == 0
        yield HAProxy(port, api)


def test_a_server_is_drained_and_comes_back(tmp_path: Path) -> None:
    """While clients come and go all the time, a server is drained, ended and started again, and none sees an error."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        haproxy(tmp_path, one.port, two.port) as balancer,
        contextlib.ExitStack() as later,
    ):
        balancer.set_state("two", "drain")
        guest = later.enter_context(met(balancer.port))  # of `one`, for there is no other
        balancer.set_state("two", "ready")

        with visitors(balancer.port) as addresses:
            for server in (one, two):
                server.log.expect(b"the client said exit; 1 name in ")

            balancer.set_state("one", "drain")
            wait_until(lambda: balancer.fact("one", "scur") == "1")
            guest.say(b"Grace\n")
            guest.hear(hello("Grace") + PROMPT)  # who is there may stay

            one.process.send_signal(signal.SIGTERM)
            assert guest.hear_rest() == GOODBYE
            guest.end()
            assert one.process.wait(PATIENCE) == 0
            assert f"Connection from {where(guest)} through " in one.log.rest().decode()

            again = later.enter_context(serving(*REQUIRE, "--port", str(one.port)))
            balancer.set_state("one", "ready")
            again.log.expect(b"the client said exit; 1 name in ")

    seen = [clients(server.log) for server in (one, two, again)]
    assert all(seen)
    assert addresses <= set.union(*seen)  # their own addresses, which only HAProxy knew


def test_a_server_that_has_gone(tmp_path: Path) -> None:
    """Before any check has noticed that a server does not listen any more, clients get to the other one."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        haproxy(tmp_path, one.port, two.port) as balancer,
    ):
        one.stop()
        for _ in range(4):
            visit(balancer.port)


def test_checks(tmp_path: Path) -> None:
    """To a greeter a check is a client like others; it finds out when a server listens, but does not speak."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        haproxy(tmp_path, one.port, two.port, inter="250ms") as balancer,
    ):
        one.log.expect(b"is closed: the client said exit; 0 names in ")
        assert b" lost " not in one.log.all()
        wait_until(lambda: balancer.fact("one", "check_status") == "L7OK")
        one.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: balancer.fact("one", "status") == "DOWN")
        for _ in range(4):
            visit(balancer.port)
        one.process.send_signal(signal.SIGCONT)
        wait_until(lambda: balancer.fact("one", "status") == "UP")


def test_the_readme() -> None:
    """What the README shows of the configuration stands in it."""
    lines = {line.strip() for line in adapted("haproxy.cfg", {}).splitlines()}
    shown = {line.strip() for block in code_blocks("haproxy") for line in block.splitlines()}
    assert shown <= lines
