"""What a test may not leave behind."""

import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - pathlib would look at each of them, and one is the listing itself


@contextlib.asynccontextmanager
async def nothing_left_open() -> AsyncIterator[None]:
    """Check that the block leaves no descriptor open; what leaked is not collected first."""
    if sys.platform == "win32":  # nothing tells
        yield
        return
    gc.collect()  # nothing from an earlier test is to go away meanwhile
    before = open_descriptors()
    yield
    assert open_descriptors() == before
