"""Driving connections over streams: input and output, time, and the end."""

import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from greeter_core import (
    ClientConfig,
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    Framing,
    GoodbyeReceived,
    Greeted,
    NameRequested,
    NamesReceived,
    ServerConfig,
    ServerState,
    Welcomed,
)
from greeter_trio import drive
from greeter_trio._drive import Driver
from greeter_trio._net.stream_transport import transport_over
from tests.support.clocks import cancelled_at_step
from tests.support.connections import LINES, dialogue
from tests.support.descriptors import nothing_left_open
from tests.support.peers import Peer, background
from tests.support.plays import after, ends, greets, hears, hears_rest, play, says, welcomes
from tests.support.streams import Fault, StreamPair, Tap, tcp_pair, unix_pair
from tests.support.transports import ALL, Narrow, Pair, kinds
from tests.support.words import ADA, BOB, GOODBYE, PROMPT, WELCOME, hello

from .driven import (
    ASKED,
    Client,
    Connection,
    Deaf,
    Scripted,
    Server,
    client,
    ending,
    perform,
    plays,
    put,
)

BOTH = (b"Ada", b"Bob")
GONE = trio.BrokenResourceError("gone")


def server(config: ServerConfig = LINES) -> Server:
    return Server(config, now=trio.current_time())


def auto_server() -> Server:
    return server(ServerConfig())


def either(role: str, *names: bytes) -> Connection:
    return server() if role == "server" else client(*names)


class Plain(trio.abc.Stream):
    """A stream that cannot be half-closed, made of one that can."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self._stream.aclose()


roles = pytest.mark.parametrize("role", ["server", "client"])


def driven(
    connection: Connection,
    make: Callable[[], StreamPair] = memory_stream_pair,
    handle: Callable[[Sequence[Any]], object] = lambda _: None,
) -> tuple[Driver, Peer]:
    """Return a driver over a new stream, and the peer."""
    ours, theirs = make()
    return Driver(connection, ours, handle), Peer(theirs)


@contextlib.asynccontextmanager
async def running(driver: Driver) -> AsyncIterator[trio.Nursery]:
    """Run a driver until nothing happens any more; the block begins when it waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await wait_all_tasks_blocked()
        yield nursery
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def drive_both(*both: tuple[Connection, trio.abc.Stream]) -> None:
    async with trio.open_nursery() as nursery:
        for connection, stream in both:
            nursery.start_soon(drive, connection, stream)


def names_of(connection: Server) -> list[bytes]:
    events = [event for event in connection.kept if isinstance(event, NamesReceived)]
    return [name for event in events for name in event.names]


def greeted(connection: Client) -> list[bytes]:
    return [event.name for event in connection.kept if isinstance(event, Greeted)]


def ends_with(connection: Connection, reason: EndReason, *unanswered: bytes) -> bool:
    return ending(connection) == ConversationEnded(reason, unanswered)


# Both roles against each other


async def test_each_event_of_a_conversation_is_handed_over_once_and_in_order() -> None:
    us, them = client(*BOTH), server()
    heard: dict[Connection, list[object]] = {us: [], them: []}
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, us, ours, heard[us].append)
        nursery.start_soon(drive, them, theirs, heard[them].append)
    asked, ended = NameRequested(), ConversationEnded(EndReason.EXIT)
    greetings = [asked, Greeted(b"Ada"), asked, Greeted(b"Bob"), asked]
    assert heard[us] == [Welcomed(), *greetings, GoodbyeReceived(), ended]
    assert heard[them] == [NamesReceived(list(BOTH)), ExitReceived(), EOFReceived(), ended]
    assert us.finished
    assert them.finished


@pytest.mark.parametrize("sip", [None, 4096])
@pytest.mark.parametrize("make", [memory_stream_pair, lockstep_stream_pair, unix_pair, tcp_pair])
async def test_thousands_of_pipelined_names_are_greeted_over_any_stream(
    make: Callable[[], StreamPair], sip: int | None
) -> None:
    """Nothing deadlocks, even if no stream holds a byte between the two."""
    names = [b"%d" % number for number in range(5_000)]
    us = client(*names)
    ours, theirs = make()
    await drive_both((us, ours), (server(), Tap(theirs, sip=sip) if sip else theirs))
    assert greeted(us) == names


