"""The soak can fail: each of its scenarios notices a server that does what it looks for."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("reads /proc and uses epoll", allow_module_level=True)

from tests.support.accounting import Command

from .__main__ import SCENARIOS, findings
from .finding import TINY, Finding, at_most, exactly, none_of

SLOW = """
answer = servers.answer
servers.answer = lambda data: (time.sleep(0.02 * (b"\\n" not in data)), answer(data))[1]
"""
LEAKY = """
accept = socket.socket.accept
socket.socket.accept = lambda self: (connection := accept(self), os.dup(connection[0].fileno()))[0]
"""
GREEDY = """
kept, answer = [], servers.answer
servers.answer = lambda data: (kept.append(b"x" * 2**20), answer(data))[1]
"""
FORGETFUL = """
with open(sys.argv[sys.argv.index("--record") + 1], "w") as record:
    record.write('{"transcript": 1}\\n')
"""
FAULTS = {
    "idle": ("servers.HELLO = b'Hallo '", {"the scenario could not go on"}),
    "drain": ("", {"servers that did not end with status 0"}),
    "drippers": (SLOW, {"ratio of p99, median"}),
    # It keeps something of each arrival, and has no time limit.
    "deaf": (GREEDY, {"memory for each of them", "deaf clients that were not cut, in each wave"}),
    "resets": (LEAKY, {"descriptors left by resets before anything"}),
    "descriptors": ("", {"CPU time for each second"}),  # it tries again at once
    "hostile": (LEAKY, {"descriptors left by hostile streams, plain"}),
    "recorded": (FORGETFUL, {"conversations that are missing"}),
    "restart": ("", {"servers that came back on their port"}),  # it takes any that is free
}
"""What is wrong with the server, if it is not the plain epoll server, and what must not hold."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_bad_server_is_found_out(name: str) -> None:
    fault, expected = FAULTS[name]
    imports = "import os, socket, sys, time\nfrom tests.benchmarks import servers"
    command = Command(["-c", f"{imports}\n{fault}\nservers.serve_epoll()"])
    found = [*findings(SCENARIOS[name], TINY, command)]
    assert expected <= {finding.what for finding in found if not finding.holds}, found


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (at_most("memory", 7.0, 7, "KiB"), "ok     memory 7 KiB (expected: at most 7)"),
        (at_most("memory", 7.01, 7, "KiB"), "FAILS  memory 7.01 KiB (expected: at most 7)"),
        (exactly("status", 0, 0), "ok     status 0 (expected: 0)"),
        (exactly("status", None, 0), "FAILS  status None (expected: 0)"),
        (none_of("resets", [], 3), "ok     resets 0 of 3 (expected: 0)"),
        (none_of("resets", ["a", "b"], 3), "FAILS  resets 2 of 3; the first: a (expected: 0)"),
        (none_of("resets", [], 0), "FAILS  resets 0 of 0 (expected: 0)"),
        (Finding("noise", "20%"), "       noise 20%"),
    ],
)
def test_finding_is_judged(finding: Finding, said: str) -> None:
    """What is out of bounds, is other than it should be, has failed or never happened, fails."""
    assert str(finding).split() == said.split()
    assert finding.holds is ("FAILS" not in said)
