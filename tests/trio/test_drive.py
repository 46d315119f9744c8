# ruff: noqa: ARG001 - a test gets the clock that it names as an argument, and need not touch it
"""Driving connections over streams (`_drive.py`)."""

import contextlib
import gc
import itertools
import math
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientState,
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    Framing,
    GoodbyeReceived,
    Greeted,
    NameRequested,
    NamesReceived,
    Refusal,
    Refused,
    ServerConfig,
    ServerConnection,
    ServerState,
    Welcomed,
)
from greeter_trio import drive
from greeter_trio._drive import SEND_TIMEOUT, Driver
from greeter_trio._net import patience as _patience
from greeter_trio._net.readiness import open_readiness
from greeter_trio._net.transport import (
    SIZE,
    SocketTransport,
    StreamTransport,
    Transport,
    transport_over,
)

from .certificates import Authority
from .helpers import (
    EOF,
    GOODBYE,
    LINES,
    PROMPT,
    SETTLED,
    TOO_SLOW,
    WELCOME,
    CancelAtStep,
    Client,
    Connection,
    Fault,
    Peer,
    Plain,
    Server,
    StreamPair,
    Tap,
    background,
    dialogue,
    ending,
    hello,
    nothing_left_open,
    sockets,
    tcp_pair,
    tls_over,
    unix_pair,
)

ADA_AND_GRACE = [b"Ada", b"Grace"]


def server(config: ServerConfig = LINES) -> Server:
    """Return a server that opens now."""
    return Server(config, now=trio.current_time())


def auto_server() -> Server:
    """Return a server that finds out how names end."""
    return server(ServerConfig())


def client(*names: bytes, framing: Framing = Framing.LINES, leave: bool = True) -> Client:
    """Return a client that opens now, and was asked for these names, and then for exit."""
    connection = Client(ClientConfig(framing=framing), now=trio.current_time())
    connection.send_names(names, trio.current_time())
    if leave:
        connection.send_exit(trio.current_time())
    return connection


async def drive_both(one: Connection, other: Connection, pair: StreamPair) -> None:
    """Drive two connections against each other, to the end of both."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, one, pair[0])
        nursery.start_soon(drive, other, pair[1])


def names_of(connection: Server) -> list[bytes]:
    """Return the names that were received."""
    return [
        name
        for event in connection.kept
        if isinstance(event, NamesReceived)
        for name in event.names
    ]


def greeted(connection: Client) -> list[bytes]:
    """Return the names that were greeted."""
    return [event.name for event in connection.kept if isinstance(event, Greeted)]


# Both roles against each other

UNDERSTOOD = [
    (said, heard)
    for said in Framing
    for heard in Framing
    if (said, heard) not in [(Framing.RAW, Framing.LINES), (Framing.LINES, Framing.RAW)]
]


@pytest.mark.parametrize(("said", "heard"), UNDERSTOOD)
async def test_every_name_is_answered(
    autojump_clock: MockClock, said: Framing, heard: Framing
) -> None:
    """A driven client and a driven server finish a conversation, in all framings that fit each other."""
    names = [b"Ada", b"Grace", b"\xff\x00", b"Edsger"]
    us, them = client(*names, framing=said), server(ServerConfig(framing=heard))
    await drive_both(us, them, memory_stream_pair())
    events = us.kept
    assert [event.name for event in events if isinstance(event, Greeted)] == names
    assert events[-1] == ConversationEnded(EndReason.EXIT)
    assert ending(them) == ConversationEnded(EndReason.EXIT)
    assert us.finished
    assert them.finished


async def test_events_are_left_for_the_caller(autojump_clock: MockClock) -> None:
    """All events of both roles are there, in order, when `drive` has returned."""
    us, them = client(b"Ada"), server()
    await drive_both(us, them, memory_stream_pair())
    assert us.kept == [
        Welcomed(),
        NameRequested(),
        Greeted(b"Ada"),
        NameRequested(),
        GoodbyeReceived(),
        ConversationEnded(EndReason.EXIT),
    ]
    assert them.kept == [
        NamesReceived([b"Ada"]),
        ExitReceived(),
        EOFReceived(),
        ConversationEnded(EndReason.EXIT),
    ]


@pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair, unix_pair, tcp_pair])
async def test_any_stream_will_do(pair: Callable[[], StreamPair]) -> None:
    """A conversation works over memory, Unix sockets and TCP, by Trio's streams and by this package's own."""
    names = [b"name %d" % number for number in range(1000)]
    us = client(*names, framing=Framing.AUTO)
    await drive_both(us, server(), pair())
    assert greeted(us) == names


async def test_pipelining_does_not_deadlock(autojump_clock: MockClock) -> None:
    """A hundred thousand names asked at once are answered even where no stream holds a byte between the two."""
    names = [b"%d" % number for number in range(100_000)]
    us = client(*names)
    ours, theirs = lockstep_stream_pair()
    await drive_both(us, server(), (ours, Tap(theirs, sip=4096)))
    assert greeted(us) == names


async def test_a_finished_connection_needs_no_stream() -> None:
    """A connection that is over already only closes the stream."""
    connection = server()
    connection.connection_lost()
    ours, _ = memory_stream_pair()
    stream = Tap(ours)
    await drive(connection, stream)
    assert stream.calls == ["close"]


# Time


async def test_prompt_is_a_write_of_its_own(autojump_clock: MockClock) -> None:
    """While the framing is unknown, PROMPT comes 0.02 seconds after WELCOME, for another read of the peer."""
    async with background(lambda stream: drive(auto_server(), stream)) as peer:
        assert await peer.hear() == WELCOME
        assert await peer.hear() == PROMPT
        assert peer.chunks == [(0, WELCOME), (0.02, PROMPT)]
        await peer.end()


async def test_prompt_follows_at_once_where_lines_are_known(autojump_clock: MockClock) -> None:
    """In LINES the words of one moment are one write."""
    async with background(lambda stream: drive(server(), stream)) as peer:
        await peer.hear()
        await peer.say(b"Ada\nGrace\n")
        await peer.hear()
        assert peer.chunks == [
            (0, WELCOME + PROMPT),
            (0, hello(b"Ada") + PROMPT + hello(b"Grace") + PROMPT),
        ]
        await peer.end()


async def test_quiet_ends_a_name(autojump_clock: MockClock) -> None:
    """A name with no terminator is answered after 0.02 seconds without a byte, and the ones after it at once."""
    async with (
        background(lambda stream: drive(auto_server(), stream)) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.hear_all)
        await trio.sleep(3)
        await peer.say(b"A")
        await trio.sleep(0.015)
        await peer.say(b"da")
        await trio.sleep_until(4)
        await peer.say(b"Grace")
        await trio.sleep_until(5)
        await peer.say(b"exit")
        await trio.sleep_until(5.5)
        await peer.end()
    assert peer.chunks == [
        (0, WELCOME),
        (0.02, PROMPT),
        (3.035, hello(b"Ada")),
        (3.055, PROMPT),
        (4, hello(b"Grace")),
        (4.02, PROMPT),
        (5, GOODBYE),
        (5, EOF),
    ]


@pytest.mark.parametrize(("name_at", "refused_at"), [(None, 300), (200, 500)])
async def test_idle_clients_are_refused(
    autojump_clock: MockClock, name_at: float | None, refused_at: float
) -> None:
    """A server says SORRY 300 seconds after open or after the last name, and goes away 2 seconds later."""
    connection = server()
    async with (
        background(lambda stream: drive(connection, stream)) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.hear_all)
        if name_at is not None:
            await trio.sleep(name_at)
            await peer.say(b"Ada\n")
    assert peer.chunks[-2:] == [(refused_at, TOO_SLOW), (refused_at, EOF)]
    assert connection.kept[-2:] == [
        Refused(message=b"Sorry, no name came in time.", reason=Refusal.IDLE),
        ConversationEnded(EndReason.REFUSED),
    ]
    assert trio.current_time() == pytest.approx(refused_at + 2)


async def test_linger_is_two_seconds(autojump_clock: MockClock) -> None:
    """After its last word a server waits 2 seconds for the client's end, reading on, and then closes."""
    ours, theirs = memory_stream_pair()
    stream, peer = Tap(ours), Peer(theirs)

    async def talk_on() -> None:
        await peer.say(b"exit\n")
        for _ in range(15):
            await trio.sleep(0.1)
            await peer.say(b"and another thing\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, server(), stream)
        await peer.expect(WELCOME + PROMPT)
        nursery.start_soon(talk_on)
        await peer.hear_all()
    assert peer.chunks[-2:] == [(0, GOODBYE), (0, EOF)]
    assert trio.current_time() == pytest.approx(2)
    assert (
        stream.calls.count("receive") == 18
    )  # exit, the fifteen, one that linger cancelled, a last look


async def test_linger_ends_with_the_peers_stream(autojump_clock: MockClock) -> None:
    """A client that ends its stream spares the server the rest of the wait."""
    async with background(lambda stream: drive(server(), stream)) as peer:
        await peer.say(b"exit\n")
        await trio.sleep(0.5)
        await peer.end()
        await peer.hear_all()
    assert trio.current_time() == 0.5


async def test_reply_timeout_is_noticed(autojump_clock: MockClock) -> None:
    """A client whose server says nothing gives up after 10 seconds."""
    connection = client(b"Ada")
    async with background(lambda stream: drive(connection, stream)) as peer:
        await peer.hear_all()
    assert peer.chunks == [(10, EOF)]
    assert ending(connection) == ConversationEnded(EndReason.TIMED_OUT, (b"Ada",))


async def test_waiting_may_last_for_ever(autojump_clock: MockClock) -> None:
    """A connection without a deadline waits as long as it takes."""
    connection = client(leave=False)
    async with background(lambda stream: drive(connection, stream)) as peer:
        await peer.say(WELCOME + PROMPT)
        await wait_all_tasks_blocked()
        assert connection.deadline == math.inf
        await trio.sleep(80_000)
        await peer.say(GOODBYE)
        await peer.end()
    assert ending(connection) == ConversationEnded(EndReason.SHUTDOWN)


async def test_a_late_timer_is_made_up_for_at_once(autojump_clock: MockClock) -> None:
    """What came to be due while a send was blocked is said right after it, and later deadlines do not shift."""
    ours, theirs = lockstep_stream_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, auto_server(), ours)
        await trio.sleep(1)
        await peer.hear_all()
    assert peer.chunks == [(1, WELCOME), (1, PROMPT), (300, TOO_SLOW), (300, EOF)]