async def test_of_a_finished_connection_the_stream_is_closed() -> None:
    connection = server()
    connection.connection_lost()
    stream = Tap(memory_stream_pair()[0])
    await drive(connection, stream)
    assert stream.calls == ["close"]


# Time, and inputs at times


@plays(r"""
pace and quiet: AUTO | 0 S WELCOME | 0.02 S PROMPT | 3 C A | 3.015 C da | 3.035 S ADA
    | 3.055 S PROMPT | 4 C Bob | 4 S BOB | 4.02 S PROMPT | 5 C exit | 5 S GOODBYE | 5 S EOF
    | 5.5 C EOF | 5.5 is EXIT | 0 kernel 0.02 3.055 4.02
words of one moment are one write: LINES | 0 S ASKED | 1 C Ada\nBob\n | 1 S ADA PROMPT BOB PROMPT
    | 1 C EOF | 1 S EOF | 1 is EOF
idle from the beginning: LINES | 0 S ASKED | 300 S TOO_SLOW | 300 S EOF | 302 is REFUSED
idle after a name: LINES | 0 S ASKED | 200 C Ada\n | 200 S ADA PROMPT | 500 S TOO_SLOW | 500 S EOF
    | 502 is REFUSED | 0 kernel
linger, reading on: LINES lockstep | 0 S ASKED | 0 C exit\n | 0 S GOODBYE | 0 S EOF | 0.5 C more\n
    | 1 C and\n | 1.9 C more\n | 2 is EXIT
linger until the peer ends: LINES | 0 S ASKED | 0 C exit\n | 0 S GOODBYE | 0 S EOF | 0.5 C EOF
    | 0.5 is EXIT
reply: CLIENT Ada exit | 10 C EOF | 10 is TIMED_OUT Ada | 0 kernel
no deadline: CLIENT | 0 S ASKED | 80000 S GOODBYE | 80000 C EOF | 80000 S EOF | 80000 is SHUTDOWN

what was due during a blocked send is said after it: AUTO slow | 1 S WELCOME | 1 S PROMPT
    | 300 S TOO_SLOW | 300 S EOF | 302 is REFUSED
words are not taken in 30 seconds: LINES slow | 30 is CONNECTION_LOST
words are taken in the 30th second: LINES slow | 29.9 S ASKED | 29.9 C Ada\n | 59.8 S ADA PROMPT
    | 59.8 C EOF | 59.8 S EOF | 59.8 is EOF
a client reads while it sends: CLIENT a b c d e slow | 0 S ASKED | 9 S Hello\x20a!\n PROMPT
    | 18 S Hello\x20b!\n PROMPT | 27 S Hello\x20c!\n PROMPT | 36 S Hello\x20d!\n PROMPT
    | 45 S GOODBYE | 45 is SHUTDOWN e
no answer to a blocked send: CLIENT Ada Bob exit slow | 0 S ASKED | 1 S ADA PROMPT
    | 11 is TIMED_OUT Bob
goodbye during a blocked send: CLIENT Ada Bob exit slow | 0 S ASKED | 1 S ADA PROMPT GOODBYE
    | 1 is SHUTDOWN Bob
refusal during a blocked send: CLIENT Ada Bob exit slow | 0 S ASKED | 1 S ADA PROMPT Sorry,\x20no.\n
    | 1 is REFUSED Bob
nonsense during a blocked send: CLIENT Ada Bob exit slow | 0 S ASKED | 1 S ADA PROMPT ?
    | 1 is VIOLATION Bob

shutdown: LINES | 0 S ASKED | 5 shutdown | 5 S GOODBYE | 5 S EOF | 6 C EOF | 6 is SHUTDOWN
names: CLIENT | 0 S ASKED | 7 ask Ada Bob | 7 C Ada\nBob\n | 7 S ADA PROMPT BOB PROMPT | 8 ask Bob
    | 8 C Bob\n | 8 S BOB PROMPT GOODBYE | 8 C EOF | 8 S EOF | 8 is SHUTDOWN
shutdown during a blocked send: LINES slow | 0 shutdown | 4 S ASKED | 4 S GOODBYE | 4 S EOF
    | 4 C EOF | 4 is SHUTDOWN
names during a blocked send: CLIENT Ada slow | 0 S ASKED | 0 ask Bob | 4 C Ada\n | 4 C Bob\n
    | 4 S EOF | 4 C EOF | 4 is EOF Ada Bob
drain: LINES | 0 S ASKED | 5 drain | 5 S GOODBYE | 5 S EOF | 6 C EOF | 6 is SHUTDOWN
drain after the end: LINES | 0 S ASKED | 0 C exit\n | 0 S GOODBYE | 0 S EOF | 1 drain | 2 is EXIT
drain during a blocked send: LINES slow | 0 drain | 29 S ASKED | 29 C Ada\n | 29 S ADA PROMPT
    | 29 S GOODBYE | 29 S EOF | 29 C EOF | 29 is SHUTDOWN
drain before the first word: LINES | 0 C Ada\n | 0 drain | 0 drain | 1 run | 1 S ASKED
    | 1 S ADA PROMPT | 1 S GOODBYE | 1 S EOF | 1 C EOF | 1 is SHUTDOWN

a run that receives is cancelled: LINES | 0 run | 0 S ASKED | 1 stop | 2 C Ada\n | 3 run
    | 3 S ADA PROMPT | 4 stop | 5 C EOF | 6 run | 6 S EOF | 6 is EOF
a run of a server that sends is cancelled: LINES slow | 0 run | 1 stop | 2 run
    | 2 is CONNECTION_LOST
a run of a client that sends is cancelled: CLIENT Ada slow | 0 run | 0 S ASKED | 1 stop | 2 run
    | 2 is CONNECTION_LOST Ada
time stands still between two runs: CLIENT:AUTO Ada Bob | 0 run | 0 S ASKED | 0 C Ada\n | 4 stop
    | 1000 run | 1005 stop | 2000 S ADA PROMPT | 3000 run | 3000 C Bob\n | 3001 stop | 4000 run
    | 4009 C EOF | 4009 is TIMED_OUT Bob
names between two runs are sent by the next: CLIENT | 0 run | 0 S ASKED | 1 stop | 1000 ask Ada
    | 2000 run | 2000 C Ada\n | 2010 C EOF | 2010 is TIMED_OUT Ada

PROMPT waits until WELCOME has arrived (S2.7): AUTO looks=3 | 0 S WELCOME | 0.08 S PROMPT
    | 0.1 C EOF | 0.1 S EOF | 0.1 is EOF | 0 kernel 0.02 0.04 0.06 0.08
a peer that never acknowledges: AUTO looks=inf | 0 S WELCOME | 300 S PROMPT TOO_SLOW | 300 S EOF
    | 302 is REFUSED
an arrival brings PROMPT out (S2.3): AUTO looks=inf | 0 S WELCOME | 1 C Ada\n
    | 1 S PROMPT ADA PROMPT | 1 C EOF | 1 S EOF | 1 is EOF
the kernel is asked for PROMPT alone: AUTO pace=0.001 | 0 S WELCOME | 0.001 S PROMPT | 1 C Ada
    | 1.02 S ADA | 1.021 S PROMPT | 301.02 S TOO_SLOW | 301.02 S EOF | 303.02 is REFUSED
    | 0 kernel 0.001 1.021
what a deadline finds is handed over, and nothing else is done: AUTO looks=inf deaf | 0 S WELCOME
    | 0 C A | 0.02 S PROMPT | 0.03 C da | 0.06 S ADA | 0.07 C EOF | 0.08 S EOF | 0.08 is EOF
    | 0 kernel
an answer before reply, during a blocked send (T3): CLIENT Ada Bob slow | 0 S ASKED
    | 1000 late S ADA PROMPT | 1010 is TIMED_OUT Bob
late words keep their distance (T1): AUTO | 0 S WELCOME | 0 C Ada | 0.045 late | 0.045 S PROMPT ADA
    | 0.065 S PROMPT | 1 C EOF | 1 S EOF | 1 is EOF
""")
@pytest.mark.parametrize("wakes", [False, True])
async def test_play(autojump_clock: MockClock, text: str, *, wakes: bool) -> None:
    """It does not matter whether the handler wakes the driver at each event."""
    await perform(text, autojump_clock, wakes=wakes)


