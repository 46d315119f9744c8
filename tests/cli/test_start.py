"""How a command starts: it imports what it needs, and nothing else."""

import json
import subprocess
import sys

import pytest

from tests.support.processes import ROOT, serving

if sys.platform == "win32":
    pytest.skip("these tests start a server that needs signals", allow_module_level=True)

_RUN = """
import json, sys
from greeter_trio._cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted(sys.modules)]))
"""
HEAVY = {
    "asyncio",
    "ctypes",
    "datetime",
    "greeter_core._recorder",
    "greeter_core._transcript",
    "greeter_trio._cli.terminal",
    "greeter_trio._cli.watch",
    "greeter_trio._net.listeners",
    "greeter_trio._net.proxy",
    "greeter_trio._server",
    "greeter_trio._service.session",
    "greeter_trio._show",
    "ipaddress",
    "logging",
    "readline",
}
"""What one command needs, or another one, but not a probe."""


def loaded(*arguments: str) -> tuple[int, set[str]]:
    """Run a command; return its status, and the modules that it has loaded and Trio has not."""
    modules = []
    for code, words in ((_RUN, arguments), ("import json, sys, trio; " + _LIST, ())):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        status, names = json.loads(done.stdout.splitlines()[-1])
        modules.append((status, set(names)))
    (status, names), (_, of_trio) = modules
    return status, names - of_trio


_LIST = "print(json.dumps([0, sorted(sys.modules)]))"


def test_a_probe() -> None:
    with serving() as server:
        status, modules = loaded("client", "--port", f"{server.port}", "Ada")
    assert status == 0
    assert "greeter_trio._cli.batch" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("command", ["client", "replay", "demo", "serve"])
def test_help(command: str) -> None:
    """It needs the options of its command alone."""
    status, modules = loaded(command, "--help")
    assert status == 0
    needed = {"greeter_trio._service.limits"}
    heavy = {each for each in HEAVY if each in modules}
    assert heavy - needed == set()
    others = {"client", "serve", "show"} - {"show" if command in ("replay", "demo") else command}
    assert not modules & {f"greeter_trio._cli.{other}_options" for other in others}


def test_without_a_command_or_with_a_wrong_one() -> None:
    for arguments in ((), ("greet",)):
        status, modules = loaded(*arguments)
        assert status == 2
        assert not {"client_options", "serve_options"} & {
            name.rpartition(".")[2] for name in modules
        }