async def test_bytes_at_the_moment_of_a_deadline_are_not_lost(autojump_clock: MockClock) -> None:
    """Bytes that come exactly when a timer is due are all heard, whichever of the two is noticed first."""
    connection = auto_server()
    async with (
        background(lambda stream: drive(connection, stream)) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.hear_all)
        for number in range(1, 101):
            await trio.sleep_until(number * 0.02)
            await peer.say(b"%d\n" % number)
        await peer.end()
    names = names_of(connection)
    assert names == [b"%d" % number for number in range(1, 101)]
    assert peer.heard == WELCOME + PROMPT + b"".join(hello(name) + PROMPT for name in names)


# Inputs from outside


@pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair, unix_pair, tcp_pair])
async def test_a_receive_that_is_cancelled_loses_nothing(pair: Callable[[], StreamPair]) -> None:
    """A driver that is woken again and again still hears every byte, in order."""
    ours, theirs = pair()
    connection, peer = server(), Peer(theirs)
    driver = Driver(connection, ours)

    async def wake_now_and_then() -> None:
        for steps in itertools.cycle(
            range(10)
        ):  # if there were never enough of them, nothing could be received
            driver.wake()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()

    async def run() -> None:
        await driver.run()
        nursery.cancel_scope.cancel()

    async def speak() -> None:
        for byte in b"Ada\nGrace\n" * 20 + b"exit\n":
            await peer.say(bytes([byte]))
        await peer.end()

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(wake_now_and_then)
        nursery.start_soon(speak)
        nursery.start_soon(peer.hear_all)
    assert b"".join(chunk for _, chunk in peer.chunks) == dialogue(*ADA_AND_GRACE * 20)
    assert connection.finished


async def test_wake_tells_of_a_shutdown(autojump_clock: MockClock) -> None:
    """A shutdown from another task is acted on when `wake` is called, and not at the next deadline."""
    connection = server()
    ours, theirs = memory_stream_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        nursery.start_soon(peer.hear_all)
        await trio.sleep(5)
        connection.shutdown(trio.current_time())
        driver.wake()
        await trio.sleep(1)
        await peer.end()
    assert peer.chunks == [(0, WELCOME + PROMPT), (5, GOODBYE), (5, EOF)]
    assert trio.current_time() == 6


async def test_wake_tells_of_names_to_send(autojump_clock: MockClock) -> None:
    """Names that another task asks for go out when `wake` is called."""
    connection = client(leave=False)
    ours, theirs = memory_stream_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await peer.say(WELCOME + PROMPT)
        for second in (7, 8):
            await trio.sleep_until(second)
            connection.send_names(ADA_AND_GRACE, trio.current_time())
            driver.wake()
            await peer.hear()
            await peer.say((hello(b"Ada") + PROMPT) + (hello(b"Grace") + PROMPT))
        await peer.say(GOODBYE)
        await peer.end()
    assert peer.chunks == [(7, b"Ada\nGrace\n"), (8, b"Ada\nGrace\n")]


@pytest.mark.parametrize("role", ["server", "client"])
async def test_wake_while_a_send_is_blocked_loses_no_input(
    autojump_clock: MockClock, role: str
) -> None:
    """What a connection is given while the driver sends is sent right after."""
    connection = server() if role == "server" else client(b"Ada", leave=False)
    ours, theirs = lockstep_stream_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        if isinstance(connection, Client):
            await peer.say(WELCOME + PROMPT)
        await wait_all_tasks_blocked()
        if isinstance(connection, Client):
            connection.send_name(b"Grace", trio.current_time())
        else:
            connection.shutdown(trio.current_time())
        driver.wake()
        await trio.sleep(4)
        await peer.hear()
        await peer.hear()
        nursery.cancel_scope.cancel()
    first, second = (b"Ada\n", b"Grace\n") if role == "client" else (WELCOME + PROMPT, GOODBYE)
    assert peer.chunks == [(4, first), (4, second)]


async def test_an_early_or_a_late_wake_does_no_harm(autojump_clock: MockClock) -> None:
    """`wake` may be called before the driver runs and after it has finished."""
    ours, theirs = memory_stream_pair()
    connection, peer = server(), Peer(theirs)
    driver = Driver(connection, ours)
    driver.wake()
    await peer.end()
    await driver.run()
    driver.wake()
    assert ending(connection) == ConversationEnded(EndReason.EOF)


async def test_events_are_handed_over_as_they_happen(autojump_clock: MockClock) -> None:
    """With a handler every event is reported at its own time, timers and losses included."""
    happened: list[tuple[float, object]] = []
    connection = auto_server()
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    driver = Driver(
        connection, ours, lambda event: happened.append((round(trio.current_time(), 6), event))
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(1)
        await peer.say(b"Ada")
        await trio.sleep(1)
        await peer.say(b"Grace\n")
        await peer.end()
    assert happened == [
        (1.02, NamesReceived([b"Ada"])),
        (2, NamesReceived([b"Grace"])),
        (2, EOFReceived()),
        (2, ConversationEnded(EndReason.EOF)),
    ]
    assert connection.events() == []


async def test_a_driver_can_stop_half_way_and_go_on(autojump_clock: MockClock) -> None:
    """`run` returns as soon as its condition holds, with everything sent, and a later call goes on from there."""
    names: list[bytes] = []
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    driver = Driver(
        server(),
        ours,
        lambda event: names.extend(event.names) if isinstance(event, NamesReceived) else None,
    )
    await peer.say(b"Ada\n")
    await driver.run(lambda: len(names) >= 1)
    await peer.expect(WELCOME + PROMPT + hello(b"Ada") + PROMPT)
    await peer.say(b"Grace\n")
    await peer.end()
    assert names == [b"Ada"]
    await driver.run()
    assert names == ADA_AND_GRACE
    await peer.expect(hello(b"Grace") + PROMPT)


# Sends that are not taken


class Flood(trio.abc.Stream):
    """A peer that always has more to say, and takes what it is sent only when it is allowed to."""

    def __init__(self, chunk: bytes) -> None:
        self.reads = 0
        self.sent: list[int] = []
        self.taking = trio.Semaphore(0)
        self._chunk = chunk

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - chunks are given whole
        """Count."""
        await trio.lowlevel.checkpoint()
        self.reads += 1
        return self._chunk

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Wait until it is allowed."""
        self.sent.append(len(data))
        await self.taking.acquire()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait; nobody asks for it."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close."""
        await trio.lowlevel.checkpoint()


async def test_a_server_does_not_read_while_a_send_is_blocked(autojump_clock: MockClock) -> None:
    """For each send that the peer takes the server reads once more, so its memory is a multiple of one chunk."""
    stream = Flood(b"a\n" * 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, server(), stream)
        for reads in range(10):
            await wait_all_tasks_blocked()
            assert stream.reads == reads
            assert len(stream.sent) == reads + 1
            stream.taking.release()
        nursery.cancel_scope.cancel()
    assert max(stream.sent) <= 17 * 2000 + 1024 + 128


async def test_a_client_reads_while_a_send_is_blocked(autojump_clock: MockClock) -> None:
    """A client hears the answers of a server that has not even taken all it is sent."""
    names = [b"%d" % number for number in range(100)]
    connection = client(*names, leave=False)
    async with background(lambda stream: drive(connection, stream), lockstep_stream_pair) as peer:
        await peer.say(WELCOME + PROMPT)
        for name in names:
            await peer.say(hello(name) + PROMPT)
        await wait_all_tasks_blocked()
        assert greeted(connection) == names
        assert peer.chunks == []
        await peer.close()


async def test_nothing_overtakes_what_is_being_sent() -> None:
    """What a client is asked while it sends comes after that, though it hears answers and the socket has room."""
    names = [b"%01000d" % number for number in range(2000)]
    connection = client(*names[:1000], leave=False)
    ours, theirs = unix_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    taken = b""
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await peer.say(WELCOME + PROMPT)
        await wait_all_tasks_blocked()  # a send is blocked now
        for number in range(50):
            connection.send_names(names[1000 + number * 20 : 1020 + number * 20], driver.now())
            taken += await theirs.receive_some(2000)
            await peer.say(hello(names[number]) + PROMPT)
            await wait_all_tasks_blocked()
        assert connection.unanswered == tuple(names[50:])
        while len(taken) < len(names) * 1001:
            taken += await theirs.receive_some()
        nursery.cancel_scope.cancel()
    assert taken == b"".join(name + b"\n" for name in names)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (GOODBYE, EndReason.SHUTDOWN),
        (b"Sorry, too many.\n", EndReason.REFUSED),
        (b"?", EndReason.VIOLATION),
    ],
)
async def test_a_client_stops_sending_when_the_conversation_is_over(
    autojump_clock: MockClock, word: bytes, reason: EndReason
) -> None:
    """A send that is blocked is given up as soon as nothing can answer it any more."""
    connection = client(*ADA_AND_GRACE)
    async with background(lambda stream: drive(connection, stream), lockstep_stream_pair) as peer:
        await peer.say(WELCOME + PROMPT)
        await trio.sleep(1)
        await peer.say(hello(b"Ada") + PROMPT + word)
    assert trio.current_time() == 1
    assert ending(connection) == ConversationEnded(reason, (b"Grace",))


