"""The client as a library, against servers that are scripted, and against our own."""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from greeter_core import (
    ClientConfig,
    ClientEvent,
    ConversationEnded,
    EndReason,
    Framing,
    Greeted,
    LocalProtocolError,
    ProtocolViolated,
    ServerConnection,
)
from greeter_trio import ConversationFailed, Greeter, drive, open_greeter
from greeter_trio._net.tls_stream import HandshakeFailed
from tests.support.certificates import Authority
from tests.support.connections import LINES
from tests.support.descriptors import nothing_left_open
from tests.support.peers import Peer, background, scripted
from tests.support.plays import (
    Step,
    after,
    ends,
    greets,
    hears,
    hears_end,
    hears_reset,
    hears_rest,
    over_tls,
    play,
    resets,
    says,
    welcomes,
    when,
)
from tests.support.servers import serving
from tests.support.streams import StreamPair, tcp_pair, unix_pair
from tests.support.words import ADA, BOB, EVE, GOODBYE, PROMPT, WELCOME, hello

HOST = "127.0.0.1"
LEAVE = play(hears(b"exit\n"), says(GOODBYE), hears_end())
Pair = Callable[[], StreamPair]


@contextlib.asynccontextmanager
async def server(
    *steps: Step, make: Pair = memory_stream_pair
) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """Yield a stream to a server that plays these steps, and then closes its end."""

    async def run(stream: trio.abc.HalfCloseableStream) -> None:
        async with stream:
            await play(*steps)(Peer(stream))

    async with background(run, make) as peer:
        yield peer.stream


@contextlib.asynccontextmanager
async def greeter_of(
    *steps: Step, make: Pair = memory_stream_pair, framing: Framing = Framing.AUTO
) -> AsyncIterator[Greeter]:
    async with (
        server(*steps, make=make) as stream,
        open_greeter(stream=stream, config=ClientConfig(framing=framing)) as greeter,
    ):
        yield greeter


async def all_of(greetings: AsyncIterator[str]) -> list[str]:
    return [greeting async for greeting in greetings]


async def failure(call: Awaitable[object]) -> ConversationFailed:
    with pytest.raises(ConversationFailed) as caught:
        await call
    return caught.value


# Greeting


async def test_names_are_greeted_over_tcp() -> None:
    async with serving() as running, open_greeter(HOST, running.port) as greeter:
        assert await greeter.greet("Grace Hopper") == "Hello Grace Hopper!"
        assert await all_of(greeter.greet_all([])) == []
        names = (name for name in ("Ada", "Bob"))
        assert await all_of(greeter.greet_all(names)) == ["Hello Ada!", "Hello Bob!"]


async def test_names_are_asked_together_and_greetings_returned_as_they_come() -> None:
    """Each is a checkpoint, even if its greeting has come before."""
    returned = trio.Event()
    both = hears(b"Bob\nEve\nlate\n"), says(BOB + PROMPT + EVE + PROMPT)
    late = when(returned), says(hello(b"late") + PROMPT)
    async with greeter_of(welcomes(), greets(b"Ada"), *both, *late, LEAVE) as greeter:
        greetings = greeter.greet_all(["Ada", "Bob", "Eve", "late"])
        for name in ("Ada", "Bob", "Eve"):
            with assert_checkpoints():
                assert await anext(greetings) == f"Hello {name}!"
        returned.set()
        assert await all_of(greetings) == ["Hello late!"]


@pytest.mark.parametrize(
    "name", ["Zoë", "李", "👩‍🚀", "\udcff\udc80", "Exit", "!", "\x00\x1b[31m", "x" * 1024]
)
async def test_names_of_all_kinds(name: str) -> None:
    sent = name.encode("utf-8", "surrogateescape")
    async with greeter_of(welcomes(), greets(sent), LEAVE) as greeter:
        assert await greeter.greet(name) == f"Hello {name}!"


@pytest.mark.parametrize(
    "name", ["", "exit", "two\nlines", "carriage\rreturn", "x" * 1025, "é" * 513, "\ud800"]
)
async def test_what_is_no_name_is_refused(name: str) -> None:
    """Nothing is sent, not even the names before it, and the conversation goes on."""
    async with greeter_of(welcomes(), greets(b"Ada"), LEAVE) as greeter:
        with pytest.raises(LocalProtocolError):
            await greeter.greet(name)
        with pytest.raises(LocalProtocolError):
            greeter.greet_all(["Bob", name])
        with pytest.raises(LocalProtocolError, match="several names, not one"):
            greeter.greet_all("Bob")
        with pytest.raises(LocalProtocolError, match="leaving the block says it"):
            greeter.greet_all(["exit"])
        assert await greeter.greet("Ada") == "Hello Ada!"


