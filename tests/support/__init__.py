"""What many tests need: words, peers, streams, servers, clocks and plays."""

import sys

if (
    "pytest" in sys.modules
):  # the servers of the benchmarks use words, too, and need not wait for it
    import pytest

    pytest.register_assert_rewrite("tests.support.peers", "tests.trio.driven")