async def test_a_client_gives_up_a_send_that_is_not_answered(autojump_clock: MockClock) -> None:
    """The reply timeout is noticed while a send is blocked."""
    connection = client(*ADA_AND_GRACE)
    async with background(lambda stream: drive(connection, stream), lockstep_stream_pair) as peer:
        await peer.say(WELCOME + PROMPT)
    assert trio.current_time() == 10
    assert ending(connection) == ConversationEnded(EndReason.TIMED_OUT, (b"Ada", b"Grace"))


async def test_a_send_that_is_not_taken_ends_the_conversation(autojump_clock: MockClock) -> None:
    """A server whose words nobody takes for 30 seconds takes the connection for lost, and says nothing more."""
    ours, theirs = lockstep_stream_pair()
    connection, stream = server(), Tap(ours)
    await drive(connection, stream)
    assert trio.current_time() == SEND_TIMEOUT == 30
    assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST)
    assert stream.calls == ["send", "close"]
    await theirs.aclose()


async def test_a_client_whose_names_are_not_taken_waits_for_the_answer(
    autojump_clock: MockClock,
) -> None:
    """A client gives up a send when the answer is overdue, and neither before nor after that."""
    connection = Client(ClientConfig(framing=Framing.LINES, reply_timeout=40), now=0)
    connection.send_names(ADA_AND_GRACE, 0)
    async with background(lambda stream: drive(connection, stream), lockstep_stream_pair) as peer:
        await peer.say(WELCOME + PROMPT)
    assert trio.current_time() == 40
    assert ending(connection) == ConversationEnded(EndReason.TIMED_OUT, (b"Ada", b"Grace"))


async def test_a_send_that_is_taken_late_is_no_loss(autojump_clock: MockClock) -> None:
    """A peer that takes a word in the thirtieth second is talked to."""
    async with background(lambda stream: drive(server(), stream), lockstep_stream_pair) as peer:
        await trio.sleep(29.9)
        await peer.expect(WELCOME + PROMPT)
        await peer.say(b"Ada\n")
        await trio.sleep(29.9)
        await peer.expect(hello(b"Ada") + PROMPT)
        await peer.end()


async def test_a_slow_but_steady_peer_is_not_lost(autojump_clock: MockClock) -> None:
    """A server that takes and answers ten names each second is alive, however many were asked at once."""
    names = [b"%01000d" % number for number in range(600)]
    connection = client(*names)
    ours, theirs = lockstep_stream_pair()
    peer = Peer(theirs)

    async def answer_slowly() -> None:
        await peer.say(WELCOME + PROMPT)
        with contextlib.suppress(trio.BrokenResourceError):  # the client's end tells how it went
            for at in range(0, len(names), 10):
                await trio.sleep(1)
                taken = 0
                while taken < 10 * 1001 and (data := await theirs.receive_some(10 * 1001 - taken)):
                    taken += len(data)
                await peer.say(b"".join(hello(name) + PROMPT for name in names[at : at + 10]))
            await peer.expect(b"exit\n")
            await peer.say(GOODBYE)
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, connection, ours)
        nursery.start_soon(answer_slowly)
    ended = ending(connection)
    assert (ended.reason, len(ended.unanswered)) == (EndReason.EXIT, 0)


# Streams that break

BROKEN = [trio.BrokenResourceError("broken"), trio.ClosedResourceError("closed")]


@pytest.mark.parametrize("exception", BROKEN, ids=lambda exception: type(exception).__name__)
@pytest.mark.parametrize(
    ("call", "number"), [("receive", 1), ("receive", 2), ("send", 1), ("send", 2)]
)
@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_broken_stream_is_a_lost_connection(
    autojump_clock: MockClock, role: str, call: str, number: int, exception: Exception
) -> None:
    """A receive or a send that fails ends the conversation with an event and raises nothing."""
    if role == "server":
        us, them = server(), client(b"Ada", framing=Framing.AUTO)
        tested: Connection = us
        ended = ConversationEnded(EndReason.CONNECTION_LOST)
    else:
        tested = them = client(b"Ada", framing=Framing.AUTO)
        us = server(ServerConfig())
        unanswered = () if (call, number) == ("send", 2) else (b"Ada",)
        ended = ConversationEnded(EndReason.CONNECTION_LOST, unanswered)
    fault = Fault(call, number, exception)
    ours, theirs = memory_stream_pair()
    stream, other = (Tap(ours, fault), theirs) if role == "server" else (Tap(theirs, fault), ours)
    await drive_both(tested, us if tested is them else them, (stream, other))
    assert ending(tested) == ended
    assert stream.calls.count(call) == number
    assert stream.calls[-1] == "close"


@pytest.mark.parametrize("exception", BROKEN, ids=lambda exception: type(exception).__name__)
@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_broken_half_close_changes_no_reason(
    autojump_clock: MockClock, role: str, exception: Exception
) -> None:
    """A `send_eof` that fails raises nothing, and the conversation ends for the reason for which closing began."""
    us, them = server(), client(b"Ada")
    ours, theirs = memory_stream_pair()
    fault = Fault("eof", 1, exception)
    if role == "server":
        stream = Tap(ours, fault)
        await drive_both(us, them, (stream, theirs))
    else:
        stream = Tap(theirs, fault)
        await drive_both(us, them, (ours, stream))
    assert stream.calls.count("eof") == 1
    assert ending(us) == ConversationEnded(EndReason.EXIT)
    assert ending(them) == ConversationEnded(EndReason.EXIT)


async def test_a_lost_client_connection_reports_what_was_not_answered(
    autojump_clock: MockClock,
) -> None:
    """A stream that breaks between two greetings leaves the second name unanswered, by name."""
    connection = client(*ADA_AND_GRACE)
    ours, theirs = memory_stream_pair()
    stream = Tap(ours)
    driver = Driver(connection, stream)
    await Peer(theirs).say(WELCOME + PROMPT + hello(b"Ada") + PROMPT)
    await driver.run(lambda: connection.unanswered == (b"Grace",))
    stream.fault = Fault("receive", stream.calls.count("receive") + 1, trio.BrokenResourceError())
    await driver.run()
    assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST, (b"Grace",))


@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_send_at_once_that_fails_is_a_lost_connection(role: str) -> None:
    """A peer that is gone by the time of a send that needs no waiting is noticed, too."""
    connection: Connection = server() if role == "server" else client(*ADA_AND_GRACE)
    ours, theirs = unix_pair()
    peer = Peer(theirs)
    if role == "client":
        await peer.say(WELCOME + PROMPT)
    await peer.close()
    await drive(connection, ours)
    unanswered = (b"Ada", b"Grace") if role == "client" else ()
    assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST, unanswered)


async def test_other_exceptions_come_out(autojump_clock: MockClock) -> None:
    """An exception that no stream of Trio's raises is a bug, and is not hidden."""
    ours, _ = memory_stream_pair()
    stream = Tap(ours, Fault("receive", 1, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await drive(server(), stream)
    assert stream.calls[-1] == "close"


# Ends


@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_stream_without_half_close_is_closed(autojump_clock: MockClock, role: str) -> None:
    """Where there is no `send_eof` the stream is closed, the other side hears its end, and nobody waits."""
    us, them = server(), client(*ADA_AND_GRACE)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, us, Plain(ours) if role == "server" else ours)
        nursery.start_soon(drive, them, Plain(theirs) if role == "client" else theirs)
    assert trio.current_time() == 0
    assert greeted(them) == ADA_AND_GRACE
    assert ending(us) == ConversationEnded(EndReason.EXIT)


async def test_the_end_without_half_close_comes_at_once(autojump_clock: MockClock) -> None:
    """Where there is no `send_eof` the peer hears the end right after the last word."""
    connection = server()
    async with background(lambda stream: drive(connection, Plain(stream))) as peer:
        await peer.say(b"exit\n")
        await peer.hear_all()
    assert peer.chunks == [(0, WELCOME + PROMPT), (0, GOODBYE), (0, EOF)]
    assert trio.current_time() == 0
    assert ending(connection) == ConversationEnded(EndReason.EXIT)


@pytest.mark.parametrize("connection", [server, client])
async def test_the_stream_is_closed_at_the_end(
    autojump_clock: MockClock, connection: Callable[[], Connection]
) -> None:
    """`drive` closes the stream once the conversation is over."""
    ours, theirs = memory_stream_pair()
    stream = Tap(ours)
    await Peer(theirs).end()
    await drive(connection(), stream)
    assert stream.calls[-1] == "close"
    assert stream.calls.count("close") == 1
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


# Cancellation from outside


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair, unix_pair, tcp_pair])
async def test_cancellation_passes_through_every_checkpoint(
    pair: Callable[[], StreamPair], role: str
) -> None:
    """Wherever `drive` is cancelled it ends at once, closes its stream, and has said nothing out of order."""
    async with nothing_left_open():
        for steps in itertools.count(1):
            us, them = server(), client(*ADA_AND_GRACE, framing=Framing.AUTO)
            said = dialogue(*ADA_AND_GRACE) if role == "server" else b"Ada\nGrace\nexit\n"
            ours, theirs = pair()
            stream = (
                ours if isinstance(ours, trio.SocketStream) else Tap(ours)
            )  # what is sent at once is not sent by `send_all`
            peer = Peer(theirs)
            driven: Connection = us if role == "server" else them
            answers: Connection = them if role == "server" else us
            scope = await _cancel_at_step(steps, driven, stream, answers, peer)
            assert said.startswith(peer.heard)
            if isinstance(stream, Tap):
                assert stream.calls[-1] == "close"
                assert stream.calls.count("close") == 1
            await theirs.aclose()
            if not scope.cancelled_caught:
                break
    assert driven.finished
    assert peer.heard == said
    assert steps > 5  # so many at least


