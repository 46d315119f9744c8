"""systemd: the units are valid, and right about the server. systemd itself need not run."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from greeter_trio._cli.options import parse
from greeter_trio._cli.serve_options import ServeOptions
from tests.support.certificates import Authority
from tests.support.processes import HOST, PATIENCE, Output, free_port, run, run_client, started
from tests.support.words import ADA, hello

from .helpers import FOLDER, adapted, needs

if sys.platform != "linux":
    pytest.skip("systemd needs Linux", allow_module_level=True)

PYTHON = "/opt/greeter/bin/python"


def setting(unit: str, name: str) -> str:
    text = (FOLDER / unit).read_text("utf-8")
    (value,) = re.findall(rf"^{name}=(.+)$", text, flags=re.MULTILINE)
    return str(value)


@needs("systemd-analyze")
def test_the_units_are_valid(tmp_path: Path) -> None:
    (tmp_path / "greeter.socket").write_text(adapted("greeter.socket", {}))
    (tmp_path / "greeter.service").write_text(adapted("greeter.service", {PYTHON: sys.executable}))
    units = [str(tmp_path / unit) for unit in ("greeter.socket", "greeter.service")]
    verified = run(*units, command=("systemd-analyze", "verify"))
    # The machine's own units are its own.
    complaints = (verified.stdout + verified.stderr).splitlines()
    assert [line for line in complaints if b"greeter" in line] == []


def test_there_is_time_to_end() -> None:
    """The server takes less time to end than systemd gives it."""
    command = setting("greeter.service", "ExecStart").partition(" -m greeter_trio ")[2]
    options = parse(command.split())
    assert isinstance(options, ServeOptions)
    limit = float(setting("greeter.service", "TimeoutStopSec"))
    assert limit > options.limits.drain_delay + options.limits.grace


@needs("systemd-socket-activate")
def test_the_service(tmp_path: Path) -> None:
    """A client starts the service, a reload the use of another certificate; systemd is told all."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    certificate = Path(old.issue(HOST))
    start = setting("greeter.service", "ExecStart").replace(PYTHON, sys.executable)
    command = start.replace("/etc/greeter/tls.pem", str(certificate)).split()
    port, told = free_port(), tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(PATIENCE)
        systemd.bind(str(told))
        activate = f"systemd-socket-activate -l {HOST}:{port} -E NOTIFY_SOCKET={told}"
        with started(*activate.split(), *command) as service:
            log = Output(service.stderr)
            log.expect(b"Listening on ")
            assert run_client(port, "--tls", "--ca", old.path, "Ada").stdout == ADA
            assert systemd.recv(100) == b"READY=1"

            certificate.write_bytes(Path(new.issue(HOST)).read_bytes())
            reload = setting("greeter.service", "ExecReload").replace("$MAINPID", str(service.pid))
            subprocess.run(reload.split(), timeout=PATIENCE, check=True)
            assert systemd.recv(100).startswith(b"RELOADING=1\n")
            assert systemd.recv(100) == b"READY=1"
            assert run_client(port, "--tls", "--ca", new.path, "Grace").stdout == hello("Grace")

            service.send_signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            assert service.wait(PATIENCE) == 0
            log.join()