async def test_the_framing_can_be_configured() -> None:
    steps = hears(b"Ada"), says(ADA + PROMPT), hears(b"exit"), says(GOODBYE)
    async with greeter_of(welcomes(), *steps, framing=Framing.RAW) as greeter:
        assert await greeter.greet("Ada") == "Hello Ada!"


async def test_the_end_of_the_block_says_exit_and_closes() -> None:
    async with server(welcomes(), greets(b"Ada"), LEAVE) as stream:
        async with open_greeter(stream=stream) as greeter:
            await greeter.greet("Ada")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        failed = await failure(greeter.greet("Bob"))
        assert failed.reason is EndReason.EXIT
        assert str(failed) == "the conversation is over"
        with pytest.raises(LocalProtocolError):
            greeter.greet_all(["exit"])


async def test_a_block_that_fails_says_nothing_and_closes() -> None:
    """Its exception is neither wrapped nor replaced."""
    problem = KeyError("mine")
    async with server(welcomes(), greets(b"Ada"), hears_end()) as stream:
        with pytest.raises(KeyError) as caught:  # noqa: PT012 - the block is what is tested
            async with open_greeter(stream=stream) as greeter:
                await greeter.greet("Ada")
                raise problem
        assert caught.value is problem
        failed = await failure(greeter.greet("Bob"))
        assert failed.reason is EndReason.CONNECTION_LOST
        assert failed.unanswered == ("Bob",)


# What goes wrong


@pytest.mark.parametrize(
    ("end", "reason", "message"),
    [
        (play(), EndReason.EOF, "the server closed the connection"),
        (resets(), EndReason.CONNECTION_LOST, "was lost (Connection reset by peer)"),
        (says(EVE), EndReason.VIOLATION, 'it said "Hello Eve!\\x0a" and not "Hello Bob!"'),
        (says(GOODBYE), EndReason.SHUTDOWN, "the server said goodbye before it was asked to"),
        (says(b"Sorry, no.\n"), EndReason.REFUSED, "the server refused: Sorry, no."),
    ],
    ids=["close", "reset", "garbage", "goodbye", "sorry"],
)
async def test_a_conversation_that_fails(end: Step, reason: EndReason, message: str) -> None:
    """What was greeted is returned first; the failure is raised as often as it is met."""
    steps = welcomes(), greets(b"Ada"), hears(b"Bob\nEve\n"), end
    async with greeter_of(*steps, make=tcp_pair) as greeter:
        greetings = greeter.greet_all(["Ada", "Bob", "Eve"])
        assert await anext(greetings) == "Hello Ada!"
        for call in (anext(greetings), anext(greetings), greeter.greet("late")):
            failed = await failure(call)
            assert failed.reason is reason
            assert message in str(failed)
            assert failed.unanswered == ("Bob", "Eve")
            is_lost = reason is EndReason.CONNECTION_LOST
            assert isinstance(failed.__cause__, trio.BrokenResourceError) is is_lost


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (play(), EndReason.EOF),
        (says(WELCOME), EndReason.EOF),
        (says(WELCOME + GOODBYE), EndReason.SHUTDOWN),
        (says(b"Sorry, too many clients.\n"), EndReason.REFUSED),
        (says(b"SSH-2.0-OpenSSH\r\n"), EndReason.VIOLATION),
        (hears_end(), EndReason.TIMED_OUT),
    ],
    ids=["close", "welcome", "goodbye", "sorry", "garbage", "silence"],
)
async def test_opening_fails_where_no_name_is_asked_for(
    autojump_clock: MockClock, step: Step, reason: EndReason
) -> None:
    async with server(step) as stream:
        opening = open_greeter(stream=stream, config=ClientConfig(reply_timeout=3))
        failed = await failure(opening.__aenter__())
    assert failed.reason is reason
    assert failed.unanswered == ()
    assert autojump_clock.current_time() == (3 if reason is EndReason.TIMED_OUT else 0)


async def test_an_exit_that_fails_is_raised_at_the_end() -> None:
    async with server(welcomes(), hears(b"exit\n")) as stream:
        greeter = await Greeter(stream).__aenter__()
        failed = await failure(greeter.__aexit__(None))
    assert failed.reason is EndReason.EOF
    assert failed.unanswered == ()