async def _cancel_at_step(
    steps: int, connection: Connection, stream: trio.abc.Stream, answers: Connection, peer: Peer
) -> trio.CancelScope:
    """Drive a connection, cancel that after so many steps, and let another connection answer until then."""

    async def drive_and_count() -> None:
        instrument = CancelAtStep(trio.lowlevel.current_task(), steps, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                await drive(connection, stream)
        finally:
            trio.lowlevel.remove_instrument(instrument)

    async def answer() -> None:
        try:
            while not answers.finished:
                data = answers.data_to_send()
                if data:
                    await peer.say(data)
                if answers.eof_to_send():
                    await peer.end()
                if data := await peer.hear():
                    answers.receive_data(data, trio.current_time())
                else:
                    answers.receive_eof(trio.current_time())
        except trio.BrokenResourceError:
            pass

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive_and_count)
        nursery.start_soon(answer)
    return scope


@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_cancelled_send_loses_the_connection(autojump_clock: MockClock, role: str) -> None:
    """Over a stream that cannot send in steps, another run finds the connection lost and sends no more."""
    connection: Connection = server() if role == "server" else client(*ADA_AND_GRACE)
    events: list[object] = []
    ours, theirs = lockstep_stream_pair()
    stream, peer = Tap(ours), Peer(theirs)
    driver = Driver(connection, stream, events.append)
    async with trio.open_nursery() as nursery:
        if role == "client":
            nursery.start_soon(peer.say, WELCOME + PROMPT)
        with trio.move_on_after(1) as scope:
            await driver.run()
    assert scope.cancelled_caught
    await driver.run()
    unanswered = (b"Ada", b"Grace") if role == "client" else ()
    assert events[-1] == ConversationEnded(EndReason.CONNECTION_LOST, unanswered)
    assert driver.failure == "a send was cancelled, and it is not known how much of it was sent"
    assert stream.calls.count("send") == 1


async def test_a_cancelled_run_can_be_resumed_if_it_was_receiving(
    autojump_clock: MockClock,
) -> None:
    """A driver that was cancelled while it waited for input has lost nothing, and another run goes on."""
    connection = server()
    ours, theirs = memory_stream_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    for number in range(3):
        with trio.move_on_after(1) as scope:
            await driver.run()
        assert scope.cancelled_caught
        await peer.say(b"%d\n" % number)
    await peer.end()
    await driver.run()
    await peer.expect(
        WELCOME + PROMPT + b"".join(hello(b"%d" % number) + PROMPT for number in range(3))
    )


async def test_time_stands_still_while_nobody_drives(autojump_clock: MockClock) -> None:
    """Between two runs no timer goes on: what came meanwhile has come in time, and patience is what it was."""
    connection = client(b"Ada", b"Grace", framing=Framing.AUTO, leave=False)
    ours, theirs = memory_stream_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    await peer.say(WELCOME + PROMPT)
    for seconds in (4, 4, 1.9):
        with trio.move_on_after(seconds):
            await driver.run()
        await trio.sleep(1000)
    await peer.say(hello(b"Ada"))
    await driver.run(lambda: connection.unanswered == (b"Grace",))
    await trio.sleep(1000)
    since = trio.current_time()
    await driver.run()
    assert trio.current_time() == pytest.approx(since + 10)
    assert ending(connection) == ConversationEnded(EndReason.TIMED_OUT, (b"Grace",))
    assert await peer.hear() == b"Ada\nGrace\n"


async def test_inputs_between_two_runs_are_sent_by_the_next(autojump_clock: MockClock) -> None:
    """What a connection is given while nobody drives it, at the driver's own time, goes out when somebody does."""
    connection = client(leave=False)
    ours, theirs = memory_stream_pair()
    driver, peer = Driver(connection, ours), Peer(theirs)
    await peer.say(WELCOME + PROMPT)
    await driver.run(lambda: connection.state is ClientState.PROMPTED)
    await trio.sleep(1000)
    connection.send_names(ADA_AND_GRACE, driver.now())
    await peer.say(hello(b"Ada") + PROMPT + hello(b"Grace") + PROMPT)
    await driver.run(lambda: not connection.unanswered)
    assert await peer.hear() == b"Ada\nGrace\n"
    assert connection.state.is_open


async def test_a_deadline_of_the_caller_is_not_taken_for_one_of_the_core(
    autojump_clock: MockClock,
) -> None:
    """A caller's timeout at the very moment of a timer still cancels the driver."""
    ours, _ = memory_stream_pair()
    connection = auto_server()
    with trio.move_on_at(0.02) as scope:
        await drive(connection, ours)
    assert scope.cancelled_caught
    assert not connection.finished


# Shutting down

Make = Callable[[], StreamPair]
memory = pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])


@contextlib.asynccontextmanager
async def asked(
    connection: Server, authority: Authority, *, secure: bool, sip: int | None = None
) -> AsyncIterator[tuple[Driver, Peer]]:
    """Drive a server over memory, or TLS over memory, whose client has been asked for a name.

    There is no checkpoint after a client's words, so what is done right after them is done before
    they are received.
    """
    ours, theirs = memory_stream_pair()
    if secure:
        ours, theirs = await tls_over(authority, (ours, theirs))  # type: ignore[assignment]
    stream = Tap(ours, sip=sip)
    driver = Driver(connection, stream)
    async with stream, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        peer = Peer(theirs)
        await peer.expect(WELCOME + PROMPT)
        yield driver, peer
        await peer.close()


@memory
@pytest.mark.parametrize("sip", [None, 5])
async def test_shutting_down_takes_what_has_come(
    autojump_clock: MockClock, authority: Authority, *, secure: bool, sip: int | None
) -> None:
    """A server that shuts down answers the names that have come before, and drops half a line."""
    async with asked(server(), authority, secure=secure, sip=sip) as (driver, peer):
        await peer.say(b"Ada\nGrace\nEds")
        driver.shut_down()
        await peer.expect(hello(b"Ada") + PROMPT + hello(b"Grace") + PROMPT + GOODBYE)
        await peer.expect_end()
        assert trio.current_time() <= 1


@memory
async def test_shutting_down_takes_more_than_one_read(
    autojump_clock: MockClock, authority: Authority, *, secure: bool
) -> None:
    """Names that have come are answered even if they are many: at least 64 KiB where the stream cannot be asked."""
    names = [b"Ada"] * 16_000
    async with asked(server(), authority, secure=secure) as (driver, peer):
        await peer.say(b"".join(name + b"\n" for name in names))
        driver.shut_down()
        await peer.hear_all()
    assert peer.heard == dialogue(*names)


@memory
async def test_shutting_down_takes_the_end_that_has_come(
    autojump_clock: MockClock, authority: Authority, *, secure: bool
) -> None:
    """Half a line is a name if the peer's end has come behind it."""
    connection = server()
    async with asked(connection, authority, secure=secure) as (driver, peer):
        await peer.say(b"Ada\nEds")
        await peer.end()
        driver.shut_down()
        await peer.expect(hello(b"Ada") + PROMPT + hello(b"Eds"))
        await peer.expect_end()
    assert ending(connection) == ConversationEnded(EndReason.EOF)


@memory
async def test_shutting_down_is_not_put_off_by_names_that_come_later(
    autojump_clock: MockClock, authority: Authority, *, secure: bool
) -> None:
    """A peer that says a name every 0.1 seconds, each after the answer to the one before, hears GOODBYE soon."""
    connection = server()
    async with asked(connection, authority, secure=secure) as (driver, peer):
        driver.shut_down()
        with contextlib.suppress(AssertionError, trio.BrokenResourceError):
            while connection.state is ServerState.OPEN and trio.current_time() < 20:
                await peer.say(b"Ada\n")
                await trio.sleep(0.1)
        assert trio.current_time() < 2
        await peer.hear_all()
        assert peer.heard.endswith(GOODBYE)


async def test_shutting_down_before_the_first_word(autojump_clock: MockClock) -> None:
    """A server that was told to shut down before it ran says its welcome, answers what has come, and says GOODBYE."""
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    await peer.say(b"Ada\n")
    driver = Driver(server(), ours)
    driver.shut_down()
    driver.shut_down()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await peer.expect(dialogue(b"Ada"))
        await peer.expect_end()
        await peer.close()


async def test_shutting_down_a_conversation_that_is_over_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    """While a server lingers after exit, and when it has ended, there is nothing to shut down."""
    connection = server()
    ours, theirs = memory_stream_pair()
    driver = Driver(connection, ours)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        peer = Peer(theirs)
        await peer.say(b"exit\n")
        await peer.expect(WELCOME + PROMPT + GOODBYE)
        await peer.expect_end()
        await trio.sleep(1)
        driver.shut_down()
    assert trio.current_time() == 2
    driver.shut_down()
    assert ending(connection) == ConversationEnded(EndReason.EXIT)


