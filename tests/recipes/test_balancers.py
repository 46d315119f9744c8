"""HAProxy and nginx: clients keep their addresses, and a server can be taken out of service."""

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import attrs
import pytest

from tests.support.processes import (
    HOST,
    PATIENCE,
    Output,
    Peer,
    Process,
    Server,
    connected,
    free_port,
    met,
    run,
    serving,
    started,
)
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME, hello

from .helpers import adapted, needs

if sys.platform == "win32":
    pytest.skip("these tests use signals", allow_module_level=True)

REQUIRE = ("--proxy-protocol", "require")
GREETED = b"the client said exit; 1 name in "
VISITORS = 4  # at the same time


@attrs.frozen
class Balancer:
    """A load balancer in front of two servers."""

    port: int
    one: Server
    two: Server
    process: Process
    log: Output


@contextlib.contextmanager
def balancing(
    folder: Path, configure: Callable[..., tuple[str, ...]], options: Sequence[str] = REQUIRE
) -> Iterator[Balancer]:
    """Run a load balancer in the foreground, with the configuration and command of `configure`."""
    port = free_port()
    with serving(*options) as one, serving(*options) as two:
        command = configure(folder, port, one.port, two.port)
        with started(*command) as process:
            log = Output(process.stderr)
            try:
                wait_until(lambda: process.poll() is not None or is_welcomed(port))
                yield Balancer(port, one, two, process, log)
            finally:
                process.terminate()
                process.wait(PATIENCE)
                log.join()


def haproxy(folder: Path, *ports: int, inter: str = "2s") -> tuple[str, ...]:
    path = folder / "haproxy.cfg"
    changes = {f"{HOST}:600{n}": f"{HOST}:{port}" for n, port in enumerate(ports)}
    changes |= {"/run/haproxy/admin.sock": str(folder / "api"), "inter 2s": f"inter {inter}"}
    path.write_text(adapted("haproxy.cfg", changes))
    return ("haproxy", "-db", "-f", str(path))


def nginx(folder: Path, *ports: int, down: int = 0) -> tuple[str, ...]:
    """Have no clients sent to the first or second server, if it is `down`."""
    path = folder / "nginx.conf"
    changes = {
        f"{HOST}:600{n};": f"{HOST}:{port}{' down' * (n == down > 0)};"
        for n, port in enumerate(ports)
    }
    path.write_text(adapted("nginx.conf", changes))
    settings = f"daemon off; pid {folder}/nginx.pid; error_log stderr notice;"
    command = ("nginx", "-e", "stderr", "-c", str(path), "-g", settings)
    test = run("-t", command=command)
    if b'unknown directive "stream"' in test.stderr:
        pytest.skip("this nginx has no module `stream`")
    assert test.returncode == 0, test.stderr
    return command


def ask(folder: Path, command: str) -> str:
    """Give HAProxy a command, and return its answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(folder / "api"))
        sock.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode().strip()


def fact(folder: Path, server: str, name: str) -> str:
    """Return what HAProxy knows of a server."""
    names, *rows = ask(folder, "show stat greeters 4 -1").removeprefix("# ").splitlines()
    facts = [dict(zip(names.split(","), row.split(","), strict=True)) for row in rows]
    return next(each[name] for each in facts if each["svname"] == server)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.02)


def is_welcomed(port: int) -> bool:
    with contextlib.suppress(OSError), connected(port) as peer:
        peer.say(b"exit\n")
        return peer.hear_rest().startswith(WELCOME)
    return False


def address(peer: Peer) -> str:
    """Return a client's own address, as logs have it."""
    return "{}:{}".format(*peer.socket.getsockname())


def visit(port: int) -> str:
    """Connect, be greeted, and say exit; return the client's address."""
    with met(port) as peer:
        own = address(peer)
        peer.say(b"Ada\nexit\n")
        assert peer.hear_rest() == ADA + PROMPT + GOODBYE
        return own


@contextlib.contextmanager
def visitors(port: int) -> Iterator[set[str]]:
    """Have clients visit all the time, without an error; yield their addresses."""
    addresses: set[str] = set()
    over = threading.Event()

    def keep_visiting() -> None:
        while not over.is_set():
            addresses.add(visit(port))

    with ThreadPoolExecutor(VISITORS) as threads:
        visits = [threads.submit(keep_visiting) for _ in range(VISITORS)]
        try:
            yield addresses
        finally:
            over.set()
    for each in visits:
        each.result()