@plays(r"""
a name before idle: LINES | 0 S ASKED | 1000 late C Ada\n | 1000 S ADA PROMPT | 1300 S TOO_SLOW
    | 1300 S EOF | 1302 is REFUSED
bytes that are no name before idle (S9.2): LINES | 0 S ASKED | 300 late C Ad | 300 S TOO_SLOW
    | 300 S EOF | 302 is REFUSED
a name before lifetime: LINES max_lifetime=100 | 0 S ASKED | 200 late C Ada\n
    | 200 S ADA PROMPT GOODBYE | 200 S EOF | 202 is LIFETIME
an answer before reply: CLIENT:AUTO Ada Bob exit | 0 S ASKED | 0 C Ada\n | 1000 late S ADA PROMPT
    | 1000 C Bob\nexit\n | 1010 C EOF | 1010 is TIMED_OUT Bob
the end before reply: CLIENT Ada exit | 0 S ASKED | 0 C Ada\nexit\n | 1000 late S EOF | 1000 C EOF
    | 1000 is EOF Ada
the end before linger: LINES | 0 S ASKED | 0 C exit\n | 0 S GOODBYE | 0 S EOF | 1000 late C EOF
    | 1000 is EXIT
""")
@kinds("memory", "TCP-edges", "Unix-borrowed")
async def test_what_has_arrived_comes_before_the_deadline(
    autojump_clock: MockClock, pair: Pair, text: str
) -> None:
    """However late both are noticed (T3)."""
    await perform(text, autojump_clock, pair)