@pytest.mark.parametrize("exception", BROKEN, ids=lambda exception: type(exception).__name__)
async def test_a_stream_that_breaks_while_shutting_down(
    autojump_clock: MockClock, exception: Exception
) -> None:
    """A connection that is lost in the middle of it is lost, and nothing comes out."""
    connection = server()
    ours, theirs = memory_stream_pair()
    stream = Tap(ours, Fault("receive", 1, exception))
    driver = Driver(connection, stream)
    driver.shut_down()
    await driver.run()
    assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST)
    assert driver.failure == str(exception)
    await theirs.aclose()
    await ours.aclose()


async def test_shutting_down_while_a_send_is_blocked(autojump_clock: MockClock) -> None:
    """What is being sent is sent first, and what has come meanwhile is answered, if the peer takes it in time."""
    ours, theirs = lockstep_stream_pair()
    driver = Driver(server(), ours)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await wait_all_tasks_blocked()
        driver.shut_down()
        await trio.sleep(29)
        peer = Peer(theirs)
        await peer.expect(WELCOME + PROMPT)
        await peer.say(b"Ada\n")
        await peer.expect(hello(b"Ada") + PROMPT + GOODBYE)
        await peer.expect_end()
        await peer.close()


# Patience, and numbers


@pytest.mark.parametrize("patience", [0.5, 100])
async def test_how_long_a_send_may_take_is_the_callers_choice(
    autojump_clock: MockClock, patience: float
) -> None:
    """A server gives up a send that nobody takes after `send_timeout` seconds, and says how long that was."""
    ours, theirs = lockstep_stream_pair()
    connection = server()
    driver = Driver(connection, ours, send_timeout=patience)
    await driver.run()
    assert trio.current_time() == patience
    assert driver.failure == f"the peer took less than 64 KiB in {patience:g} s"
    assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST)
    await trio.aclose_forcefully(theirs)


async def test_a_peer_that_takes_a_slice_now_and_then_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    """The time for a send is that of its next 64 KiB: whoever takes those in time may take long for all of it."""
    ours, theirs = lockstep_stream_pair()
    connection = server()
    driver = Driver(connection, ours, send_timeout=10)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        peer = Peer(theirs)
        await peer.expect(WELCOME + PROMPT)
        await theirs.send_all(b"a\n" * 8192)  # one arrival, which makes 208 KiB
        await theirs.send_eof()
        taken = 0
        while data := await theirs.receive_some(65536):
            taken += len(data)
            await trio.sleep(9)
        assert taken == 26 * 8192
    assert ending(connection) == ConversationEnded(EndReason.EOF)
    assert trio.current_time() > 20


@pytest.mark.parametrize("pair", [memory_stream_pair, tcp_pair])
async def test_bytes_are_counted(pair: Make) -> None:
    """The driver knows how many bytes came, and how many went, whether they went at once or had to wait."""
    names = [b"Ada", b"Grace", b"\xff"] * 50_000
    said = b"".join(name + b"\n" for name in names) + b"exit\n"
    ours, theirs = pair()
    driver, peer = Driver(server(), ours), Peer(theirs)
    assert (driver.received, driver.sent) == (0, 0)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        nursery.start_soon(peer.say, said)
        if pair is tcp_pair:
            await wait_all_tasks_blocked(0.05)  # the driver has to wait until somebody reads
        await peer.hear_all()
        await peer.close()
    assert peer.heard == dialogue(*names)
    assert driver.sent == len(peer.heard)
    assert driver.received == len(said)


async def test_bytes_that_were_not_taken_are_not_counted(autojump_clock: MockClock) -> None:
    """Of a send that was given up only the slices that are known to be gone count."""
    ours, theirs = lockstep_stream_pair()
    driver = Driver(server(), ours)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        peer = Peer(theirs)
        await peer.expect(WELCOME + PROMPT)
        await theirs.send_all(b"a\n" * 8192)
        for _ in range(2):
            taken = 0
            while taken < 65536:
                taken += len(await theirs.receive_some(65536 - taken))
    assert driver.sent == len(WELCOME + PROMPT) + 2 * 65536
    assert driver.received == 16_384


# Read before you judge (T3)

Ours: TypeAlias = trio.abc.HalfCloseableStream | Transport
Open = Callable[
    [Authority], contextlib.AbstractAsyncContextManager[tuple[Any, trio.abc.HalfCloseableStream]]
]


@contextlib.asynccontextmanager
async def plainly(
    make: Callable[[], StreamPair], _: Authority | None = None
) -> AsyncIterator[StreamPair]:
    """Open a pair of streams, and close both."""
    ours, theirs = make()
    async with ours, theirs:
        yield ours, theirs


@contextlib.asynccontextmanager
async def securely(
    make: Callable[[], StreamPair], authority: Authority
) -> AsyncIterator[StreamPair]:
    """Open a pair of streams with TLS over them, and close both."""
    ours, theirs = await tls_over(authority, make())
    async with ours, theirs:
        yield ours, theirs


@contextlib.asynccontextmanager
async def on_edges(
    family: str, _: Authority
) -> AsyncIterator[tuple[Transport, trio.abc.HalfCloseableStream]]:
    """Open a socket that is watched as a server's are, and the other end."""
    sock, theirs = sockets(family)
    async with theirs, open_readiness() as readiness:
        transport = SocketTransport(sock, readiness.watch(sock))
        try:
            yield transport, theirs
        finally:
            transport.close()
            sock.close()


STREAMS: dict[str, Open] = {
    "memory": partial(plainly, memory_stream_pair),
    "Unix": partial(plainly, unix_pair),
    "TCP": partial(plainly, tcp_pair),
    "TLS-memory": partial(securely, memory_stream_pair),
    "TLS-TCP": partial(securely, tcp_pair),
}
WATCHED: dict[str, Open] = STREAMS | {
    "TCP-edges": partial(on_edges, "TCP"),
    "Unix-edges": partial(on_edges, "Unix"),
}
streams = pytest.mark.parametrize("opened", WATCHED.values(), ids=WATCHED)


async def put(peer: Peer, data: bytes) -> None:
    """Say something, and return before any other task can have heard it."""
    if not transport_over(peer.stream).send_now(data):
        await peer.say(data)


