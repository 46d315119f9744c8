"""Every asynchronous test comes to an end; what many tests need."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from .support.certificates import Authority
from .support.clocks import PATIENCE, SETTLED
from .support.logs import Log, gathered
from .support.transports import ALL, Pair


def run_bounded(
    main: Callable[[], Awaitable[object]], *, clock: trio.abc.Clock | None, **options: Any
) -> None:
    """Run a test, and give up after a time that none takes: a fault must not make a test hang."""

    async def run() -> None:
        with trio.fail_after(PATIENCE if clock is None else 1_000_000):  # virtual seconds are free
            await main()

    trio.run(run, clock=clock, **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=run_bounded), append=False)


@pytest.fixture
def log() -> Iterator[Log]:
    """Gather what the server logs during the test."""
    with gathered() as log:
        yield log


@pytest.fixture
def settling_clock(autojump_clock: MockClock) -> MockClock:
    """Return a clock that jumps when real sockets are quiet, too: TCP takes its time."""
    autojump_clock.autojump_threshold = SETTLED
    return autojump_clock


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def pair(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Pair]:
    """Yield a transport of the kind that `kinds` names, and the peer at its other end."""
    async with ALL[request.param](authority) as pair:
        yield pair
