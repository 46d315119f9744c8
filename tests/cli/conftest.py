"""A server for all those tests that need no server of their own."""

from collections.abc import Iterator

import pytest

from tests.cli.helpers import serving


@pytest.fixture(scope="package")
def port() -> Iterator[int]:
    """Return the port of a server with default options, the same one for all tests."""
    with serving() as server:
        yield server.port