@contextlib.asynccontextmanager
async def late(
    connection: Connection, streams: tuple[Ours, trio.abc.HalfCloseableStream]
) -> AsyncIterator[tuple[Driver, Peer]]:
    """Drive a connection over the first stream; yield the driver and the peer when both have nothing to do."""
    driver, peer = Driver(connection, streams[0]), Peer(streams[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await wait_all_tasks_blocked()
        yield driver, peer
        nursery.cancel_scope.cancel()


@streams
async def test_the_rest_of_a_name_that_has_come_makes_one_name(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Quiet is noticed late, and more bytes are there: they belong to the name, and so do several TLS records."""
    autojump_clock.autojump_threshold = SETTLED  # TCP takes its time to acknowledge
    connection = auto_server()
    async with opened(authority) as pair, late(connection, pair) as (_, peer):
        await peer.expect(WELCOME + PROMPT)
        await peer.say(b"A")
        await wait_all_tasks_blocked()
        await put(peer, b"da")
        autojump_clock.jump(10)
        await wait_all_tasks_blocked()
        assert names_of(connection) == []
        await peer.expect(hello(b"Ada"))
        assert names_of(connection) == [b"Ada"]


@streams
async def test_a_name_that_has_come_is_not_too_late(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Idle is noticed late, and a name is there: the client is greeted, and has its whole time again."""
    connection = server()
    async with opened(authority) as pair, late(connection, pair) as (_, peer):
        await peer.meet()
        await put(peer, b"Ada\n")
        autojump_clock.jump(1000)
        await peer.expect(hello(b"Ada") + PROMPT)
        assert connection.deadline == 1300


@streams
async def test_bytes_that_have_come_are_no_name(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Idle is noticed late, and half a line is there: the client is refused right after that was heard (S9.2)."""
    connection = server()
    async with opened(authority) as pair, late(connection, pair) as (driver, peer):
        await peer.meet()
        await put(peer, b"Ad")
        autojump_clock.jump(300)
        await peer.expect(TOO_SLOW)
        assert driver.received == 2


@streams
async def test_names_that_have_come_are_answered_before_the_lifetime_ends(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Lifetime is noticed late, and a name is there: it is greeted, and then GOODBYE is said."""
    connection = server(ServerConfig(framing=Framing.LINES, max_lifetime=100))
    async with opened(authority) as pair, late(connection, pair) as (_, peer):
        await peer.meet()
        await put(peer, b"Ada\n")
        autojump_clock.jump(200)
        await peer.expect(hello(b"Ada") + PROMPT + GOODBYE)
        await peer.expect_end()


@streams
async def test_an_answer_that_has_come_is_not_too_late(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Reply is noticed late by a client, and the answer is there: it goes on."""
    connection = client(*ADA_AND_GRACE, framing=Framing.AUTO)
    async with opened(authority) as pair, late(connection, pair) as (_, peer):
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await put(peer, hello(b"Ada") + PROMPT)
        autojump_clock.jump(1000)
        await peer.expect(b"Grace\nexit\n")
        assert greeted(connection) == [b"Ada"]
        assert connection.deadline == 1010


@streams
async def test_the_end_that_has_come_ends_it_before_linger(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Linger is noticed late, and the peer's last words and its end are there: they are taken, one for each look."""
    connection = server()
    async with opened(authority) as pair, late(connection, pair) as (driver, peer):
        await peer.meet()
        await peer.say(b"exit\n")
        await peer.expect(GOODBYE)
        await peer.expect_end()
        await peer.end()
        autojump_clock.jump(1000)
        await wait_all_tasks_blocked()
        assert ending(connection) == ConversationEnded(EndReason.EXIT)
        assert driver.failure == ""


@streams
async def test_an_end_that_has_come_is_not_silence(
    autojump_clock: MockClock, authority: Authority, opened: Open
) -> None:
    """Reply is noticed late, and the server's end is there: it has hung up, and has not been slow."""
    connection = client(b"Ada")
    async with opened(authority) as pair, late(connection, pair) as (_, peer):
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\nexit\n")
        await peer.end()
        autojump_clock.jump(1000)
        await wait_all_tasks_blocked()
        assert ending(connection) == ConversationEnded(EndReason.EOF, (b"Ada",))


async def test_a_break_that_has_come_is_not_silence(autojump_clock: MockClock) -> None:
    """A reset that is there when a deadline is noticed is a lost connection, with its reason."""
    connection = client(b"Ada")
    async with plainly(tcp_pair) as pair, late(connection, pair) as (driver, peer):
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\nexit\n")
        peer.reset()
        autojump_clock.jump(1000)
        await wait_all_tasks_blocked()
        assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST, (b"Ada",))
        assert driver.failure == "Connection reset by peer"


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
async def test_a_server_that_was_stopped_does_not_blame_its_client(
    pair: Callable[[], StreamPair],
) -> None:
    """The event loop is blocked past idle, in real time, while a name comes: it is greeted."""
    connection = server(ServerConfig(framing=Framing.LINES, idle_timeout=0.05))
    async with plainly(pair) as streams, late(connection, streams) as (_, peer):
        await peer.meet()
        await peer.say(b"Ada\n")
        time.sleep(0.06)  # noqa: ASYNC251 - nothing is to run meanwhile
        await peer.expect(hello(b"Ada") + PROMPT)


async def test_an_answer_during_a_blocked_send_is_not_too_late(autojump_clock: MockClock) -> None:
    """A client reads before it judges while it sends, too."""
    names = [b"%01000d" % number for number in range(3_000)]
    connection = client(*names, leave=False)
    async with plainly(unix_pair) as pair, late(connection, pair) as (_, peer):
        await peer.say(WELCOME + PROMPT)
        await wait_all_tasks_blocked()
        await put(peer, hello(names[0]) + PROMPT)
        autojump_clock.jump(1000)
        await wait_all_tasks_blocked()
        assert greeted(connection) == names[:1]
        assert connection.state.is_open
        autojump_clock.jump(11)
        await wait_all_tasks_blocked()
        assert ending(connection).reason is EndReason.TIMED_OUT


async def test_an_early_look_is_no_judgement(autojump_clock: MockClock) -> None:
    """A wake, and a deadline that has moved, change nothing: nobody is asked what has arrived or is in flight."""
    ours, theirs = memory_stream_pair()
    connection, transport = auto_server(), Scripted(ours)
    driver, peer = Driver(connection, transport), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        for _ in range(5):
            await wait_all_tasks_blocked()
            driver.wake()
        await wait_all_tasks_blocked()
        assert transport.calls == []
        assert trio.current_time() == 0
        await peer.end()


# Words that are on their way (S2.7, T1)


class Scripted(StreamTransport):
    """A transport over a memory stream whose words are in flight until so many looks or so much time have passed."""

    def __init__(self, stream: trio.abc.Stream, looks: float = 0) -> None:
        super().__init__(stream)
        self.looks = looks
        self.calls: list[tuple[str, float]] = []

    async def receive_arrived(self) -> bytes | bytearray | None:
        """Note it, and receive."""
        self.calls.append(("arrived", round(trio.current_time(), 6)))
        return await super().receive_arrived()

    def is_in_flight(self) -> bool:
        """Answer by the script."""
        self.calls.append(("in flight", round(trio.current_time(), 6)))
        self.looks -= 1
        return self.looks >= 0

    @property
    def asked(self) -> list[float]:
        """When it was asked whether anything is in flight."""
        return [at for call, at in self.calls if call == "in flight"]


async def test_a_prompt_waits_until_the_words_before_it_have_arrived(
    autojump_clock: MockClock,
) -> None:
    """The kernel is asked when PROMPT is due, and again after that, until all is acknowledged: then it is said."""
    ours, theirs = memory_stream_pair()
    transport, peer = Scripted(ours, looks=3), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Driver(auto_server(), transport).run)
        assert await peer.hear() == WELCOME
        assert await peer.hear() == PROMPT
        assert peer.chunks == [(0, WELCOME), (0.08, PROMPT)]
        await peer.end()
    assert transport.asked == [0.02, 0.04, 0.06, 0.08]


async def test_a_peer_that_never_acknowledges_is_seldom_asked_for(
    autojump_clock: MockClock,
) -> None:
    """A PROMPT that is owed for long costs a few looks, and the idle client is refused at its time."""
    ours, theirs = memory_stream_pair()
    connection, transport, peer = auto_server(), Scripted(ours, looks=math.inf), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Driver(connection, transport).run)
        assert await peer.hear() == WELCOME
        assert await peer.hear() == PROMPT + TOO_SLOW
        assert peer.chunks[-1][0] == 300
        await peer.end()
    assert len(transport.asked) < 50


async def test_an_arrival_brings_the_prompt_out(autojump_clock: MockClock) -> None:
    """What the peer says is answered, though the kernel says that words are on their way (S2.3)."""
    ours, theirs = memory_stream_pair()
    transport, peer = Scripted(ours, looks=math.inf), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Driver(auto_server(), transport).run)
        assert await peer.hear() == WELCOME
        await trio.sleep(1)
        await peer.say(b"Ada\n")
        assert await peer.hear() == PROMPT + hello(b"Ada") + PROMPT
        assert trio.current_time() == 1
        await peer.end()


async def test_the_kernel_is_not_asked_while_no_prompt_is_owed(autojump_clock: MockClock) -> None:
    """When idle, quiet or linger is due it is none of the kernel's business what is in flight."""
    for config in (LINES, ServerConfig(pace=0.001)):
        ours, theirs = memory_stream_pair()
        transport, peer = Scripted(ours), Peer(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Driver(server(config), transport).run)
            await peer.expect(WELCOME + PROMPT)
            transport.calls.clear()
            await peer.say(b"Ada" if config is not LINES else b"Ada\n")
            await trio.sleep(400)
        looks = [at for call, at in transport.calls if call == "arrived"]
        assert len(looks) >= 2  # quiet or not, idle, linger
        assert len(transport.asked) == (1 if config is not LINES else 0)  # for the PROMPT after Ada


async def test_a_client_asks_the_kernel_nothing(autojump_clock: MockClock) -> None:
    """A client owes nobody a PROMPT."""
    ours, theirs = memory_stream_pair()
    transport = Scripted(ours)
    await Driver(client(b"Ada"), transport).run()
    assert transport.calls == [("arrived", 10)]
    await theirs.aclose()


class Deaf(Scripted):
    """One that is woken by deadlines alone: what has arrived is found by whoever looks for it."""

    def __init__(self, stream: trio.abc.Stream, looks: float = 0) -> None:
        super().__init__(stream, looks)
        self._looking = False

    async def receive(self, size: int = SIZE) -> bytes | bytearray:
        """Wait, but for somebody who looks."""
        return await super().receive(size) if self._looking else await trio.sleep_forever()

    async def receive_arrived(self) -> bytes | bytearray | None:
        """Look."""
        self._looking = True
        try:
            return await super().receive_arrived()
        finally:
            self._looking = False


async def test_at_a_deadline_what_has_arrived_comes_first(autojump_clock: MockClock) -> None:
    """Who finds an arrival hands that over, and neither judges nor asks the kernel (T3)."""
    ours, theirs = memory_stream_pair()
    connection, transport, peer = auto_server(), Deaf(ours, looks=math.inf), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Driver(connection, transport).run)
        assert await peer.hear() == WELCOME
        await peer.say(b"A")
        assert await peer.hear() == PROMPT  # which is due when that is found, and not put off
        await trio.sleep(0.01)
        await peer.say(b"da")
        assert await peer.hear() == hello(b"Ada")
        await peer.end()
    assert peer.chunks == [(0, WELCOME), (0.02, PROMPT), (0.06, hello(b"Ada"))]
    assert transport.calls[:3] == [("arrived", 0.02), ("arrived", 0.04), ("arrived", 0.06)]
    assert ending(connection) == ConversationEnded(EndReason.EOF)


async def test_at_a_deadline_a_break_comes_first(autojump_clock: MockClock) -> None:
    """Who finds that the stream is broken by then has lost the connection, and does not blame the peer's silence."""
    ours, theirs = memory_stream_pair()
    connection = client(b"Ada")
    fault = Fault("receive", 1, trio.BrokenResourceError("gone"))
    driver = Driver(connection, Deaf(Tap(ours, fault)))
    await driver.run()
    assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST, (b"Ada",))
    assert driver.failure == "gone"
    await theirs.aclose()


