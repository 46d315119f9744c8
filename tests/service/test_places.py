"""The limit on connections: who is served, refused, or waits."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greeter_trio import Limits, WhenFull
from greeter_trio._service.places import MOST_REFUSED, Places
from tests.support.logs import Log


def places(number: int, when_full: WhenFull = WhenFull.WAIT) -> Places:
    return Places(Limits(max_connections=number, when_full=when_full))


@pytest.mark.parametrize("when_full", WhenFull)
def test_connections_are_served_up_to_the_limit(when_full: WhenFull) -> None:
    them = places(3, when_full)
    for _ in range(3):
        assert them.may_accept()
        assert them.admit()
    assert them.may_accept() == (when_full is WhenFull.REJECT)
    them.release(served=True)
    assert them.may_accept()
    assert them.admit()
    assert them.may_accept() == (when_full is WhenFull.REJECT)


async def test_a_hundred_connections_are_refused_at_once() -> None:
    them = places(1, WhenFull.REJECT)
    assert them.admit()
    assert MOST_REFUSED == 100
    for _ in range(MOST_REFUSED):
        assert them.may_accept()
        assert not them.admit()
    assert not them.may_accept()
    them.release(served=False)
    assert them.may_accept()
    assert not them.admit()
    assert not them.may_accept()


async def test_refused_connections_take_no_place() -> None:
    them = places(1, WhenFull.REJECT)
    assert them.admit()
    assert not them.admit()
    them.release(served=True)
    assert them.admit()
    them.release(served=False)
    assert not them.admit()


async def test_all_acceptors_look_again_when_a_place_is_released() -> None:
    """With one of them woken, another listener's client would wait though there is a place."""
    them, passed = places(1), list[int]()

    async def accept(number: int) -> None:
        await them.wait_for_place()
        passed.append(number)
        them.admit()

    assert them.admit()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(accept, number)
        for accepted in range(3):
            await wait_all_tasks_blocked()
            assert len(passed) == accepted
            them.release(served=True)
    assert sorted(passed) == [0, 1, 2]


async def test_a_woken_acceptor_that_takes_no_place_leaves_it_to_the_others() -> None:
    """Its client may have gone meanwhile."""
    them = places(1)
    assert them.admit()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(them.wait_for_place)
        await wait_all_tasks_blocked()
        them.release(served=True)


async def test_a_client_that_must_wait_is_warned_of(log: Log) -> None:
    """Whoever waits for a place without a client, as a shutdown does, warns of nothing."""
    them = places(1)
    them.note_client()
    assert them.admit()
    with trio.move_on_after(0):
        await them.wait_for_place()
    assert log.lines == []
    them.note_client()
    assert log.lines == ["The server is full, with 1 client: clients wait (1 time so far)"]
