"""The original client has its conversations over bad paths, too.

`python -m tests.paths` shows what these tests are worth.
"""

from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from .crowd import CLIENTS, PATHS, WELL, trial
from .path import Unavailable

HURT = ["sent", "lost", "went ahead", "sent while dead"]
"""For each path, what must have happened to packets, or it was a good one."""


def test_original_clients() -> None:
    """They hear one word at a time, whatever happens to packets, and do not hang [S2.7]."""
    *paths, dead = PATHS.values()
    paths.append(attrs.evolve(dead, dead_from=0.2, dead_for=0.6))
    with ThreadPoolExecutor() as pool:  # all at once: each has network namespaces of its own
        trials = [pool.submit(trial, impairment, names=[b"Ada"]) for impairment in paths]
    try:
        results = [each.result() for each in trials]
    except Unavailable as exc:
        pytest.skip(str(exc))
    assert [outcomes for outcomes, _ in results] == [{WELL: CLIENTS}] * len(PATHS), results
    assert all(packets[hurt] > 0 for (_, packets), hurt in zip(results, HURT, strict=True))
