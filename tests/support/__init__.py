"""What many tests need: words, peers, streams, servers, clocks and plays."""

import sys

if "pytest" in sys.modules:  # the servers of the benchmarks, which use words, do without
    import pytest

    pytest.register_assert_rewrite("tests.support.peers", "tests.trio.driven")