def clients(server: Server) -> set[str]:
    """Return the addresses of all clients that were greeted, from the log of a server."""
    closed = rb"Connection from (\S+) through \S+ is closed: " + GREETED
    return {match[1].decode() for match in re.finditer(closed, server.log.all())}


def stay_until_shutdown(guest: Peer, server: Server) -> None:
    """Have a name greeted by a server that was taken out of service, and shut it down."""
    guest.say(b"Grace\n")
    guest.hear(hello("Grace") + PROMPT)
    server.process.terminate()
    assert guest.hear_rest() == GOODBYE
    guest.end()
    assert f"Connection from {address(guest)} through " in server.wait()


def visit_after_stop(server: Server, port: int) -> None:
    """Clients of a server that has gone get to the other one, before a check has noticed."""
    server.stop()
    for _ in range(4):
        visit(port)


@needs("haproxy")
def test_haproxy_drains_a_server_which_comes_back(tmp_path: Path) -> None:
    """While clients come and go, a server is drained, ended and started again without an error."""
    with balancing(tmp_path, haproxy) as balancer, contextlib.ExitStack() as later:
        one, two = balancer.one, balancer.two

        def set_state(server: str, state: str) -> None:
            assert ask(tmp_path, f"set server greeters/{server} state {state}") == ""

        set_state("two", "drain")
        guest = later.enter_context(met(balancer.port))  # of `one`, for there is no other
        set_state("two", "ready")
        with visitors(balancer.port) as addresses:
            for server in (one, two):
                server.log.expect(GREETED)
            set_state("one", "drain")
            wait_until(lambda: fact(tmp_path, "one", "scur") == "1")
            stay_until_shutdown(guest, one)
            again = later.enter_context(serving(*REQUIRE, "--port", str(one.port)))
            set_state("one", "ready")
            again.log.expect(GREETED)
        visit_after_stop(again, balancer.port)
    seen = [clients(server) for server in (one, two, again)]
    assert all(seen)
    assert addresses <= set.union(*seen)  # their own addresses, which only HAProxy knew


@needs("haproxy")
def test_haproxy_checks(tmp_path: Path) -> None:
    """To a greeter a check is a client like others; it finds a server that listens but is mute."""
    with balancing(tmp_path, partial(haproxy, inter="150ms")) as balancer:
        one = balancer.one
        one.log.expect(b"is closed: the client said exit; 0 names in ")
        assert b" lost " not in one.log.all()
        wait_until(lambda: fact(tmp_path, "one", "check_status") == "L7OK")
        one.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: fact(tmp_path, "one", "status") == "DOWN")
        for _ in range(4):
            visit(balancer.port)
        one.process.send_signal(signal.SIGCONT)
        wait_until(lambda: fact(tmp_path, "one", "status") == "UP")


@needs("nginx")
def test_nginx_passes_addresses_and_half_close(tmp_path: Path) -> None:
    """A client that ends its side of the connection after its last name is still answered."""
    with balancing(tmp_path, nginx) as balancer:
        with visitors(balancer.port) as addresses:
            for server in (balancer.one, balancer.two):
                server.log.expect(GREETED)
        with connected(balancer.port) as peer:
            peer.say(b"Ada\nGrace\n")
            peer.end()
            assert peer.hear_rest() == WELCOME + PROMPT + ADA + PROMPT + hello("Grace") + PROMPT
        visit_after_stop(balancer.one, balancer.port)
    seen = [clients(server) for server in (balancer.one, balancer.two)]
    assert all(seen)
    assert addresses <= set.union(*seen)


@needs("nginx")
def test_nginx_takes_a_server_out(tmp_path: Path) -> None:
    """After a server was marked `down` and nginx has reloaded, no client comes to it."""
    with (
        balancing(tmp_path, partial(nginx, down=2)) as balancer,
        met(balancer.port) as guest,  # of `one`, for there is no other
    ):
        nginx(tmp_path, balancer.port, balancer.one.port, balancer.two.port, down=1)
        balancer.process.send_signal(signal.SIGHUP)  # which is `nginx -s reload`
        balancer.log.expect(b"gracefully shutting down")  # the worker that knows only `one`
        came = {visit(balancer.port) for _ in range(4)}
        stay_until_shutdown(guest, balancer.one)
    assert came == clients(balancer.two)