async def test_late_words_keep_their_distance(autojump_clock: MockClock) -> None:
    """Quiet is noticed late: HELLO is said at once, and PROMPT not before `pace` after that (T1)."""
    connection = auto_server()
    async with plainly(memory_stream_pair) as pair, late(connection, pair) as (_, peer):
        await peer.say(b"Ada")
        await wait_all_tasks_blocked()
        autojump_clock.jump(0.045)
        await wait_all_tasks_blocked()
        assert await peer.hear() == WELCOME + PROMPT + hello(b"Ada")
        autojump_clock.jump(0.0199)
        await wait_all_tasks_blocked()
        assert connection.prompt_owed
        autojump_clock.jump(0.0002)
        assert await peer.hear() == PROMPT


async def test_a_real_kernel_holds_the_prompt_back() -> None:
    """Over TCP PROMPT comes in a read of its own, however long the peer's kernel takes to acknowledge (40 ms)."""
    async with plainly(tcp_pair) as pair, late(auto_server(), pair) as (_, peer):
        assert await peer.hear() == WELCOME
        assert await peer.hear() == PROMPT
        for name in ADA_AND_GRACE:
            await peer.say(name)
            assert await peer.hear() == hello(name)
            assert await peer.hear() == PROMPT


# Events


@pytest.mark.parametrize("pair", [memory_stream_pair, tcp_pair])
async def test_events_that_nobody_handles_are_not_kept(pair: Callable[[], StreamPair]) -> None:
    """A server that has greeted 20 MB of names holds none of them (0.2.0 held 21 MB)."""
    ours, theirs = pair()
    connection = ServerConnection(LINES, now=trio.current_time())
    block = (b"%0999d\n" % 7) * 16
    heard = 0

    async def hear() -> None:
        nonlocal heard
        while data := await theirs.receive_some(2**20):
            heard += len(data)

    async def say() -> None:
        for _ in range(1250):
            await theirs.send_all(block)
        gc.collect()
        kept.append(tracemalloc.get_traced_memory()[0])
        await theirs.send_eof()

    kept: list[int] = []
    tracemalloc.start()
    try:
        async with theirs, trio.open_nursery() as nursery:
            nursery.start_soon(drive, connection, ours)
            nursery.start_soon(hear)
            await say()
    finally:
        tracemalloc.stop()
    assert heard > 20_000_000
    assert kept[0] < 5_000_000 if pair is tcp_pair else kept[0]


@pytest.mark.parametrize("role", ["server", "client"])
async def test_each_event_is_handed_over_once_and_in_order(
    autojump_clock: MockClock, role: str
) -> None:
    """With a handler `drive` keeps nothing for the caller."""
    connection = ServerConnection(LINES, now=0) if role == "server" else ClientConnection(now=0)
    if isinstance(connection, ClientConnection):
        connection.send_names(ADA_AND_GRACE, 0)
        connection.send_exit(0)
    other = client(*ADA_AND_GRACE) if role == "server" else server()
    events: list[object] = []
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, connection, ours, events.append)
        nursery.start_soon(drive, other, theirs)
    assert connection.events() == []
    if role == "server":
        assert [type(event) for event in events] == [
            NamesReceived,
            ExitReceived,
            EOFReceived,
            ConversationEnded,
        ]
    else:
        greeting = [Greeted, NameRequested]
        kinds = [Welcomed, NameRequested, *greeting, *greeting, GoodbyeReceived, ConversationEnded]
        assert [type(event) for event in events] == kinds


class Bug(Exception):
    """What a handler raises."""


def fail_at(kind: type) -> Callable[[object], None]:
    """Return a handler that fails at events of this kind."""

    def handle(event: object) -> None:
        if isinstance(event, kind):
            raise Bug

    return handle


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("server", NamesReceived),
        ("server", ConversationEnded),
        ("client", Welcomed),
        ("client", ConversationEnded),
    ],
)
async def test_an_exception_of_the_handler_comes_out(
    autojump_clock: MockClock, role: str, kind: type
) -> None:
    """It comes out as itself, and the stream is closed."""
    connection: Connection = server() if role == "server" else client(b"Ada")
    ours, theirs = memory_stream_pair()
    stream, peer = Tap(ours), Peer(theirs)
    await peer.say(b"Ada\n" if role == "server" else WELCOME)
    await peer.end()
    with pytest.raises(Bug):
        await drive(connection, stream, fail_at(kind))
    assert stream.calls[-1] == "close"


async def test_an_exception_of_the_handler_while_a_send_is_blocked_comes_out(
    autojump_clock: MockClock,
) -> None:
    """A client whose handler fails while it sends gives the send up; the exception comes out as itself."""
    ours, theirs = lockstep_stream_pair()
    stream, peer = Tap(ours), Peer(theirs)
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            await peer.say(WELCOME + PROMPT)
            await wait_all_tasks_blocked()
            await peer.say(hello(b"Ada"))

        nursery.start_soon(speak)
        with pytest.raises(Bug):
            await drive(client(*ADA_AND_GRACE), stream, fail_at(Greeted))
    assert stream.calls[-1] == "close"


@pytest.mark.parametrize("role", ["server", "client"])
async def test_an_exception_of_the_handler_about_a_send_that_breaks_comes_out(
    autojump_clock: MockClock, role: str
) -> None:
    """It comes out as itself where it was a send that told of the loss, too."""
    connection: Connection = server() if role == "server" else client(b"Ada")
    ours, theirs = memory_stream_pair()
    stream = Tap(ours, Fault("send", 1, trio.BrokenResourceError("gone")))
    await Peer(theirs).say(WELCOME + PROMPT)
    with pytest.raises(Bug):
        await drive(connection, stream, fail_at(ConversationEnded))
    assert stream.calls[-1] == "close"


# What a cancellation costs


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize(
    "opened",
    [STREAMS["Unix"], STREAMS["TCP"], STREAMS["TLS-TCP"], partial(securely, unix_pair)],
    ids=["Unix", "TCP", "TLS-TCP", "TLS-Unix"],
)
async def test_a_send_that_is_cancelled_goes_on_in_another_run(
    authority: Authority, opened: Open, role: str
) -> None:
    """However often a run is cancelled while it sends, not a byte is lost or doubled, over sockets and over TLS."""
    names = [b"%01000d" % number for number in range(500)]
    if role == "client":
        names *= 3
    connection: Connection = client(*names) if role == "client" else server()
    said = b"".join(name + b"\n" for name in names) + b"exit\n"
    expected = said if role == "client" else dialogue(*names)
    async with opened(authority) as (ours, theirs):
        low: Any = getattr(ours, "transport_stream", ours)
        low.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        driver, reader = Driver(connection, ours), transport_over(theirs)
        heard, cancelled = bytearray(), 0

        async def run(scope: trio.CancelScope) -> None:
            nonlocal cancelled
            with scope:
                await driver.run()
            cancelled += scope.cancelled_caught

        async with trio.open_nursery() as speaking:
            speaking.start_soon(theirs.send_all, WELCOME + PROMPT if role == "client" else said)
            while len(heard) < len(expected):
                scope = trio.CancelScope()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run, scope)
                    await wait_all_tasks_blocked()
                    scope.cancel()
                heard += await reader.receive_arrived() or b""
        assert heard == expected
        assert cancelled > 10
        assert connection.state.is_open is (role == "client")


@pytest.mark.parametrize(
    "after", [0.1, 1 / 3, 1e-9, 1234567.891, 0.1 + 0.2, 2**31 + 0.7, 9.999999999999998]
)
@pytest.mark.parametrize("role", ["server", "client"])
def test_rounded_times_do_not_spin(role: str, after: float) -> None:
    """A driver that stopped and runs again at odd times notices each deadline once, though sums are rounded."""

    async def main() -> None:
        await trio.sleep(after / 7)
        ours, _ = memory_stream_pair()
        connection: Connection = client(b"Ada") if role == "client" else auto_server()
        transport = Scripted(ours)
        driver = Driver(connection, transport)
        for part in range(1, 8):
            with trio.move_on_after(0.0007 * part):
                await driver.run()
            await trio.sleep(after * part / 3)
        with trio.fail_after(1000):
            await driver.run()
        assert ending(connection).reason is (
            EndReason.TIMED_OUT if role == "client" else EndReason.REFUSED
        )
        assert len(transport.calls) <= (1 if role == "client" else 6)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@given(pauses=st.lists(st.floats(0, 1e7), max_size=6), patience=st.floats(0.001, 1e4))
@settings(max_examples=30, deadline=None)
def test_rounded_times_do_not_spin_whatever_they_are(pauses: list[float], patience: float) -> None:
    """A client that is asked again after pauses of any length gives up once, after all its patience."""

    async def main() -> None:
        ours, _ = memory_stream_pair()
        config = ClientConfig(reply_timeout=patience)
        connection, transport = Client(config, now=trio.current_time()), Scripted(ours)
        driver = Driver(connection, transport)
        driven = 0.0
        for pause in pauses:
            since = trio.current_time()
            with trio.move_on_after(patience / 10):
                await driver.run()
            driven += trio.current_time() - since
            await trio.sleep(pause)
        since = trio.current_time()
        await driver.run()
        assert driven + trio.current_time() - since == pytest.approx(patience, rel=1e-3, abs=1e-6)
        assert ending(connection).reason is EndReason.TIMED_OUT
        assert len(transport.calls) == 1

    trio.run(main, clock=MockClock(autojump_threshold=0))


# Inputs in between


