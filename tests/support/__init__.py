"""What many tests need: words, peers, streams, servers, clocks and plays."""

import pytest

pytest.register_assert_rewrite("tests.support.peers", "tests.trio.driven")