async def test_bytes_at_the_moment_of_a_deadline_are_not_lost(autojump_clock: MockClock) -> None:
    connection = auto_server()
    names = [b"%d" % number for number in range(1, 101)]
    async with background(partial(drive, connection)) as peer:
        for name in names:
            await trio.sleep_until(int(name) * 0.02)
            await peer.say(name + b"\n")
        await peer.end()
        await peer.hear_all()
    assert names_of(connection) == names
    assert peer.heard == ASKED + b"".join(hello(name) + PROMPT for name in names)


# Inputs from other tasks


async def test_a_driver_that_is_woken_again_and_again_hears_every_byte() -> None:
    driver, peer = driven(server())

    async def wake_now_and_then() -> None:
        for steps in itertools.cycle(range(10)):
            driver.wake()
            for _ in range(steps):  # without any, nothing could be received
                await trio.lowlevel.checkpoint()

    async with running(driver) as nursery:
        nursery.start_soon(wake_now_and_then)
        nursery.start_soon(play(*(says(bytes([b])) for b in b"Ada\nBob\n" * 20 + b"exit\n")), peer)
        await peer.expect(dialogue(*BOTH * 20))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("event", [Welcomed, NameRequested, Greeted])
async def test_an_input_from_the_handler_is_sent_at_once(event: type) -> None:
    """It comes between receive and send."""
    connection = client(b"Ada", leave=False)

    def handle(happened: Sequence[object]) -> None:
        if event in map(type, happened) and connection.unanswered in ((b"Ada",), ()):
            connection.send_name(b"Bob", driver.now())
            driver.wake()

    driver, peer = driven(connection, handle=handle)
    async with running(driver):
        await play(says(ASKED), hears(b"Ada\n"), says(ADA + PROMPT), hears(b"Bob\n"))(peer)


async def test_events_are_handed_over_as_they_happen(autojump_clock: MockClock) -> None:
    happened: dict[type, float] = {}
    driver, peer = driven(
        auto_server(),
        handle=lambda events: happened.update({type(each): trio.current_time() for each in events}),
    )
    async with running(driver):
        await play(after(1), says(b"Ada"), after(1), ends(), after(1))(peer)
    assert happened == {NamesReceived: pytest.approx(1.02), EOFReceived: 2, ConversationEnded: 2}


@kinds("memory", "Unix-borrowed")
async def test_a_run_ends_when_its_condition_holds_and_all_is_sent(pair: Pair) -> None:
    """A later one goes on from there."""
    connection, peer = server(), pair.peer
    driver = Driver(connection, pair.transport)
    await peer.say(b"Ada\n")
    await driver.run(lambda: bool(names_of(connection)))
    await play(hears(ASKED, ADA, PROMPT), says(b"Bob\n"), ends())(peer)
    assert names_of(connection) == [b"Ada"]
    await driver.run()
    assert names_of(connection) == [b"Ada", b"Bob"]
    await peer.expect(BOB + PROMPT)


# Sends that are not taken