@pytest.mark.parametrize("event", [Welcomed, NameRequested, Greeted])
async def test_an_input_from_the_handler_is_sent(autojump_clock: MockClock, event: type) -> None:
    """What a handler asks while an arrival is handed over, between receive and send, goes out at once."""
    connection = client(leave=False)
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)

    def handle(happened: object) -> None:
        if isinstance(happened, event) and not asked:
            asked.append(b"Grace")
            connection.send_name(b"Grace", driver.now())
            driver.wake()

    asked: list[bytes] = []
    driver = Driver(connection, ours, handle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await peer.say(WELCOME + PROMPT)
        if event is Greeted:
            await wait_all_tasks_blocked()
            connection.send_name(b"Ada", driver.now())
            driver.wake()
            await peer.expect(b"Ada\n")
            await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\n")
        assert trio.current_time() == 0
        await peer.end()


@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_wake_does_not_cost_the_peer_the_end(autojump_clock: MockClock, role: str) -> None:
    """The end of the stream is sent even if somebody wakes the driver just then."""
    connection: Connection = server() if role == "server" else client(leave=False)
    ours, theirs = memory_stream_pair()
    stream, peer = Tap(ours), Peer(theirs)
    driver = Driver(connection, stream, lambda _: driver.wake())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        if role == "client":
            await peer.say(WELCOME + PROMPT + GOODBYE)
        else:
            await peer.expect(WELCOME + PROMPT)
            await peer.end()
        await peer.expect_end()
        if role == "client":
            await peer.end()
    assert stream.calls.count("eof") == 1
    assert trio.current_time() == 0


@pytest.mark.parametrize("opened", [STREAMS["Unix"], STREAMS["TCP"]], ids=["Unix", "TCP"])
async def test_shutting_down_over_a_socket_takes_exactly_what_has_arrived(
    authority: Authority, opened: Open
) -> None:
    """All names that are in the kernel are answered, of many reads, and then GOODBYE is said."""
    names = [b"Ada"] * 20_000
    async with opened(authority) as pair, late(server(), pair) as (driver, peer):
        await peer.meet()
        await peer.say(b"".join(name + b"\n" for name in names))
        driver.shut_down()
        await peer.hear_all()
        assert peer.heard == dialogue(*names)


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
async def test_shutting_down_takes_the_end_behind_the_last_byte(
    pair: Callable[[], StreamPair],
) -> None:
    """The end is no byte that the kernel counts: it is looked for when all bytes were taken (S7.1)."""
    connection = server()
    async with plainly(pair) as (ours, theirs):
        peer, driver = Peer(theirs), Driver(connection, ours)
        await peer.say(b"Ada\nEds")
        await peer.end()
        driver.shut_down()
        await driver.run()
        await peer.expect(WELCOME + PROMPT + hello(b"Ada") + PROMPT + hello(b"Eds"))
    assert ending(connection) == ConversationEnded(EndReason.EOF)


async def test_shutting_down_takes_no_more_than_it_can_answer(autojump_clock: MockClock) -> None:
    """What has arrived is answered piece by piece: memory stays bounded if the peer does not read (M2)."""
    connection, said = server(), b"a\n" * 8192 * 5
    async with plainly(unix_pair) as pair, late(connection, pair) as (driver, peer):
        await peer.meet()
        await put(peer, said)
        driver.shut_down()
        await wait_all_tasks_blocked()
        assert connection.state.is_open
        assert 0 < driver.received < len(said)
        heard = bytearray()
        while data := await peer.stream.receive_some():
            heard += data
        assert heard == dialogue(*[b"a"] * (len(said) // 2))[len(WELCOME + PROMPT) :]


@streams
async def test_shutting_down_is_bounded_against_a_peer_that_keeps_sending(
    authority: Authority, opened: Open
) -> None:
    """A peer that has always said more by the time it was answered hears GOODBYE after what had come when it began."""
    connection = server()
    async with opened(authority) as pair, late(connection, pair) as (driver, peer):
        await peer.meet()

        async def talk() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await peer.say(b"Ada\n" * 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            nursery.start_soon(peer.hear_all)
            await trio.lowlevel.checkpoint()
            driver.shut_down()
            while connection.state is ServerState.OPEN:
                await trio.lowlevel.checkpoint()
            assert driver.received < 16_000_000
            nursery.cancel_scope.cancel()


# Patience of a process that was stopped


@pytest.mark.parametrize(("late_by", "lost"), [(0.9, True), (1.1, False)])
async def test_a_send_timeout_that_is_noticed_late_is_given_again(
    autojump_clock: MockClock, late_by: float, *, lost: bool
) -> None:
    """A server that was stopped while it sent does not blame its client; a second time is a loss."""
    connection = server()
    async with plainly(unix_pair) as pair, late(connection, pair) as (driver, peer):
        await peer.meet()
        await peer.say(b"a\n" * 8192 * 2)
        await wait_all_tasks_blocked()  # the send is blocked now
        autojump_clock.jump(SEND_TIMEOUT + late_by)
        await wait_all_tasks_blocked()
        assert connection.state.is_ended is lost
        await trio.sleep(SEND_TIMEOUT + 1)
        assert ending(connection) == ConversationEnded(EndReason.CONNECTION_LOST)
        assert driver.failure == "the peer took less than 64 KiB in 30 s"


async def test_a_stopped_server_goes_on_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a socket nothing of a send is lost by that: it goes on, and the client hears all of it."""
    monkeypatch.setattr(_patience, "_LATE", 0.05)
    connection = Server(LINES, now=trio.current_time())
    names = [b"%0500d" % number for number in range(3_000)]
    async with plainly(unix_pair) as (ours, theirs):
        driver, peer = Driver(connection, ours, send_timeout=0.05), Peer(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.run)
            nursery.start_soon(peer.say, b"".join(name + b"\n" for name in names) + b"exit\n")
            await wait_all_tasks_blocked()  # the send is blocked
            time.sleep(0.11)  # noqa: ASYNC251 - nothing is to run meanwhile
            await peer.expect(dialogue(*names))
            await peer.expect_end()
            await peer.end()


# Found in review


class Narrow(Transport):
    """A transport whose every step the test decides: what arrives, how much goes at once, and when more does."""

    def __init__(self, *arrivals: bytes, goes_now: int, arrived: int = 0) -> None:
        self.arrivals = list(arrivals)
        self.goes_now = goes_now
        self.has_arrived = arrived
        self.steps = trio.Event()
        """Set when blocked sends may go on, and what is left of the arrivals may be received."""
        self.sent = b""

    async def receive(self) -> bytes:
        """Return the first arrival at once, and the others when steps may be made."""
        if len(self.arrivals) > 1:
            await trio.lowlevel.checkpoint()
        elif self.arrivals:
            await self.steps.wait()
        else:
            await trio.sleep_forever()
        return self.arrivals.pop(0)

    async def receive_arrived(self) -> bytes | None:
        """Return the next arrival."""
        return self.arrivals.pop(0) if self.arrivals else None

    def arrived(self) -> int:
        """Say what was scripted."""
        return self.has_arrived

    def send_now(self, data: bytes | memoryview) -> int:
        """Take a part."""
        self.sent += data[: self.goes_now]
        return min(self.goes_now, len(data))

    async def send_some(self, data: bytes | memoryview) -> int:
        """Take all of it, when steps may be made."""
        await self.steps.wait()
        self.sent += data
        return len(data)

    async def send_eof(self, patience: float) -> None:
        """Do nothing."""

    def is_in_flight(self) -> bool:
        """Know of nothing."""
        return False

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("turn", range(10))  # which of two tasks goes first is a matter of chance
async def test_output_of_an_answer_that_comes_as_a_blocked_send_ends(
    autojump_clock: MockClock, turn: int
) -> None:
    """What a client has to send anew, when a blocked send has just gone out, is no send that was given up."""
    connection = client(*[b"a"] * 200, leave=False)
    transport = Narrow(WELCOME + PROMPT, hello(b"a") + PROMPT, goes_now=100)
    driver = Driver(connection, transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await wait_all_tasks_blocked()
        connection.send_names([b"b"] * 200, driver.now())
        driver.wake()
        await wait_all_tasks_blocked()
        transport.steps.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert driver.failure == ""
    assert transport.sent == b"a\n" * 200 + b"b\n" * 200


@pytest.mark.parametrize("exception", BROKEN, ids=lambda exception: type(exception).__name__)
async def test_an_exception_of_the_handler_is_no_broken_stream(
    autojump_clock: MockClock, exception: Exception
) -> None:
    """A handler may raise what a broken stream raises: that comes out, and is not taken for one."""

    def handle(event: object) -> None:
        if isinstance(event, NamesReceived):
            raise exception

    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"Ada\n")
    with pytest.raises(type(exception)):
        await drive(server(), ours, handle)


async def test_a_shutdown_after_a_blocked_send_blames_nobody(autojump_clock: MockClock) -> None:
    """Names that came while the server was sending its answers count, though its idle time is over by then (T3)."""
    connection = server(ServerConfig(framing=Framing.LINES, idle_timeout=2, linger=1))
    transport = Narrow(b"Ada\n" * 3, b"Bob\n", b"Eve\n", goes_now=30)
    driver = Driver(connection, transport)
    driver.shut_down()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(3)
        transport.steps.set()
    assert transport.sent.endswith(hello(b"Bob") + PROMPT + GOODBYE)


async def test_an_exception_of_the_stream_comes_out_bare(autojump_clock: MockClock) -> None:
    """A stream with a bug is a bug, where its deadline makes the driver look for what has arrived, too."""
    ours, _ = memory_stream_pair()
    stream = Tap(ours, Fault("receive", 2, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await drive(auto_server(), stream)