async def test_a_shutdown_between_names_is_no_failure(autojump_clock: MockClock) -> None:
    """Exit is asked for in the second before, and not sent: a bare name waits for a prompt."""
    steps = welcomes(), hears(b"Ada"), says(ADA), after(1), says(GOODBYE), hears_end()
    async with greeter_of(*steps, framing=Framing.RAW) as greeter:
        await greeter.greet("Ada")
    assert autojump_clock.current_time() == pytest.approx(1)


async def test_a_server_that_falls_silent(autojump_clock: MockClock) -> None:
    steps = welcomes(), greets(b"Ada"), hears(b"Bob\n"), says(BOB[:-3]), hears_rest()
    async with greeter_of(*steps) as greeter:
        failed = await failure(all_of(greeter.greet_all(["Ada", "Bob"])))
        assert failed.reason is EndReason.TIMED_OUT
        assert failed.unanswered == ("Bob",)
        assert autojump_clock.current_time() == pytest.approx(10)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_client_that_gives_up_in_the_middle_of_a_name_resets_the_connection(
    settling_clock: MockClock, how: str
) -> None:
    """A server would greet the part of the name that has come, if the stream simply ended."""
    names = [f"{number} {'x' * 1000}" for number in range(4000)]  # more than kernels keep
    async with nothing_left_open():
        ours, theirs = tcp_pair()
        peer = Peer(theirs)
        await peer.say(WELCOME + PROMPT)
        with trio.move_on_after(5 if how == "cancelled" else 50) as scope:
            lines = ClientConfig(framing=Framing.LINES)
            async with open_greeter(stream=ours, config=lines) as greeter:
                if how == "cancelled":
                    await all_of(greeter.greet_all(names))
                failed = await failure(all_of(greeter.greet_all(names)))
                assert failed.reason is EndReason.TIMED_OUT
        assert scope.cancelled_caught == (how == "cancelled")
        await hears_reset()(peer)
        await peer.close()
    assert 0 < len(peer.heard) < 4_000_000


# Connecting


async def test_names_that_wait_to_be_sent_are_counted() -> None:
    async with scripted(play(says(WELCOME + PROMPT), hears(b"Ada\n"), hears_rest())) as port:
        stream = await trio.open_tcp_stream(HOST, port)
        async with stream:
            greeter = Greeter(stream)
            greeter.ask([b"Ada", b"Bob", b"Cleo"])
            greeter.ask_exit()
            assert greeter.unsent == 3
            await greeter.wait_welcomed()
            while greeter.unsent == 3:
                with trio.move_on_after(0.01):
                    await greeter.wait_greeted(1)
            assert greeter.unsent == 2  # the first one shows whether lines are understood


async def test_a_refused_connection_is_an_oserror() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    with pytest.raises(OSError, match=f"cannot connect to {HOST}:{port}: ") as caught:
        await open_greeter(HOST, port).__aenter__()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_connecting_has_the_reply_timeout(
    settling_clock: MockClock, authority: Authority
) -> None:
    config, context = ClientConfig(reply_timeout=3), authority.client()
    async with scripted(hears_rest()) as port:
        late = f"^cannot connect to {HOST}:{port} with TLS: no answer within 3 s"
        with pytest.raises(TimeoutError, match=late):
            await open_greeter(HOST, port, config=config, ssl_context=context).__aenter__()
    assert trio.current_time() == pytest.approx(3)


async def test_tls(authority: Authority) -> None:
    tls = authority.server(HOST)
    async with (
        scripted(over_tls(tls, welcomes(), greets(b"Ada"), LEAVE, ends())) as port,
        open_greeter(HOST, port, ssl_context=authority.client()) as greeter,
    ):
        assert await greeter.greet("Ada") == "Hello Ada!"


async def test_tls_that_fails(authority: Authority) -> None:
    context = authority.client()
    async with nothing_left_open(), scripted(says(WELCOME)) as port:
        failed = await failure(open_greeter(HOST, port, ssl_context=context).__aenter__())
    why = "the server does not speak TLS on this port"
    assert str(failed) == f"there is no TLS connection to the server: {why}"
    assert failed.reason is EndReason.CONNECTION_LOST
    assert isinstance(failed.__cause__, HandshakeFailed)


# Greetings that were not waited for


