"""Sending in steps: what goes at once, what waits, and what gives up."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from greeter_trio._net.outbox import Outbox, SendFailed
from greeter_trio._net.stream_transport import StreamTransport
from tests.support.streams import Fault, Tap
from tests.support.transports import PATTERN, Narrow

SLICE = 65536


def blocked(timeout: float = 10) -> tuple[Outbox, Narrow]:
    """Return an outbox that has something left to send, and its transport."""
    transport = Narrow(goes_now=100)
    outbox = Outbox(transport, timeout)
    assert not outbox.put(PATTERN[: 3 * SLICE])
    return outbox, transport


def test_what_goes_at_once_leaves_nothing() -> None:
    outbox = Outbox(Narrow(goes_now=100), timeout=10)
    assert outbox.is_empty
    assert outbox.put(b"Ada")
    assert outbox.is_empty
    assert outbox.sent == 3


def test_what_goes_at_once_leaves_the_end_in_good_order() -> None:
    transport = Narrow(goes_now=100)
    Outbox(transport, timeout=10).put(b"Ada")
    assert not transport.resets


async def test_a_stream_that_is_closed_with_something_unsent_is_reset(
    autojump_clock: MockClock,
) -> None:
    """Also when a cancelled send may have sent a part, and when the rest was dropped."""
    outbox, transport = Outbox(stalled := Narrow(goes_now=0), timeout=10), stalled
    outbox.put(b"Ada")
    assert not transport.resets
    with trio.move_on_after(1):
        await outbox.send_all()
    assert transport.resets
    outbox, transport = blocked()
    assert transport.resets
    transport.at_once = 1000
    with trio.move_on_after(1):
        await outbox.send_all()
    assert transport.resets
    transport.at_once = None
    transport.steps.set()
    await outbox.send_all()
    assert not transport.resets
    outbox, transport = blocked()
    outbox.clear()
    assert transport.resets


def test_what_does_not_go_at_once_is_kept_until_it_is_cleared() -> None:
    outbox, transport = blocked()
    assert not outbox.is_empty
    assert outbox.sent == 100
    outbox.clear()
    assert outbox.is_empty
    assert outbox.put(b"more")
    assert transport.sent == PATTERN[:100] + b"more"


@pytest.mark.parametrize("at_once", [None, 1000, SLICE])
async def test_all_is_sent_in_order(at_once: int | None) -> None:
    outbox, transport = blocked()
    transport.at_once = at_once
    transport.steps.set()
    await outbox.send_all()
    assert transport.sent == PATTERN[: 3 * SLICE]
    assert outbox.sent == 3 * SLICE
    assert outbox.is_empty


@pytest.mark.parametrize("seconds", [0.5, 100])
async def test_a_slice_that_is_not_taken_in_time_fails(
    autojump_clock: MockClock, seconds: float
) -> None:
    outbox, _ = blocked(seconds)
    message = rf"^the peer took less than 64 KiB in {seconds:g} s$"
    with pytest.raises(SendFailed, match=message) as excinfo:
        await outbox.send_all()
    assert isinstance(excinfo.value.why, trio.TooSlowError)
    assert str(excinfo.value.why) == str(excinfo.value)
    assert trio.current_time() == seconds
    assert outbox.sent == 100


class Taking(Narrow):
    """A peer that takes so many bytes at each second."""

    async def send_some(self, data: bytes | memoryview) -> int:
        await trio.sleep(1)
        self.steps.set()
        return await super().send_some(data)


@pytest.mark.parametrize(
    ("at_once", "failed_at"), [(SLICE // 9, None), (SLICE // 10 - 1, 10)], ids=["enough", "too few"]
)
async def test_the_timeout_is_that_of_each_64_kib(
    autojump_clock: MockClock, at_once: int, failed_at: float | None
) -> None:
    """A peer that takes each slice in time may take long for all of it."""
    transport = Taking(goes_now=0)
    transport.at_once = at_once
    outbox = Outbox(transport, timeout=10.5)
    outbox.put(PATTERN[: 3 * SLICE])
    if failed_at is None:
        await outbox.send_all()
        assert trio.current_time() > 27
        assert transport.sent == PATTERN[: 3 * SLICE]
    else:
        with pytest.raises(SendFailed):
            await outbox.send_all()
        assert trio.current_time() == 10.5
        assert outbox.sent == 10 * at_once  # what is known to be gone, and no more


@pytest.mark.parametrize(("late_by", "fails_at"), [(0.9, 10.9), (1.1, 21.1)])
async def test_a_timeout_that_is_noticed_late_is_given_once_more(
    autojump_clock: MockClock, late_by: float, fails_at: float
) -> None:
    """A process that was stopped while it sent does not blame its peer, the first time."""
    outbox, _ = blocked()
    with pytest.RaisesGroup(SendFailed):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.send_all)
            await wait_all_tasks_blocked()
            autojump_clock.jump(10 + late_by)
    assert trio.current_time() == pytest.approx(fails_at)


async def test_a_send_goes_on_after_a_late_timeout(autojump_clock: MockClock) -> None:
    outbox, transport = blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send_all)
        await wait_all_tasks_blocked()
        autojump_clock.jump(100)
        await wait_all_tasks_blocked()
        transport.steps.set()
    assert transport.sent == PATTERN[: 3 * SLICE]


async def test_a_cancelled_send_is_resumed_where_it_was(autojump_clock: MockClock) -> None:
    transport = Taking(goes_now=0)
    transport.at_once = 1000
    outbox = Outbox(transport, timeout=100)
    outbox.put(PATTERN[:5000])
    with trio.move_on_after(2.5) as scope:
        await outbox.send_all()
    assert scope.cancelled_caught
    assert outbox.sent == 2000
    await outbox.send_all()
    assert transport.sent == PATTERN[:5000]
    assert outbox.sent == 5000


async def test_it_receives_again_and_again_while_it_sends(autojump_clock: MockClock) -> None:
    """There is no timeout: what is received decides how long it goes on."""
    outbox, transport = blocked(timeout=1)
    received = 0

    async def receive() -> None:
        nonlocal received
        await trio.sleep(5)
        received += 1
        if received == 10:
            transport.steps.set()

    await outbox.send_while(receive, lambda: True)
    assert trio.current_time() == 50
    assert transport.sent == PATTERN[: 3 * SLICE]


async def test_a_send_is_given_up_when_nothing_is_wanted_any_more(
    autojump_clock: MockClock,
) -> None:
    outbox, transport = blocked()
    with pytest.raises(SendFailed, match="given up") as excinfo:
        await outbox.send_while(partial(trio.sleep, 1), lambda: trio.current_time() < 2)
    assert isinstance(excinfo.value.why, trio.BrokenResourceError)
    assert trio.current_time() == 2
    assert transport.sent == PATTERN[:100]


async def test_what_is_wanted_no_more_when_all_is_sent_is_no_failure() -> None:
    outbox, transport = blocked()
    transport.steps.set()
    await outbox.send_while(trio.lowlevel.checkpoint, lambda: outbox.sent < 3 * SLICE)
    assert outbox.is_empty


@pytest.mark.parametrize("receives", [False, True], ids=["send_all", "send_while"])
async def test_a_broken_connection_fails_with_its_reason(*, receives: bool) -> None:
    stream, _ = memory_stream_pair()
    fault = Fault("send", 1, trio.BrokenResourceError("gone"))
    outbox = Outbox(StreamTransport(Tap(stream, fault)), timeout=10)
    outbox.put(b"Ada")
    send = partial(outbox.send_while, trio.sleep_forever, lambda: True)
    with pytest.raises(SendFailed, match=r"^gone$") as excinfo:
        await (send() if receives else outbox.send_all())
    assert str(excinfo.value.why) == "gone"


async def test_what_receiving_raises_is_raised_as_it_is() -> None:
    async def receive() -> None:
        raise ZeroDivisionError

    outbox, _ = blocked()
    with pytest.raises(ZeroDivisionError):
        await outbox.send_while(receive, lambda: True)


async def test_what_receiving_raises_goes_before_a_broken_send() -> None:
    """Both happen in the same pass of the scheduler, in either order."""

    class Broken(Narrow):
        async def send_some(self, _: bytes | memoryview) -> int:
            raise trio.BrokenResourceError

    async def receive() -> None:
        raise ZeroDivisionError

    for _ in range(10):
        outbox = Outbox(Broken(goes_now=0), timeout=1)
        outbox.put(b"Ada")
        with pytest.raises(ZeroDivisionError):
            await outbox.send_while(receive, lambda: True)


async def test_the_end_has_the_timeout_of_a_slice() -> None:
    transport = Narrow(goes_now=100)
    await Outbox(transport, timeout=7).send_eof()
    assert transport.eof_timeout == 7