async def test_a_server_does_not_read_while_a_send_is_blocked() -> None:
    """For each send that is taken it reads once: its memory is a multiple of one chunk (M2)."""
    driver, peer = driven(server(), lockstep_stream_pair)

    async def talk() -> None:
        while True:
            await peer.say(b"a\n" * 1000)

    async with running(driver) as nursery:
        nursery.start_soon(talk)
        for reads in range(10):
            await wait_all_tasks_blocked()
            assert driver.received == 2000 * reads
            assert len(await peer.hear()) <= 17 * 2000 + 1024 + 128


@pytest.mark.parametrize("turn", range(10))  # which of two tasks goes first is a matter of chance
async def test_nothing_overtakes_what_is_being_sent(turn: int) -> None:
    """Not even when answers come, and there is room at once for what is asked meanwhile."""
    connection = client(*[b"a"] * 200, leave=False)
    transport = Narrow(ASKED, goes_now=100)
    driver = Driver(connection, transport)
    async with running(driver):
        for name in (b"b", b"c"):
            connection.send_names([name] * 200, driver.now())
            transport.arrive(hello(b"a") + PROMPT)
            await wait_all_tasks_blocked()
        assert transport.sent == b"a\n" * 50
        transport.arrive(hello(b"a") + PROMPT)
        transport.steps.set()
    assert driver.failure is None
    assert transport.sent == b"a\n" * 200 + b"b\n" * 200 + b"c\n" * 200


# Streams that break


@pytest.mark.parametrize(
    ("role", "call", "number", "reason", "unanswered"),
    [
        ("server", "receive", 1, EndReason.CONNECTION_LOST, ()),
        ("server", "receive", 2, EndReason.CONNECTION_LOST, ()),
        ("server", "send", 1, EndReason.CONNECTION_LOST, ()),
        ("server", "send", 2, EndReason.CONNECTION_LOST, ()),
        ("server", "eof", 1, EndReason.EXIT, ()),
        ("client", "receive", 1, EndReason.CONNECTION_LOST, BOTH),
        ("client", "receive", 3, EndReason.CONNECTION_LOST, BOTH),
        ("client", "receive", 5, EndReason.CONNECTION_LOST, (b"Bob",)),  # two while it sends
        ("client", "send", 1, EndReason.CONNECTION_LOST, BOTH),
        ("client", "send", 2, EndReason.CONNECTION_LOST, (b"Bob",)),
        ("client", "eof", 1, EndReason.EXIT, ()),
    ],
)
async def test_a_stream_that_breaks_ends_the_conversation_and_raises_nothing(
    role: str, call: str, number: int, reason: EndReason, unanswered: tuple[bytes, ...]
) -> None:
    us, them = server(), client(*BOTH, framing=Framing.AUTO)
    tested, other = (us, them) if role == "server" else (them, us)
    ours, theirs = memory_stream_pair()
    stream = Tap(ours, Fault(call, number, GONE))
    await drive_both((tested, stream), (other, theirs))
    assert ending(tested) == ConversationEnded(reason, unanswered)
    assert stream.calls.count(call) == number
    assert stream.calls[-1] == "close"
    assert stream.calls.count("close") == 1


async def test_a_break_after_the_end_is_no_failure() -> None:
    connection = server()
    stream = Tap(memory_stream_pair()[0], Fault("receive", 1, GONE))
    driver = Driver(connection, stream)
    connection.shutdown(driver.now())
    await driver.run()
    assert stream.calls == ["send", "eof", "receive"]
    assert driver.failure is None
    assert ends_with(connection, EndReason.SHUTDOWN)


@roles
async def test_a_send_at_once_that_fails_is_a_lost_connection(role: str) -> None:
    connection = either(role, *BOTH)
    ours, theirs = unix_pair()
    await theirs.send_all(ASKED if role == "client" else b"")
    await theirs.aclose()
    await drive(connection, ours)
    unanswered = BOTH if role == "client" else ()
    assert ends_with(connection, EndReason.CONNECTION_LOST, *unanswered)


@pytest.mark.parametrize("has_room", [False, True], ids=["during a send", "during a receive"])
@kinds("Unix-borrowed")
async def test_a_stream_that_another_task_closes_is_lost(pair: Pair, *, has_room: bool) -> None:
    connection = server()
    assert has_room or pair.fill()
    async with running(Driver(connection, pair.transport)):
        await pair.close()
    assert ends_with(connection, EndReason.CONNECTION_LOST)


