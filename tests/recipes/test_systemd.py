"""systemd: the units are valid, and right about the server. systemd itself need not run."""

import ctypes.util
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
from tests.support.processes import (
    HOST,
    PATIENCE,
    Output,
    Process,
    free_port,
    run,
    run_client,
    started,
)
from tests.support.words import ADA, hello

from .helpers import FOLDER, adapted, needs

if sys.platform != "linux":
    pytest.skip("systemd needs Linux", allow_module_level=True)

PYTHON = "/opt/greeter/bin/python"
CONFINING = needs("systemd-analyze", "unshare", "setpriv")


def settings(unit: str, name: str) -> list[str]:
    """Return all values of a setting that can be there more than once."""
    text = (FOLDER / unit).read_text("utf-8")
    return re.findall(rf"^{name}=(.+)$", text, flags=re.MULTILINE)


def setting(unit: str, name: str) -> str:
    (value,) = settings(unit, name)
    return value


def options() -> ServeOptions:
    """Return what the service is started with."""
    command = setting("greeter.service", "ExecStart").partition(" -m greeter_trio ")[2]
    parsed = parse(command.split())
    assert isinstance(parsed, ServeOptions)
    return parsed


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Return paths of the units, in which Python is the one that runs the tests."""
    (tmp_path / "greeter.socket").write_text(adapted("greeter.socket", {}))
    (tmp_path / "greeter.service").write_text(adapted("greeter.service", {PYTHON: sys.executable}))
    return [str(tmp_path / unit) for unit in ("greeter.socket", "greeter.service")]


@needs("systemd-analyze")
def test_the_units_are_valid(units: list[str]) -> None:
    verified = run(*units, command=("systemd-analyze", "verify"))
    # The machine's own units are its own.
    complaints = (verified.stdout + verified.stderr).splitlines()
    assert [line for line in complaints if b"greeter" in line] == []


@needs("systemd-analyze")
def test_the_service_can_do_little(units: list[str]) -> None:
    """From 0 to 10, as systemd rates what an attacker could do in the service."""
    analyze = ("systemd-analyze", "security", "--offline=true", "--no-pager")
    analyzed = run(units[1], command=analyze)
    if b"--offline" in analyzed.stderr:
        pytest.skip("this systemd rates only services that run")
    rating = rb"Overall exposure level for greeter\.service: (\d+\.\d) "
    (exposure,) = re.findall(rating, analyzed.stdout)
    assert float(exposure) <= 1.5


def test_there_is_time_to_end() -> None:
    """The server takes less time to end than systemd gives it."""
    limits = options().limits
    assert float(setting("greeter.service", "TimeoutStopSec")) > limits.drain_delay + limits.grace


def test_there_are_descriptors() -> None:
    """The server gets enough for as many clients as it serves, and a few more."""
    descriptors = int(setting("greeter.service", "LimitNOFILE"))
    assert descriptors > options().limits.max_connections + 100


def system_calls(words: str) -> set[str]:
    """Return the names of all system calls in a list that can have sets in it."""
    names = set()
    for word in words.split():
        if word.startswith("@"):
            shown = run(word, command=("systemd-analyze", "syscall-filter")).stdout.decode()
            inside = [line for line in shown.splitlines()[1:] if not line.strip().startswith("#")]
            names |= system_calls(" ".join(inside))
        else:
            names.add(word)
    return names


def allowed(unit: str) -> set[str]:
    """Return what the filter of a service allows."""
    names = system_calls("@default")
    for value in settings(unit, "SystemCallFilter"):
        if value.startswith("~"):
            names -= system_calls(value[1:])
        else:
            names |= system_calls(value)
    return names


def confinement(folder: Path, unit: str = "greeter.service") -> list[str]:
    """Return a command that confines another one, in the most important ways of the unit."""
    if not ctypes.util.find_library("seccomp"):
        pytest.skip("there is no libseccomp")
    unshare = ["unshare", "--user", "--map-current-user", "--ipc", "--uts"]
    unshare += ["--net"] * len(settings(unit, "PrivateNetwork"))
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    if run("true", command=[*unshare, *bare]).returncode != 0:
        pytest.skip("there are no user namespaces")
    path = folder / "allowed"
    path.write_text("\n".join(sorted(allowed(unit))))
    families = setting(unit, "RestrictAddressFamilies").replace(" ", ",")
    return [*unshare, *bare, sys.executable, str(FOLDER / "confined.py"), str(path), families]


def state(process: Process, name: str) -> str:
    """Return what the kernel says of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    return dict(line.split(":\t", 1) for line in status.splitlines())[name].strip()


@needs("systemd-socket-activate")
@pytest.mark.parametrize("is_confined", [False, pytest.param(True, marks=CONFINING)])
def test_the_service(tmp_path: Path, *, is_confined: bool) -> None:
    """A client starts the service, a reload the use of another certificate; systemd is told all.

    All this works without privileges, network and most system calls.
    """
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    certificate = Path(old.issue(HOST))
    start = setting("greeter.service", "ExecStart").replace(PYTHON, sys.executable)
    command = start.replace("/etc/greeter/tls.pem", str(certificate)).split()
    if is_confined:
        command[:0] = confinement(tmp_path)
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
            if is_confined:
                assert [state(service, name) for name in ("CapBnd", "Seccomp")] == ["0" * 16, "2"]

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
