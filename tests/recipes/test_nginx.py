"""nginx: clients keep their addresses and their half-close, and a server can be taken out."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.cli.helpers import (
    GOODBYE,
    HOST,
    PATIENCE,
    PROMPT,
    WELCOME,
    Output,
    connected,
    free_port,
    hello,
    met,
    run_client,
    serving,
)

from .helpers import adapted, balancing, clients, visit, visitors, where

if sys.platform == "win32":
    pytest.skip("these tests use signals", allow_module_level=True)

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="there is no nginx on PATH")

REQUIRE = ("--proxy-protocol", "require")


@attrs.frozen
class Nginx:
    """nginx, running."""

    port: int
    log: Output
    configure: Callable[[str], None]
    """Write the configuration again; the server with this port in the recipe is down."""
    process: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def nginx(folder: Path, one: int, two: int, down: str = "") -> Iterator[Nginx]:
    """Run nginx in front of two servers with these ports."""
    path = folder / "nginx.conf"
    ports = {"6000": free_port(), "6001": one, "6002": two}

    def configure(down: str) -> None:
        changes = {
            f"{HOST}:{old};": f"{HOST}:{new}{' down' * (old == down)};"
            for old, new in ports.items()
        }
        path.write_text(adapted("nginx.conf", changes))

    configure(down)
    settings = f"daemon off; pid {folder}/nginx.pid; error_log stderr notice;"
    command = ("nginx", "-e", "stderr", "-c", str(path), "-g", settings)
    test = subprocess.run(
        [*command, "-t"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if 'unknown directive "stream"' in test.stderr:
        pytest.skip("this nginx has no module `stream`")
    assert test.returncode == 0, test.stderr
    with balancing(*command) as (process, log):
        assert run_client(ports["6000"], "--retry-for", "10", "ready").returncode == 0
        yield Nginx(ports["6000"], log, configure, process)


def test_addresses(tmp_path: Path) -> None:
    """Clients come to both servers, and the logs have their own addresses."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        nginx(tmp_path, one.port, two.port) as balancer,
        visitors(balancer.port) as addresses,
    ):
        for server in (one, two):
            server.log.expect(b"the client said exit; 1 name in ")
    seen = [clients(server.log) for server in (one, two)]
    assert all(seen)
    assert addresses <= set.union(*seen)


def test_half_close(tmp_path: Path) -> None:
    """A client that ends its side of the connection after its last name is still answered."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        nginx(tmp_path, one.port, two.port) as balancer,
        connected(balancer.port) as peer,
    ):
        peer.say(b"Ada\nGrace\n")
        peer.end()
        assert (
            peer.hear_rest() == WELCOME + PROMPT + hello("Ada") + PROMPT + hello("Grace") + PROMPT
        )


def test_a_server_that_has_gone(tmp_path: Path) -> None:
    """Clients of a server that does not listen any more get to the other one."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        nginx(tmp_path, one.port, two.port) as balancer,
    ):
        one.stop()
        for _ in range(4):
            visit(balancer.port)


def test_a_server_is_taken_out(tmp_path: Path) -> None:
    """After a server was marked `down` and nginx has reloaded, nobody comes to it, and who is there may stay."""
    with (
        serving(*REQUIRE) as one,
        serving(*REQUIRE) as two,
        nginx(tmp_path, one.port, two.port, down="6002") as balancer,
        met(balancer.port) as guest,  # of `one`, for there is no other
    ):
        balancer.configure("6001")
        balancer.process.send_signal(signal.SIGHUP)  # which is `nginx -s reload`
        balancer.log.expect(b"gracefully shutting down")  # the worker that knows only `one`
        came = {visit(balancer.port) for _ in range(4)}
        guest.say(b"Grace\n")
        guest.hear(hello("Grace") + PROMPT)
        one.process.send_signal(signal.SIGTERM)
        assert guest.hear_rest() == GOODBYE
        guest.end()
        assert one.process.wait(PATIENCE) == 0
        assert f"Connection from {where(guest)} through " in one.log.rest().decode()
    assert came == clients(two.log)