async def test_greetings_that_were_not_waited_for_are_skipped(autojump_clock: MockClock) -> None:
    """Though they are still to come, a call returns when its own greeting has come."""
    names = [b"Ada", b"Bob", b"Eve", b"four", b"five"]
    turns = [play(hears(name + b"\n"), after(1), says(hello(name) + PROMPT)) for name in names]
    async with greeter_of(welcomes(), *turns, LEAVE) as greeter:
        assert await anext(greeter.greet_all(["Ada", "Bob", "Eve"])) == "Hello Ada!"
        assert await greeter.greet("four") == "Hello four!"
        assert autojump_clock.current_time() == pytest.approx(4)
        assert await all_of(greeter.greet_all(["five"])) == ["Hello five!"]
        assert autojump_clock.current_time() == pytest.approx(5)


@pytest.mark.parametrize("pause", [0, 60])
@pytest.mark.parametrize("resumes", [False, True])
async def test_a_wait_that_was_given_up_loses_no_greeting(
    autojump_clock: MockClock, pause: float, *, resumes: bool
) -> None:
    """The answer came in time, even if it is noticed only when the next name is asked."""
    ada = play(hears(b"Ada\n"), after(2), says(ADA + PROMPT))
    async with greeter_of(welcomes(), ada, greets(b"Bob"), LEAVE) as greeter:
        greetings = greeter.greet_all(["Ada"])
        with trio.move_on_after(1) as scope:
            await anext(greetings)
        assert scope.cancelled_caught
        await trio.sleep(pause)
        if resumes:
            assert await anext(greetings) == "Hello Ada!"
        assert await greeter.greet("Bob") == "Hello Bob!"
        assert autojump_clock.current_time() == pytest.approx(max(2, 1 + pause))


async def test_a_server_that_fell_silent_during_a_pause(autojump_clock: MockClock) -> None:
    """Its overdue answer is its own failure, and no mistake of the caller."""
    async with greeter_of(welcomes(), hears(b"Ada\n"), hears_rest()) as greeter:
        with trio.move_on_after(1):
            await greeter.greet("Ada")
        await trio.sleep(60)
        failed = await failure(greeter.greet("Bob"))
        assert failed.reason is EndReason.TIMED_OUT
        assert failed.unanswered == ("Ada", "Bob")
        assert autojump_clock.current_time() == pytest.approx(70)


# Many tasks


async def test_many_tasks_greet_at_once() -> None:
    """More than can be sent at once, so that it is sent in steps."""
    connection = ServerConnection(LINES, now=trio.current_time())

    async def use(number: int) -> None:
        for turn in range(3):
            assert await greeter.greet(f"{number} {turn}") == f"Hello {number} {turn}!"
            names = [f"{number} {turn} {index} {'x' * 900}" for index in range(50)]
            assert await all_of(greeter.greet_all(names)) == [f"Hello {name}!" for name in names]

    async with (
        background(partial(drive, connection), unix_pair) as peer,
        open_greeter(stream=peer.stream) as greeter,
        trio.open_nursery() as nursery,
    ):
        for number in range(20):
            nursery.start_soon(use, number)


@pytest.mark.parametrize(
    "order", [(1, 2, 3, "end"), (3, 2, 1, "end"), ("end", 3, 1, 2), (2, "end", 3, 1)]
)
async def test_each_task_goes_on_when_its_own_greeting_is_there(
    autojump_clock: MockClock, order: tuple[int | str, ...]
) -> None:
    """Whichever of them drives the conversation, which is the first that waits."""
    times: dict[int | str, float] = {}

    async def wait(what: int | str) -> None:
        if isinstance(what, int):
            await greeter.wait_greeted(what)
        else:
            await greeter.wait_ended(EndReason.EXIT)
        times[what] = round(autojump_clock.current_time(), 3)

    answers = [play(after(1), says(hello(name) + PROMPT)) for name in (b"Ada", b"Bob", b"Eve")]
    steps = welcomes(), hears(b"Ada\nBob\nEve\n"), *answers, LEAVE
    async with trio.open_nursery() as nursery, greeter_of(*steps, framing=Framing.LINES) as greeter:
        greeter.ask([b"Ada", b"Bob", b"Eve"])
        for what in order:
            nursery.start_soon(wait, what)
            await wait_all_tasks_blocked()
        await trio.sleep(4)
    assert times == {1: 1, 2: 2, 3: 3, "end": 4}


