"""Every test of the Trio side comes to an end; what many of them need."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from .certificates import Authority
from .helpers import PATIENCE, Log, gathered


def run_bounded(
    main: Callable[[], Awaitable[object]],
    *,
    clock: trio.abc.Clock | None,
    **options: Any,  # noqa: ANN401 - they are those of `trio.run`
) -> None:
    """Run a test, and give up after a time that none takes: a fault is to be a failure, and not a test that hangs."""

    async def run() -> None:
        with trio.fail_after(
            PATIENCE if clock is None else 1_000_000
        ):  # virtual seconds cost nothing
            await main()

    trio.run(run, clock=clock, **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have pytest-trio run all asynchronous tests of this folder in that way."""
    for item in items:
        here = item.path.is_relative_to(Path(__file__).parent)
        if here and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=run_bounded), append=False)


@pytest.fixture
def log() -> Iterator[Log]:
    """Gather what the server logs during the test."""
    with gathered() as log:
        yield log


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA."""
    return Authority(tmp_path_factory.mktemp("ca"))
