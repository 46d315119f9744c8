"""The original client has its conversations over bad paths, too.

What these tests are worth shows `python -m tests.paths`.
"""

import pytest

from .crowd import WELL
from .path import Unavailable
from .trial import CLIENTS, PATHS, trial

HURT = {
    "3 % lost each way": "lost",
    "20 % reordered": "went ahead",
    "dead for 2.5 s": "sent while dead",
}
"""What must have happened to packets of a path, or it was a good one."""


@pytest.mark.parametrize("name", PATHS)
def test_original_clients(name: str) -> None:
    """It hears one word at a time, whatever happens to packets, and does not hang [S2.7]."""
    try:
        outcomes, packets = trial(PATHS[name])
    except Unavailable as exc:
        pytest.skip(str(exc))
    assert outcomes == {WELL: CLIENTS}, packets
    assert name not in HURT or packets[HURT[name]] > 0
