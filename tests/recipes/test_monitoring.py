"""Nagios, Prometheus and Ansible detect a greeter, and that there is none or one that is stuck."""

import contextlib
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import (
    HOST,
    PATIENCE,
    Completed,
    Output,
    environment,
    free_port,
    run,
    serving,
    started,
)

from .helpers import FOLDER, adapted, found, needs, silent

OK, CRITICAL = 0, 2  # of Nagios


def check(port: int, seconds: float = PATIENCE, options: str = "-E -s") -> Completed:
    """Run the plugin as Nagios does, in a shell."""
    changes = {"$USER1$/check_tcp": found("check_tcp") or "", "$HOSTADDRESS$": HOST}
    changes |= {"-p 6000": f"-p {port}", "-t 5": f"-t {seconds:g}", "-E -s": options}
    (line,) = re.findall(r"command_line (.+)", adapted("nagios.cfg", changes))
    return run("-c", line, command=("/bin/sh",))


@needs("check_tcp")
def test_nagios() -> None:
    with serving() as server:
        assert check(server.port).returncode == OK
        server.log.expect(b"is closed: the client said exit; 0 names in ")
        server.stop()
        assert check(server.port).returncode == CRITICAL
    with silent() as port:
        assert check(port, 1).returncode == CRITICAL


@needs("check_tcp")
def test_nagios_without_escapes() -> None:
    """Without -E the plugin does not say exit, but has a backslash greeted."""
    with serving() as server:
        assert check(server.port, options="-s").returncode != OK
        server.log.expect(b"; 1 name in ")


@pytest.fixture
def exporter() -> Iterator[str]:
    """Run the exporter with the recipe's file, and return its URL."""
    port = free_port()
    file = f"--config.file={FOLDER / 'blackbox.yml'}"
    address = f"--web.listen-address={HOST}:{port}"
    with started("prometheus-blackbox-exporter", file, address) as process:
        log = Output(process.stderr)
        try:
            log.expect(b"Listening on")
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)
            log.join()


def probe(exporter: str, port: int, seconds: float = PATIENCE) -> dict[str, float]:
    """Ask for a probe, as a Prometheus does that waits for so long; return the metrics."""
    request = urllib.request.Request(f"{exporter}/probe?target={HOST}:{port}&module=greeter")
    request.add_header("X-Prometheus-Scrape-Timeout-Seconds", f"{seconds:g}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.closing(direct.open(request, timeout=PATIENCE)) as response:
        text = response.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


@needs("prometheus-blackbox-exporter")
def test_prometheus(exporter: str) -> None:
    with serving() as server:
        metrics = probe(exporter, server.port)
        assert metrics["probe_success"] == 1
        assert metrics["probe_failed_due_to_regex"] == 0
        server.log.expect(b"is closed: the client said exit; 1 name in ")
        server.stop()
        assert probe(exporter, server.port)["probe_success"] == 0
    with silent() as port:
        assert probe(exporter, port, 1)["probe_success"] == 0


def play(folder: Path, port: int, seconds: float) -> Completed:
    """Run the playbook, with variables."""
    variables = {"greeter_host": HOST, "greeter_port": port, "greeter_timeout": seconds}
    extra = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    command = ("ansible-playbook", str(FOLDER / "wait_for.yml"))
    return run(*extra, command=command, env=environment(HOME=str(folder)))


@needs("ansible-playbook")
def test_ansible(tmp_path: Path) -> None:
    with serving() as server:
        played = play(tmp_path, server.port, int(PATIENCE))
        assert played.returncode == 0, played.stdout + played.stderr
    with silent() as port:
        played = play(tmp_path, port, 1)
        assert played.returncode != 0
        assert b"Timeout when waiting for search string Welcome!" in played.stdout + played.stderr