async def test_another_task_goes_on_driving_after_a_cancellation(autojump_clock: MockClock) -> None:
    """At 1 s and at 2 s the driving task is cancelled; at 0.5 s one that only waits.

    Names are sent meanwhile, whichever task drives.
    """
    times: dict[object, tuple[bool, float]] = {}

    async def wait(patience: float, call: Callable[[Any], Awaitable[object]], what: object) -> None:
        with trio.move_on_after(patience) as scope:
            assert await call(what) == f"Hello {what}!"
        times[what] = scope.cancelled_caught, round(autojump_clock.current_time(), 3)

    ada = play(hears(b"Ada\n"), after(3), says(ADA + PROMPT))
    both = play(hears(b"Bob\nEve\n"), after(1), says(BOB + PROMPT + EVE + PROMPT))
    async with greeter_of(welcomes(), ada, both, LEAVE) as greeter, trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1, greeter.wait_ended, EndReason.EXIT)
        await wait_all_tasks_blocked()
        for patience, name in ((2, "Ada"), (0.5, "Bob"), (9, "Eve")):
            nursery.start_soon(wait, patience, greeter.greet, name)
            await wait_all_tasks_blocked()
    expected = {"Bob": (True, 0.5), EndReason.EXIT: (True, 1), "Ada": (True, 2), "Eve": (False, 4)}
    assert times == expected


async def test_every_waiting_task_hears_of_a_failure() -> None:
    failures, waiting = [], trio.Event()

    async def wait(call: Awaitable[object]) -> None:
        failures.append(await failure(call))

    steps = welcomes(), hears(b"Ada\n"), when(waiting), resets()
    async with greeter_of(*steps, make=tcp_pair) as greeter, trio.open_nursery() as nursery:
        for call in greeter.wait_ended(), *map(greeter.greet, ("Ada", "Bob", "Eve")):
            nursery.start_soon(wait, call)
            await wait_all_tasks_blocked()
        waiting.set()
    assert len({id(failed) for failed in failures}) == 4  # each can have a traceback of its own
    for failed in failures:
        assert failed.reason is EndReason.CONNECTION_LOST
        assert failed.unanswered == ("Ada", "Bob", "Eve")
        assert isinstance(failed.__cause__, trio.BrokenResourceError)


async def test_asking_without_waiting(autojump_clock: MockClock) -> None:
    """Events are handed on, and the stream is left to the caller."""
    events: list[ClientEvent] = []
    begin = play(after(1), says(WELCOME[:1]), after(1), says(WELCOME[1:] + PROMPT))
    async with server(begin, greets(b"Ada", b"\xff"), LEAVE) as stream:
        greeter = Greeter(stream, handle_events=events.extend)
        assert greeter.first_byte_at is None
        await greeter.wait_welcomed()
        assert greeter.first_byte_at == pytest.approx(1)
        assert autojump_clock.current_time() == pytest.approx(2)
        await trio.sleep(5)  # while no task waits, the conversation's clock stands still
        assert greeter.now() == pytest.approx(2)
        async with greeter:
            greeter.ask([b"Ada", b"\xff"])
        greeted = [event.name for event in events if isinstance(event, Greeted)]
        assert greeted == [b"Ada", b"\xff"]
        assert greeter.greeted == 2
        assert events[-1] == ConversationEnded(EndReason.EXIT)
        assert await stream.receive_some() == b""
        with assert_checkpoints():
            await greeter.wait_ended(EndReason.EXIT)
        assert (await failure(greeter.wait_ended())).reason is EndReason.EXIT
        assert (await failure(greeter.wait_ended(EndReason.SHUTDOWN))).reason is EndReason.EXIT


async def test_a_goodbye_that_comes_with_the_prompt() -> None:
    """The server asked for a name, if only for a moment."""
    async with greeter_of(says(WELCOME + PROMPT + GOODBYE), hears_end()) as greeter:
        assert (await failure(greeter.greet("Ada"))).reason is EndReason.SHUTDOWN


async def test_a_handler_that_raises_does_not_hide_the_end() -> None:
    """It costs the events that came together with the one at which it raised."""

    def handle(events: Sequence[ClientEvent]) -> None:
        if isinstance(events[0], ProtocolViolated):
            raise ZeroDivisionError

    async with server(says(b"no greeter")) as stream:
        greeter = Greeter(stream, handle_events=handle)
        with pytest.raises(ZeroDivisionError):
            await greeter.wait_welcomed()
        for call in greeter.wait_welcomed(), greeter.greet("Ada"), greeter.wait_ended():
            assert "the server is no greeter" in str(await failure(call))


async def test_one_name_is_not_several() -> None:
    async with greeter_of(welcomes(), LEAVE) as greeter:
        with pytest.raises(LocalProtocolError, match=r"^names must be several names, not one"):
            greeter.ask(b"Ada")  # type: ignore[arg-type]
