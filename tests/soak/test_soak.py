"""The soak can fail: each of its scenarios notices a server that does what it looks for."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("reads /proc and uses epoll", allow_module_level=True)

from .__main__ import SCENARIOS, findings, line
from .finding import Finding, Sizes, at_most, exactly, none_of, note

TINY = Sizes(
    idle=20,
    active=2,
    idle_seconds=0.05,
    drains=1,
    reconnecting=6,
    drippers=300,
    drip_turns=1,
    drip_seconds=0.1,
    deaf=20,
    deaf_seconds=0.1,
    send_timeout=0.1,
    resets=50,
    places=5,
    starved_seconds=0.3,
    restarts=1,
    patience=0.05,
)
SLOW = """
answer = servers.answer
servers.answer = lambda data: (time.sleep(0.02 * (b"\\n" not in data)), answer(data))[1]
"""
LEAKY = """
accept = socket.socket.accept
socket.socket.accept = lambda self: (connection := accept(self), os.dup(connection[0].fileno()))[0]
"""
FAULTS = {
    "idle": ("servers.HELLO = b'Hallo '", "the scenario could not go on"),
    "drain": ("", "servers that did not end with status 0"),
    "drippers": (SLOW, "ratio of p99, median"),
    "deaf": ("", "deaf clients who were not cut, in each wave"),  # it has no time limit
    "resets": (LEAKY, "descriptors left by resets before anything"),
    "descriptors": ("", "CPU time for each second"),  # it tries again at once
    "restart": ("", "servers that came back on their port"),  # it takes any that is free
}
"""For each scenario what is wrong with the server, if that is not the plain epoll server, and what must not hold."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_bad_server_is_found_out(name: str) -> None:
    """Each scenario finds what is wrong with a server that does badly in it."""
    fault, what = FAULTS[name]
    program = f"import os, socket, time\nfrom tests.benchmarks import servers\n{fault}\nservers.serve_epoll()"

    found = [*findings(SCENARIOS[name], TINY, ["-c", program])]

    assert what in [finding.what for finding in found if not finding.holds], found


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (at_most("memory", 7.0, 7, "KiB"), "ok     memory 7 KiB (expected: at most 7)"),
        (at_most("memory", 7.01, 7, "KiB"), "FAILS  memory 7.01 KiB (expected: at most 7)"),
        (exactly("status", 0, 0), "ok     status 0 (expected: 0)"),
        (exactly("status", None, 0), "FAILS  status None (expected: 0)"),
        (none_of("resets", [], 3), "ok     resets 0 of 3 (expected: 0)"),
        (
            none_of("resets", ["gone", "gone"], 3),
            "FAILS  resets 2 of 3; the first: gone (expected: 0)",
        ),
        (none_of("resets", [], 0), "FAILS  resets 0 of 0 (expected: 0)"),
        (note("noise", "20%"), "       noise 20%"),
    ],
)
def test_finding_is_judged(finding: Finding, said: str) -> None:
    """What is out of bounds, is other than it should be, has failed once or never happened, does not hold."""
    assert line(finding).split() == said.split()
    assert finding.holds is ("FAILS" not in said)
