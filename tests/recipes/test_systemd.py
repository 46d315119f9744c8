"""systemd: the units are valid, and what they say is what the server does. systemd itself need not run."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from greeter_trio._cli import options as _arguments
from tests.cli.helpers import HOST, PATIENCE, Output, free_port, run_client, started
from tests.trio.certificates import Authority

from .helpers import FOLDER, adapted

if sys.platform != "linux":
    pytest.skip("systemd needs Linux", allow_module_level=True)

PYTHON = "/opt/greeter/bin/python"


def setting(unit: str, name: str) -> str:
    """Return what a unit says of something."""
    found = re.findall(rf"^{name}=(.+)$", (FOLDER / unit).read_text("utf-8"), flags=re.MULTILINE)
    assert len(found) == 1, found
    return str(found[0])


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="there is no systemd-analyze on PATH"
)
def test_the_units_are_valid(tmp_path: Path) -> None:
    """The units have nothing in them that systemd would complain of."""
    (tmp_path / "greeter.socket").write_text(adapted("greeter.socket", {}))
    (tmp_path / "greeter.service").write_text(adapted("greeter.service", {PYTHON: sys.executable}))
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "greeter.socket", tmp_path / "greeter.service"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    ours = [
        line for line in verified.stdout.splitlines() if "greeter" in line
    ]  # the machine's own units are its own
    assert ours == []


def test_there_is_time_to_end() -> None:
    """The server takes less time to end than systemd gives it."""
    arguments = _arguments.parse(
        setting("greeter.service", "ExecStart").partition(" -m greeter_trio ")[2].split()
    )
    assert (
        float(setting("greeter.service", "TimeoutStopSec"))
        > arguments.drain_delay + arguments.grace
    )


@pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"),
    reason="there is no systemd-socket-activate on PATH",
)
def test_the_service(tmp_path: Path) -> None:
    """The first client has the service started, a reload has another certificate shown; systemd is told each step."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    certificate = Path(old.issue(HOST))
    start = setting("greeter.service", "ExecStart").replace(
        "/etc/greeter/tls.pem", str(certificate)
    )
    command = start.replace(PYTHON, sys.executable).split()
    port, told = free_port(), tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(PATIENCE)
        systemd.bind(str(told))
        activate = (
            "systemd-socket-activate",
            "-l",
            f"{HOST}:{port}",
            "-E",
            f"NOTIFY_SOCKET={told}",
        )
        with started(*activate, *command) as service:
            assert service.stderr
            log = Output(service.stderr.fileno())
            log.expect(b"Listening on ")
            assert run_client(port, "--tls", "--ca", old.path, "Ada").stdout == b"Hello Ada!\n"
            assert systemd.recv(100) == b"READY=1"

            certificate.write_bytes(Path(new.issue(HOST)).read_bytes())
            reload = setting("greeter.service", "ExecReload").replace("$MAINPID", str(service.pid))
            subprocess.run(reload.split(), timeout=PATIENCE, check=True)
            assert systemd.recv(100).startswith(b"RELOADING=1\n")
            assert systemd.recv(100) == b"READY=1"
            assert run_client(port, "--tls", "--ca", new.path, "Grace").stdout == b"Hello Grace!\n"

            service.send_signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            assert service.wait(PATIENCE) == 0
            log.join()
