"""Show what differs where an assertion of the shared helpers fails, too."""

import pytest

pytest.register_assert_rewrite("tests.support.virtual")
