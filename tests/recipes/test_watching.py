"""`client --every` behind HAProxy: its summary agrees with what was done to the servers."""

import contextlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import COMMAND, HOST, PATIENCE, Output, serving, started

from .helpers import needs

if sys.platform == "win32":
    pytest.skip("these tests use signals", allow_module_level=True)

from .test_balancers import REQUIRE, ask, balancing, fact, haproxy, wait_until

EVERY = 0.05  # seconds


class Watch:
    """A watch of a port, 20 conversations a second."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.visits: list[dict[str, Any]] = []

    def see(self, number: int, *, greeted: bool = True) -> None:
        """Wait until so many more conversations have ended well, or have failed."""
        while number:
            found = json.loads(self._output.line())
            self.visits.append(found)
            number -= ("error" not in found) is greeted

    def summary(self) -> dict[str, Any]:
        *visits, last = map(json.loads, self._output.rest().splitlines())
        self.visits += visits
        summary: dict[str, Any] = last["summary"]
        return summary


def is_idle(folder: Path, server: str) -> bool:
    return fact(folder, server, "scur") == "0"


@needs("haproxy")
def test_a_rolling_restart(tmp_path: Path) -> None:
    """One server after the other is drained, ended and started again: nobody notices.

    Then both are gone for a while, and the longest outage is that while.
    """
    with (
        balancing(tmp_path, haproxy) as balancer,
        contextlib.ExitStack() as later,
        started(
            *(*COMMAND, "client", "--host", f"{HOST}:{balancer.port}", "--json"),
            *("--every", f"{EVERY}", "--timeout", "5"),
        ) as process,
    ):
        watch = Watch(Output(process.stdout))
        watch.see(20)
        servers = {"one": balancer.one, "two": balancer.two}
        for name, server in list(servers.items()):
            ask(tmp_path, f"set server greeters/{name} state drain")
            wait_until(partial(is_idle, tmp_path, name))
            server.stop()
            again = serving(*REQUIRE, "--port", str(server.port))
            servers[name] = later.enter_context(again)
            ask(tmp_path, f"set server greeters/{name} state ready")
            watch.see(20)
        assert [visit for visit in watch.visits if "error" in visit] == []

        began = time.monotonic()
        for name, server in servers.items():
            ask(tmp_path, f"set server greeters/{name} state maint")
            server.stop()
        watch.see(20, greeted=False)
        for name, server in list(servers.items()):
            later.enter_context(serving(*REQUIRE, "--port", str(server.port)))
            ask(tmp_path, f"set server greeters/{name} state ready")
        watch.see(20)
        ended = time.monotonic()
        process.terminate()
        summary = watch.summary()
        assert process.wait(PATIENCE) == 143
    failed = [visit for visit in watch.visits if "error" in visit]
    assert summary["conversations"] == len(watch.visits)
    assert summary["greeted"] == len(watch.visits) - len(failed)
    assert sum(summary["failed"].values()) == len(failed) >= 20
    # A balancer without servers accepts, and closes at once.
    assert {visit["error"]["stage"] for visit in failed} <= {"welcome", "prompt", "greeting"}
    outage = summary["longest_outage"]["seconds"]
    numbers = sorted(visit["conversation"] for visit in failed)
    assert (numbers[-1] - numbers[0] + 1) * EVERY == pytest.approx(outage, abs=0.5)
    assert outage < ended - began
    assert summary["longest_outage"]["to"]
