"""A server, many original clients, and a bad path between them."""

import sys
from collections import Counter

from tests.cli.helpers import COMMAND, serving_at

from .crowd import converse
from .path import Impairment, path

PATHS = {
    "RTT 300 ± 40 ms": Impairment(delay=0.15, jitter=0.02),
    "3 % lost each way": Impairment(delay=0.01, loss=0.03),
    "20 % reordered": Impairment(delay=0.03, ahead=0.2),
    "dead for 2.5 s": Impairment(delay=0.02, dead_from=0.4, dead_for=2.5),
}
NAMES = (b"Ada", "小明".encode(), b"Grace Hopper")
CLIENTS = 30
APART = 0.01  # seconds; so that the conversations are not all at the same point
PATIENCE = 60.0  # seconds for all of them


def trial(
    impairment: Impairment, *, seed: int = 1, command: tuple[str, ...] = COMMAND
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many conversations ended in which way, and what happened to how many packets."""
    with path(impairment, seed) as between:
        number = between.listener.fileno()
        command = (sys.executable, "-m", "tests.paths.leash", *command)
        with serving_at("--listen", f"fd:{number}", command=command, pass_fds=[number]):
            names = [NAMES] * CLIENTS
            outcomes = converse(between.connect, names, patience=PATIENCE, apart=APART)
            return Counter(outcomes), between.counted()