@pytest.mark.parametrize("receive", [1, 2], ids=["waiting", "looking at a deadline"])
async def test_a_bug_of_the_stream_comes_out(autojump_clock: MockClock, receive: int) -> None:
    stream = Tap(memory_stream_pair()[0], Fault("receive", receive, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await drive(auto_server(), stream)
    assert stream.calls[-1] == "close"


class Bug(Exception):
    pass


@pytest.mark.parametrize("bug", [Bug, trio.BrokenResourceError, trio.ClosedResourceError])
@pytest.mark.parametrize(
    ("role", "event", "said", "fault", "make"),
    [
        ("server", NamesReceived, [b"Ada\n"], None, memory_stream_pair),
        ("server", ConversationEnded, [b"Ada\n"], None, memory_stream_pair),
        ("server", ConversationEnded, [], Fault("send", 1, GONE), memory_stream_pair),
        ("client", Welcomed, [ASKED], None, memory_stream_pair),
        ("client", ConversationEnded, [ASKED], None, memory_stream_pair),
        ("client", ConversationEnded, [ASKED], Fault("send", 1, GONE), memory_stream_pair),
        ("client", Greeted, [ASKED, ADA], None, lockstep_stream_pair),  # during a blocked send
    ],
)
async def test_an_exception_of_the_handler_comes_out_as_itself(
    role: str,
    event: type,
    said: list[bytes],
    fault: Fault | None,
    *,
    make: Callable[[], StreamPair],
    bug: type[Exception],
) -> None:
    """It is never taken for a broken stream."""

    def handle(happened: object) -> None:
        if isinstance(happened, event):
            raise bug("of the handler")

    ours, theirs = make()
    stream = Tap(ours, fault)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play(says(*said), ends()), Peer(theirs))
        await wait_all_tasks_blocked()
        with pytest.raises(bug, match="of the handler"):
            await drive(either(role, *BOTH), stream, handle)
    assert stream.calls[-1] == "close"


@roles
async def test_a_stream_without_half_close_is_closed(autojump_clock: MockClock, role: str) -> None:
    """The other side hears its end, and nothing waits for its answer."""
    us, them = server(), client(*BOTH)
    ours, theirs = memory_stream_pair()
    await drive_both(
        (us, Plain(ours) if role == "server" else ours),
        (them, Plain(theirs) if role == "client" else theirs),
    )
    assert trio.current_time() == 0
    assert greeted(them) == list(BOTH)
    assert ends_with(us, EndReason.EXIT)


# Cancellation, and runs that go on


@roles
@pytest.mark.parametrize("make", [memory_stream_pair, lockstep_stream_pair, unix_pair, tcp_pair])
async def test_it_can_be_cancelled_at_any_step(make: Callable[[], StreamPair], role: str) -> None:
    """It ends at once, closes its stream, and has said nothing out of order."""
    goodbye = hears(b"exit\n"), says(GOODBYE), ends(), hears_rest()
    said, answers = (
        (dialogue(*BOTH), [hears(ASKED), says(b"Ada\nBob\nexit\n"), hears_rest(), ends()])
        if role == "server"
        else (b"Ada\nBob\nexit\n", [welcomes(), greets(*BOTH), *goodbye])
    )

    async def answer(peer: Peer) -> None:
        with contextlib.suppress(AssertionError, trio.BrokenResourceError):
            await play(*answers)(peer)

    async with nothing_left_open():
        for steps in itertools.count(1):
            connection = server() if role == "server" else client(*BOTH, framing=Framing.AUTO)
            ours, theirs = make()
            async with theirs, trio.open_nursery() as nursery:
                nursery.start_soon(answer, peer := Peer(theirs))
                with cancelled_at_step(steps) as scope:
                    await drive(connection, ours)
            assert said.startswith(peer.heard)
            if not scope.cancel_called:
                break
    assert connection.finished
    assert peer.heard == said
    assert steps > 5


@roles
async def test_a_cancelled_send_goes_on_in_another_run(role: str) -> None:
    """Over sockets and TLS not a byte is lost or doubled."""
    connection = either(role, *[b"a"] * 200)
    transport = Narrow(ASKED if role == "client" else b"a\n" * 200, goes_now=5)
    driver = Driver(connection, transport)
    for _ in range(3):
        async with running(driver):
            pass
    transport.steps.set()
    async with running(driver):
        pass
    answers = (hello(b"a") + PROMPT) * 200
    assert transport.sent == (ASKED + answers if role == "server" else b"a\n" * 200 + b"exit\n")
    assert driver.sent == len(transport.sent)


async def test_a_late_input_does_not_fire_the_deadline(autojump_clock: MockClock) -> None:
    """What has arrived by then comes first (T3)."""
    connection = client(leave=False)
    driver, peer = driven(connection)
    async with running(driver):
        await peer.say(ASKED[:4])
        await wait_all_tasks_blocked()
        autojump_clock.jump(1000)
        assert driver.now() == math.nextafter(connection.deadline, 0)
        connection.send_name(b"Ada", driver.now())
        assert connection.state.is_open


async def test_a_timeout_of_the_caller_cancels_at_a_timer(autojump_clock: MockClock) -> None:
    connection = auto_server()
    with trio.move_on_at(0.02) as scope:
        await drive(connection, memory_stream_pair()[0])
    assert scope.cancelled_caught
    assert not connection.finished


# Shutting down


@pytest.mark.parametrize(
    ("said", "end", "answer"),
    [
        (b"", False, GOODBYE),
        (b"Ada\nBob\nEv", False, ADA + PROMPT + BOB + PROMPT + GOODBYE),
        (b"Ada\n" * 16_000, False, (ADA + PROMPT) * 16_000 + GOODBYE),
        (b"Ada\nBob", True, ADA + PROMPT + BOB),
    ],
    ids=["nothing", "half a line is no name", "many reads", "half a line and the end are a name"],
)
@kinds("memory", "TLS-memory", "TLS-TCP", "TCP-edges", "Unix-borrowed")
async def test_a_shutdown_answers_what_has_arrived(
    pair: Pair, said: bytes, *, end: bool, answer: bytes
) -> None:
    """The end is no byte that the kernel counts: it is looked for behind the last one (S7.1)."""
    connection = server()
    driver, peer = Driver(connection, pair.transport), pair.peer
    async with running(driver):
        await peer.expect(ASKED)
        await peer.say(said)
        if end:
            await peer.end()
        driver.shut_down()
        await peer.expect(answer)
        await peer.expect_end()
        await peer.close()
    assert ends_with(connection, EndReason.EOF if end else EndReason.SHUTDOWN)


async def test_a_stream_that_breaks_during_a_shutdown_is_a_lost_connection() -> None:
    connection = server()
    driver = Driver(connection, Tap(memory_stream_pair()[0], Fault("receive", 1, GONE)))
    driver.shut_down()
    await driver.run()
    assert ends_with(connection, EndReason.CONNECTION_LOST)
    assert str(driver.failure) == "gone"


async def test_a_shutdown_after_a_blocked_send_refuses_no_client(autojump_clock: MockClock) -> None:
    """Names that came during the send count, though the idle time is over by then (T3)."""
    connection = server(ServerConfig(framing=Framing.LINES, idle_timeout=2, linger=1))
    transport = Narrow(b"Ada\n" * 3, b"Bob\n", b"Eve\n", goes_now=30)
    driver = Driver(connection, transport)
    driver.shut_down()
    async with running(driver):
        await trio.sleep(3)
        transport.steps.set()
    assert transport.sent.endswith(BOB + PROMPT + GOODBYE)


@kinds("Unix-borrowed")
async def test_a_shutdown_takes_no_more_than_it_can_answer(pair: Pair) -> None:
    """Memory stays bounded if the peer does not read (M2)."""
    connection, said = server(), b"a\n" * 8192 * 5
    driver, peer = Driver(connection, pair.transport), pair.peer
    async with running(driver):
        await peer.expect(ASKED)
        assert transport_over(peer.stream).send_now(said) == len(said)
        driver.shut_down()
        await wait_all_tasks_blocked()
        assert connection.state.is_open
        assert 0 < driver.received < len(said)
        await peer.expect((hello(b"a") + PROMPT) * (len(said) // 2) + GOODBYE)


@kinds("memory", "TLS-memory", "TCP-edges")
async def test_a_shutdown_is_not_put_off_by_a_peer_that_keeps_sending(pair: Pair) -> None:
    connection = server()
    driver, peer = Driver(connection, pair.transport), pair.peer

    async def talk() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await peer.say(b"Ada\n" * 1000)

    async with running(driver) as nursery:
        nursery.start_soon(talk)
        nursery.start_soon(peer.hear_all)
        await trio.lowlevel.checkpoint()
        driver.shut_down()
        while connection.state is ServerState.OPEN:
            await trio.lowlevel.checkpoint()
        assert driver.received < 16_000_000
        nursery.cancel_scope.cancel()


# What has arrived comes before the deadline (T3)


@kinds(*(name for name in ALL if name != "lockstep"))
async def test_the_rest_of_a_name_comes_first(settling_clock: MockClock, pair: Pair) -> None:
    """Also if it comes in several records of TLS."""
    connection, peer = auto_server(), pair.peer
    async with running(Driver(connection, pair.transport)):
        await play(hears(WELCOME, PROMPT), says(b"A"))(peer)
        await wait_all_tasks_blocked()
        await put(peer, b"d")
        await put(peer, b"a")
        settling_clock.jump(10)
        await wait_all_tasks_blocked()
        assert names_of(connection) == []
        await peer.expect(ADA)
        assert names_of(connection) == [b"Ada"]


async def test_at_a_deadline_a_break_comes_first(autojump_clock: MockClock) -> None:
    connection = client(b"Ada")
    stream = Tap(memory_stream_pair()[0], Fault("receive", 1, GONE))
    driver = Driver(connection, Deaf(stream))
    await driver.run()
    assert ends_with(connection, EndReason.CONNECTION_LOST, b"Ada")
    assert str(driver.failure) == "gone"


async def test_a_look_before_the_deadline_asks_for_nothing(autojump_clock: MockClock) -> None:
    transport = Scripted(memory_stream_pair()[0])
    driver = Driver(auto_server(), transport)
    async with running(driver):
        for _ in range(5):
            driver.wake()
            await wait_all_tasks_blocked()
        assert transport.calls == []
        assert trio.current_time() == 0


@kinds("TCP-borrowed")
async def test_over_tcp_a_prompt_is_a_read_of_its_own(pair: Pair) -> None:
    """However long the peer's kernel takes to acknowledge (40 ms of real time)."""
    peer = pair.peer
    async with running(Driver(auto_server(), pair.transport)):
        await play(hears(WELCOME), hears(PROMPT))(peer)
        for name in BOTH:
            await play(says(name), hears(hello(name)), hears(PROMPT))(peer)
    assert [words for _, words in peer.chunks] == [WELCOME, PROMPT, ADA, PROMPT, BOB, PROMPT]


@roles
@given(
    start=st.floats(0, 1e7),
    pauses=st.lists(st.floats(0, 1e7), max_size=6),
    timeout=st.floats(0.001, 1e4),
)
@example(start=1234567.891, pauses=[1 / 3, 0.1 + 0.2, 2**31 + 0.7], timeout=9.999999999999998)
@settings(max_examples=30, deadline=None)
def test_each_deadline_is_noticed_once_however_long_the_pauses_between_runs(
    role: str, start: float, pauses: list[float], timeout: float
) -> None:
    async def main() -> None:
        await trio.sleep(start)
        connection: Connection = (
            server(ServerConfig(framing=Framing.LINES, idle_timeout=timeout, linger=timeout))
            if role == "server"
            else Client(ClientConfig(reply_timeout=timeout), now=trio.current_time())
        )
        transport = Scripted(memory_stream_pair()[0])
        driver, driven_for = Driver(connection, transport), 0.0
        for seconds, pause in [*((timeout / 10, pause) for pause in pauses), (math.inf, 0)]:
            since = trio.current_time()
            with trio.move_on_after(seconds):
                await driver.run()
            driven_for += trio.current_time() - since
            await trio.sleep(pause)
        deadlines = 2 if role == "server" else 1
        assert driven_for == pytest.approx(timeout * deadlines, rel=1e-3, abs=1e-6)
        assert [call for call, _ in transport.calls] == ["arrived"] * deadlines
        assert ends_with(connection, EndReason.REFUSED if role == "server" else EndReason.TIMED_OUT)

    trio.run(main, clock=MockClock(autojump_threshold=0))
