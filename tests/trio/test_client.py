# ruff: noqa: PT012 - a failure may come out of a block, so that the whole block has to stand in `pytest.raises`
"""The client as a library (`_client.py`), against the server, scripted peers, and the original server."""

import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from greeter_core import (
    ClientConfig,
    EndReason,
    Framing,
    LocalProtocolError,
    ServerConfig,
    ServerConnection,
)
from greeter_trio import ConversationFailed, Greeter, drive, open_greeter
from greeter_trio._net.tls import TLSStream, client_context, server_context

from .certificates import Authority
from .helpers import (
    GOODBYE,
    NO_LINGER,
    PROMPT,
    SETTLED,
    WELCOME,
    Peer,
    hello,
    nothing_left_open,
    scripted,
    serving,
)

Script = Callable[[Peer], Awaitable[None]]

NOT_NAMES = ["", "exit", "two\nlines", "carriage\rreturn", "x" * 1025, "é" * 513]


@contextlib.asynccontextmanager
async def greeter_of(script: Script, config: ClientConfig | None = None) -> AsyncIterator[Greeter]:
    """Open a greeter to a scripted server."""
    async with (
        scripted(script) as port,
        open_greeter("127.0.0.1", port, config=config or ClientConfig()) as greeter,
    ):
        yield greeter


def playing(*turns: tuple[bytes, bytes], end: Script | None = None) -> Script:
    """Return the script of a server that asks for a name, and then hears and says these words in turn."""

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        for heard, said in turns:
            await peer.expect(heard)
            if said:
                await peer.say(said)
        if end:
            await end(peer)

    return play


ADA = (b"Ada\n", hello(b"Ada") + PROMPT)
EXIT = (b"exit\n", GOODBYE)


async def _close(peer: Peer) -> None:
    await peer.close()


async def _reset(peer: Peer) -> None:
    peer.reset()


async def _wait(peer: Peer) -> None:
    await peer.hear_all()


# Against the server


async def test_greet() -> None:
    """`greet` returns what the server says to a name, for one name after the other."""
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        assert await greeter.greet("Ada") == "Hello Ada!"
        assert await greeter.greet("Grace Hopper") == "Hello Grace Hopper!"


@pytest.mark.parametrize(
    ("client", "server"),
    [*((Framing.AUTO, server) for server in Framing), (Framing.LINES, Framing.AUTO)],
)
async def test_greet_in_every_framing(server: Framing, client: Framing) -> None:
    """A client that finds out is understood by every server, and one that sends lines by all that take them."""
    config = ClientConfig(framing=client)
    async with (
        serving(ServerConfig(framing=server, pace=0, quiet=0)) as service,
        open_greeter("127.0.0.1", service.port, config=config) as greeter,
    ):
        assert [greeting async for greeting in greeter.greet_all(["Ada", "Grace"])] == [
            "Hello Ada!",
            "Hello Grace!",
        ]


async def test_greet_all_pipelines() -> None:
    """Twenty thousand names are asked at once, and their greetings come in order."""
    names = [f"name {number}" for number in range(20_000)]
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        greetings = [greeting async for greeting in greeter.greet_all(names)]
    assert greetings == [f"Hello {name}!" for name in names]


async def test_names_are_asked_together() -> None:
    """Once the server is known to understand lines, all names go out without waiting for each other's answers."""
    names = (
        b"Grace\nEdsger\nBarbara\n",
        hello(b"Grace") + PROMPT + hello(b"Edsger") + PROMPT + hello(b"Barbara") + PROMPT,
    )
    async with greeter_of(playing(ADA, names, EXIT, end=_wait)) as greeter:
        greetings = [
            greeting async for greeting in greeter.greet_all(["Ada", "Grace", "Edsger", "Barbara"])
        ]
    assert greetings == ["Hello Ada!", "Hello Grace!", "Hello Edsger!", "Hello Barbara!"]


async def test_greetings_are_yielded_as_they_come() -> None:
    """A greeting is there before the next one has come."""
    heard = trio.Event()

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\n")
        await heard.wait()
        await peer.say(hello(b"Grace") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        greetings = greeter.greet_all(["Ada", "Grace"])
        assert await anext(greetings) == "Hello Ada!"
        heard.set()
        assert await anext(greetings) == "Hello Grace!"


async def test_greet_all_takes_any_iterable() -> None:
    """Names can come from a generator, and there may be none at all."""
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        assert [greeting async for greeting in greeter.greet_all([])] == []
        names = (name for name in ("Ada", "Grace"))
        assert [greeting async for greeting in greeter.greet_all(names)] == [
            "Hello Ada!",
            "Hello Grace!",
        ]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("Zoë", "Zoë".encode()),
        ("李", "李".encode()),
        ("👩‍🚀", "👩‍🚀".encode()),
        ("\udcff\udc80", b"\xff\x80"),
        ("Exit", b"Exit"),
        ("!", b"!"),
        ("\x00\x1b[31m", b"\x00\x1b[31m"),
        ("x" * 1024, b"x" * 1024),
    ],
)
async def test_names_of_all_kinds(name: str, sent: bytes) -> None:
    """Names are sent as UTF-8, surrogate escapes as the bytes that they stand for, and come back as they were given."""
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        received.append((await peer.hear()).removesuffix(b"\n"))
        await peer.say(hello(received[0]) + PROMPT)
        await peer.hear()
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        assert await greeter.greet(name) == f"Hello {name}!"
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        assert await greeter.greet(name) == f"Hello {name}!"
    assert received == [sent]


@pytest.mark.parametrize("name", NOT_NAMES)
async def test_what_is_no_name_is_refused(name: str) -> None:
    """What cannot be a name raises `LocalProtocolError`, nothing is sent, and the conversation goes on."""
    async with greeter_of(playing(ADA, EXIT, end=_wait)) as greeter:
        with pytest.raises(LocalProtocolError):
            await greeter.greet(name)
        with pytest.raises(LocalProtocolError):
            async for _ in greeter.greet_all(["Grace", name]):
                pytest.fail("nothing was to be asked")
        assert await greeter.greet("Ada") == "Hello Ada!"


async def test_text_that_utf8_cannot_say_is_refused_like_any_other() -> None:
    """A lone surrogate that stands for no byte raises `LocalProtocolError`, as the documentation promises."""
    async with greeter_of(playing(ADA, EXIT, end=_wait)) as greeter:
        with pytest.raises(LocalProtocolError):
            await greeter.greet("\ud800")
        assert await greeter.greet("Ada") == "Hello Ada!"


# Leaving


async def test_the_end_of_the_block_says_exit() -> None:
    """At the end of the block the server hears `exit` and then the end of the stream, and nothing else."""
    said: list[bytes] = []
    over = trio.Event()

    async def hear_the_rest(peer: Peer) -> None:
        await peer.hear_all()
        said.append(peer.heard)
        over.set()

    async with scripted(playing(ADA, EXIT, end=hear_the_rest)) as port:
        async with open_greeter("127.0.0.1", port) as greeter:
            await greeter.greet("Ada")
        await over.wait()
    assert said == [b"Ada\nexit\n"]


async def test_a_block_that_asks_for_nothing_says_exit() -> None:
    """A greeter that is only opened and left says `exit` in good order."""
    async with greeter_of(playing(EXIT, end=_wait)):
        pass


async def test_leaving_closes_the_connection() -> None:
    """After the block no descriptor is left open, however it was left."""
    async with nothing_left_open(), serving() as service:
        async with open_greeter("127.0.0.1", service.port) as greeter:
            await greeter.greet("Ada")
        with pytest.raises(ZeroDivisionError):
            async with open_greeter("127.0.0.1", service.port):
                raise ZeroDivisionError
        with trio.CancelScope() as scope:
            async with open_greeter("127.0.0.1", service.port):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_the_bodys_own_exception_comes_out_as_itself() -> None:
    """An exception in the block is neither wrapped in a group nor replaced, and nothing more is said."""
    said: list[bytes] = []
    over = trio.Event()

    async def hear_the_rest(peer: Peer) -> None:
        await peer.hear_all()
        said.append(peer.heard)
        over.set()

    problem = KeyError("mine")
    async with scripted(playing(ADA, end=hear_the_rest)) as port:
        with pytest.raises(KeyError) as caught:
            async with open_greeter("127.0.0.1", port) as greeter:
                await greeter.greet("Ada")
                raise problem
        await over.wait()
    assert caught.value is problem
    assert said == [b"Ada\n"]


async def test_a_greeter_that_was_left_greets_nobody() -> None:
    """After the block `greet` raises `ConversationFailed`, whether exit was said or not."""
    async with serving() as service:
        async with open_greeter("127.0.0.1", service.port) as greeter:
            pass
        with pytest.raises(ConversationFailed, match="the conversation is over") as caught:
            await greeter.greet("Ada")
        assert caught.value.reason is EndReason.EXIT
        with contextlib.suppress(ZeroDivisionError):
            async with open_greeter("127.0.0.1", service.port) as greeter:
                raise ZeroDivisionError
        with pytest.raises(ConversationFailed) as caught:
            await greeter.greet("Ada")
        assert caught.value.reason is EndReason.CONNECTION_LOST
        assert caught.value.unanswered == ("Ada",)


# What goes wrong


@pytest.mark.parametrize(
    ("end", "reason", "message"),
    [
        (_close, EndReason.EOF, "the server closed the connection without saying goodbye"),
        (
            _reset,
            EndReason.CONNECTION_LOST,
            "the connection to the server was lost (Connection reset by peer)",
        ),
        (
            playing(end=_close),
            EndReason.VIOLATION,
            'the server is no greeter: it said "Welcome!\\x0aWhat\'s your name?" and not "Hello Grace!"',
        ),
        (
            lambda peer: peer.say(GOODBYE),
            EndReason.SHUTDOWN,
            "the server said goodbye before it was asked to",
        ),
        (
            lambda peer: peer.say(b"Sorry, no name came in time.\n"),
            EndReason.REFUSED,
            "the server refused: Sorry, no name came in time.",
        ),
    ],
    ids=["close", "reset", "garbage", "goodbye", "sorry"],
)
async def test_a_conversation_that_fails(end: Script, reason: EndReason, message: str) -> None:
    """When the server ends it in the middle, what was answered is there, and the exception names reason and rest."""
    greetings: list[str] = []

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\nEdsger\n")
        await end(peer)

    async with scripted(play) as port:
        with pytest.raises(ConversationFailed) as caught:
            async with open_greeter("127.0.0.1", port) as greeter:
                async for greeting in greeter.greet_all(["Ada", "Grace", "Edsger"]):
                    greetings.append(greeting)  # noqa: PERF401 - those before the exception count
    assert greetings == ["Hello Ada!"]
    assert caught.value.reason is reason
    assert str(caught.value) == message
    assert caught.value.unanswered == ("Grace", "Edsger")


async def test_garbage_is_escaped_in_the_message() -> None:
    """What a stranger says is shown in the exception without its control characters."""

    async def play(peer: Peer) -> None:
        await peer.say(b"SSH-2.0-\x1b[2J\xff\r\n")
        await peer.hear_all()

    async with scripted(play) as port:
        with pytest.raises(ConversationFailed) as caught:
            async with open_greeter("127.0.0.1", port):
                pytest.fail("this is no greeter")
    assert str(caught.value) == (
        'the server is no greeter: it said "SSH-2.0-\\x1b[2J\ufffd\\x0d\\x0a" and not "Welcome!"'
    )
    assert caught.value.reason is EndReason.VIOLATION
    assert caught.value.unanswered == ()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", EndReason.EOF),
        (WELCOME, EndReason.EOF),
        (b"Sorry, too many clients.\n", EndReason.REFUSED),
        (WELCOME + GOODBYE, EndReason.SHUTDOWN),
    ],
)
async def test_opening_fails_where_no_name_is_asked_for(said: bytes, reason: EndReason) -> None:
    """The block is not entered if the server ends the conversation before it asks for a name."""

    async def play(peer: Peer) -> None:
        if said:
            await peer.say(said)

    async with nothing_left_open(), scripted(play) as port:
        with pytest.raises(ConversationFailed) as caught:
            async with open_greeter("127.0.0.1", port):
                pytest.fail("nobody asked for a name")
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (_close, EndReason.EOF),
        (_reset, EndReason.CONNECTION_LOST),
        (lambda peer: peer.say(b"Sorry, I cannot let you go.\n"), EndReason.REFUSED),
        (lambda peer: peer.say(hello(b"exit")), EndReason.VIOLATION),
    ],
    ids=["close", "reset", "sorry", "hello"],
)
async def test_an_exit_that_fails_is_told(end: Script, reason: EndReason) -> None:
    """A server that does not say goodbye to `exit` makes the end of the block raise."""
    async with scripted(playing(ADA, (b"exit\n", b""), end=end)) as port:
        with pytest.raises(ConversationFailed) as caught:
            async with open_greeter("127.0.0.1", port) as greeter:
                await greeter.greet("Ada")
    assert caught.value.reason is reason
    assert caught.value.unanswered == ()


async def test_a_failure_is_told_once() -> None:
    """A block that has handled the failure ends without another exception, and each further `greet` fails again."""
    async with greeter_of(playing(end=_close)) as greeter:
        for _ in range(3):
            with pytest.raises(ConversationFailed) as caught:
                await greeter.greet("Ada")
            assert caught.value.reason is EndReason.EOF


async def test_a_shutdown_between_names_is_no_failure() -> None:
    """A server that says goodbye while nothing is asked ends the block in good order."""
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        await greeter.greet("Ada")
        service.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("turns", "unanswered"),
    [((), ("Ada", "Grace")), ((ADA,), ("Grace",)), ((ADA, (b"Grace\n", b"Hello Gra")), ("Grace",))],
)
async def test_a_server_that_falls_silent(
    autojump_clock: MockClock, turns: tuple[tuple[bytes, bytes], ...], unanswered: tuple[str, ...]
) -> None:
    """A server that does not answer, or not to the end, fails the conversation after 10 seconds."""
    autojump_clock.autojump_threshold = SETTLED
    async with scripted(playing(*turns, end=_wait)) as port:
        with pytest.raises(ConversationFailed, match="the server did not answer in time") as caught:
            async with open_greeter("127.0.0.1", port) as greeter:
                async for _ in greeter.greet_all(["Ada", "Grace"]):
                    pass
    assert caught.value.reason is EndReason.TIMED_OUT
    assert caught.value.unanswered == unanswered
    assert trio.current_time() == pytest.approx(10)


async def test_a_server_that_says_nothing(autojump_clock: MockClock) -> None:
    """Opening fails after the configured patience if there is no welcome."""
    autojump_clock.autojump_threshold = SETTLED
    async with scripted(_wait) as port:
        with pytest.raises(ConversationFailed, match="the server did not answer in time"):
            async with open_greeter("127.0.0.1", port, config=ClientConfig(reply_timeout=3)):
                pytest.fail("nobody has said a word")
    assert trio.current_time() == pytest.approx(3)


async def test_a_server_that_takes_nothing(autojump_clock: MockClock) -> None:
    """A server that stops reading and answering in the middle of many names fails the conversation, too."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"0\n")
        await peer.say(hello(b"0") + PROMPT)
        await trio.sleep(1000)

    greetings: list[str] = []
    names = ["0", *(f"{number:01000}" for number in range(12_000))]
    async with scripted(play) as port:
        with pytest.raises(ConversationFailed) as caught:
            async with open_greeter("127.0.0.1", port) as greeter:
                async for greeting in greeter.greet_all(names):
                    greetings.append(greeting)  # noqa: PERF401 - those before the exception count
    assert greetings == ["Hello 0!"]
    assert caught.value.reason is EndReason.TIMED_OUT
    assert len(caught.value.unanswered) == len(names) - 1
    assert trio.current_time() == pytest.approx(10)


async def test_a_refused_connection_raises() -> None:
    """Where nobody listens, opening raises OSError."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    with pytest.raises(OSError, match="connect") as caught:
        async with open_greeter("127.0.0.1", port):
            pytest.fail("nobody is there")
    cause = caught.value.__cause__  # Trio has the errors of all attempts there
    assert isinstance(cause, ExceptionGroup)
    attempts = [attempt for attempt in cause.exceptions if isinstance(attempt, OSError)]
    assert [attempt.errno for attempt in attempts] == [errno.ECONNREFUSED]


async def test_a_host_that_cannot_be_one_raises() -> None:
    """A host that IDNA does not allow raises OSError, as one that does not exist does."""
    with pytest.raises(OSError, match="host"):
        async with open_greeter("a..b"):
            pytest.fail("nobody is there")


# TLS and Unix sockets


def over_tls(script: Script, context: ssl.SSLContext) -> Script:
    """Return a script that is played over TLS."""

    async def play(peer: Peer) -> None:
        stream = TLSStream(peer.stream, context, server_side=True)
        with contextlib.suppress(Exception):  # the client says what went wrong
            await stream.do_handshake()
            await script(Peer(stream))

    return play


async def test_tls(tmp_path: Path) -> None:
    """With an SSL context the conversation goes over TLS, and ends in good order."""
    authority = Authority(tmp_path)
    said: list[bytes] = []

    async def hear_the_rest(peer: Peer) -> None:
        await peer.hear_all()
        said.append(peer.heard)

    script = over_tls(
        playing(ADA, EXIT, end=hear_the_rest), server_context(authority.issue("127.0.0.1"), None)
    )
    context = client_context(authority.path)
    async with (
        scripted(script) as port,
        open_greeter("127.0.0.1", port, ssl_context=context) as greeter,
    ):
        assert await greeter.greet("Ada") == "Hello Ada!"
    assert said == [b"Ada\nexit\n"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (_close, "the server hung up during the handshake"),
        (lambda peer: peer.say(WELCOME), "the server does not speak TLS on this port"),
        (None, "the server's certificate is not valid for"),
    ],
    ids=["hangs up", "plain", "another name"],
)
async def test_tls_that_fails(tmp_path: Path, script: Script | None, message: str) -> None:
    """A handshake that fails is a conversation that fails, in the words of TLS, and leaves nothing open."""
    authority = Authority(tmp_path)
    another = over_tls(_wait, server_context(authority.issue("other.example"), None))
    context = client_context(authority.path)
    async with nothing_left_open(), scripted(script or another) as port:
        with pytest.raises(ConversationFailed) as caught:
            async with open_greeter("127.0.0.1", port, ssl_context=context):
                pytest.fail("there is no TLS")
    assert str(caught.value).startswith("there is no TLS connection to the server: ")
    assert message in str(caught.value)
    assert caught.value.reason is EndReason.CONNECTION_LOST
    assert caught.value.unanswered == ()


async def test_a_handshake_that_stalls(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Connecting, TLS included, takes no longer than the reply timeout; OSError says so, and nothing is left open."""
    autojump_clock.autojump_threshold = SETTLED
    context = client_context(Authority(tmp_path).path)
    async with nothing_left_open(), scripted(_wait) as port:
        with pytest.raises(
            TimeoutError, match=r"cannot connect to 127\.0\.0\.1 port \d+ within 10 s"
        ):
            async with open_greeter("127.0.0.1", port, ssl_context=context):
                pytest.fail("there is no TLS")
        assert trio.current_time() == pytest.approx(10)


async def test_a_client_that_was_stopped_does_not_blame_the_server(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """If it notices long afterwards that the time for connecting is over, it connects once more."""
    authority = Authority(tmp_path)
    secure = over_tls(
        playing(ADA, EXIT, end=_close), server_context(authority.issue("localhost"), None)
    )
    came: list[Peer] = []

    async def play(peer: Peer) -> None:
        came.append(peer)
        await (_wait if len(came) == 1 else secure)(peer)

    async def ask() -> None:
        config = ClientConfig(framing=Framing.LINES)
        context = client_context(authority.path)
        async with open_greeter("localhost", port, config=config, ssl_context=context) as greeter:
            assert await greeter.greet("Ada") == "Hello Ada!"

    async with scripted(play) as port, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked(SETTLED)
        mock_clock.jump(15)
    assert len(came) == 2


async def test_unix_socket(tmp_path: Path) -> None:
    """A server at a Unix socket is opened by its path."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no Unix sockets")
    path = str(tmp_path / "greeter.sock")
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(path)
        listener.listen()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                near, _ = await listener.accept()
                async with trio.SocketStream(near) as stream:
                    await playing(ADA, EXIT, end=_wait)(Peer(stream))

            nursery.start_soon(serve)
            async with open_greeter(f"unix:{path}") as greeter:
                assert await greeter.greet("Ada") == "Hello Ada!"


# Asking and not waiting


async def test_greetings_that_nobody_waited_for_are_skipped() -> None:
    """After a `greet_all` that was left in the middle, `greet` returns its own greeting and not an older one."""
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        async for greeting in greeter.greet_all(["Ada", "Grace", "Edsger"]):
            assert greeting == "Hello Ada!"
            break
        assert await greeter.greet("Barbara") == "Hello Barbara!"
        await anext(greeter.greet_all(["one", "two"]))
        assert [greeting async for greeting in greeter.greet_all(["three", "four"])] == [
            "Hello three!",
            "Hello four!",
        ]


async def test_each_greet_waits_for_its_own_greeting(autojump_clock: MockClock) -> None:
    """Though greetings for names that were given up are still to come, a `greet` returns when its own has come."""
    autojump_clock.autojump_threshold = SETTLED
    names = ["Ada", "Grace", "Edsger", "Barbara", "Katherine"]

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        for name in names:
            await peer.expect(name.encode() + b"\n")
            await trio.sleep(1)
            await peer.say(hello(name.encode()) + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        await anext(greeter.greet_all(names[:3]))
        for number, name in enumerate(names[3:], 4):
            await greeter.greet(name)
            assert trio.current_time() == pytest.approx(number)


async def test_a_greet_that_was_given_up_is_no_obstacle(autojump_clock: MockClock) -> None:
    """After a `greet` that was cancelled while it waited, the next one gets the right answer."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await trio.sleep(2)
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\n")
        await peer.say(hello(b"Grace") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        with trio.move_on_after(1) as scope:
            await greeter.greet("Ada")
        assert scope.cancelled_caught
        assert await greeter.greet("Grace") == "Hello Grace!"


async def test_a_wait_for_a_greeting_that_was_given_up_loses_none(
    autojump_clock: MockClock,
) -> None:
    """An iteration over greetings that was cancelled while it waited goes on with the greeting that it waited for."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await trio.sleep(2)
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\n")
        await peer.say(hello(b"Grace") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        greetings = greeter.greet_all(["Ada", "Grace"])
        with trio.move_on_after(1) as scope:
            await anext(greetings)
        assert scope.cancelled_caught
        assert [greeting async for greeting in greetings] == ["Hello Ada!", "Hello Grace!"]


async def test_the_timeout_of_one_task_costs_no_other_its_conversation(
    autojump_clock: MockClock,
) -> None:
    """A `greet_all` that is cancelled while it sends leaves the rest to whoever greets next, and nothing is torn."""
    autojump_clock.autojump_threshold = SETTLED
    names = [f"{number:01000}" for number in range(20_000)]

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await trio.sleep(5)
        heard = bytearray()
        while not heard.endswith(b"Ada\n"):
            heard += await peer.stream.receive_some()
        lines = heard.decode().split()
        assert lines == [*names, "Ada"]
        await peer.say(b"".join(hello(line.encode()) + PROMPT for line in lines))
        await peer.say(GOODBYE)
        await peer.end()

    async with scripted(play) as port:
        config = ClientConfig(framing=Framing.LINES)
        async with open_greeter("127.0.0.1", port, config=config) as greeter:
            with trio.move_on_after(1) as scope:
                async for _ in greeter.greet_all(names):
                    pytest.fail("nobody answers")
            assert scope.cancelled_caught
            assert await greeter.greet("Ada") == "Hello Ada!"


async def test_a_stream_of_the_callers() -> None:
    """`open_greeter` takes a stream that is connected already, and closes it at the end of the block."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, ServerConnection(now=trio.current_time()), theirs)
        async with open_greeter(stream=ours) as greeter:
            assert await greeter.greet("Ada") == "Hello Ada!"
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


async def test_a_stream_of_the_callers_is_closed_when_the_block_fails() -> None:
    """However the block ends, the stream that `open_greeter` was given is closed."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(WELCOME + PROMPT)
    with pytest.raises(ZeroDivisionError):
        async with open_greeter(stream=ours):
            raise ZeroDivisionError
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


@pytest.mark.parametrize(
    "words", [[hello(b"Ada") + PROMPT], [hello(b"Ada"), PROMPT]], ids=["together", "apart"]
)
async def test_a_pause_between_greetings_is_not_the_servers_silence(
    autojump_clock: MockClock, words: list[bytes]
) -> None:
    """A caller may do something else for a minute: the server answered in time, even if nobody has looked yet."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        for word in words:
            await peer.say(word)
            await trio.sleep(0.02)
        await peer.expect(b"Grace\n")
        await peer.say(hello(b"Grace") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        assert await greeter.greet("Ada") == "Hello Ada!"
        await trio.sleep(60)
        assert await greeter.greet("Grace") == "Hello Grace!"


@pytest.mark.parametrize(
    "words", [[hello(b"Ada") + PROMPT], [hello(b"Ada"), PROMPT]], ids=["together", "apart"]
)
async def test_a_pause_before_the_end_is_not_the_servers_silence(
    autojump_clock: MockClock, words: list[bytes]
) -> None:
    """A block may take a minute after its last greeting, and still ends in good order."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        for word in words:
            await peer.say(word)
            await trio.sleep(0.02)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        assert await greeter.greet("Ada") == "Hello Ada!"
        await trio.sleep(60)


async def test_a_pause_after_a_greet_that_was_given_up(autojump_clock: MockClock) -> None:
    """An answer that came in time, while nobody waited for it, is found when the next name is asked a minute later."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await trio.sleep(2)
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\n")
        await peer.say(hello(b"Grace") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        with trio.move_on_after(1):
            await greeter.greet("Ada")
        await trio.sleep(60)
        assert await greeter.greet("Grace") == "Hello Grace!"


async def test_a_server_that_fell_silent_during_a_pause(autojump_clock: MockClock) -> None:
    """An answer that is overdue when the next name is asked is the server's failure, and no mistake of the caller."""
    autojump_clock.autojump_threshold = SETTLED
    async with greeter_of(playing((b"Ada\n", b""), end=_wait)) as greeter:
        with trio.move_on_after(1):
            await greeter.greet("Ada")
        await trio.sleep(60)
        with pytest.raises(ConversationFailed) as caught:
            await greeter.greet("Grace")
        assert caught.value.reason is EndReason.TIMED_OUT
        assert caught.value.unanswered[0] == "Ada"


# Many tasks, one greeter


async def test_many_tasks_may_greet_at_once() -> None:
    """Each of a hundred tasks that use one greeter at the same time gets its own greetings."""
    greetings: dict[int, list[str]] = {}

    async def use(number: int) -> None:
        greetings[number] = [await greeter.greet(f"{number} {turn}") for turn in range(5)]
        greetings[number] += [
            greeting async for greeting in greeter.greet_all([f"{number} a", f"{number} b"])
        ]

    async with (
        serving() as service,
        open_greeter("127.0.0.1", service.port) as greeter,
        trio.open_nursery() as nursery,
    ):
        for number in range(100):
            nursery.start_soon(use, number)
    assert greetings == {
        number: [f"Hello {number} {turn}!" for turn in (0, 1, 2, 3, 4, "a", "b")]
        for number in range(100)
    }


async def test_many_tasks_may_ask_for_much_at_once() -> None:
    """Names of several tasks are never mixed up, though more is asked than can be sent at once."""

    async def use(number: int) -> None:
        for turn in range(20):
            names = [f"{number} {turn} {index} {'x' * 900}" for index in range(100)]
            assert [greeting async for greeting in greeter.greet_all(names)] == [
                f"Hello {name}!" for name in names
            ]

    async with (
        serving() as service,
        open_greeter("127.0.0.1", service.port) as greeter,
        trio.open_nursery() as nursery,
    ):
        for number in range(5):
            nursery.start_soon(use, number)


async def test_a_task_need_not_wait_for_another_ones_answer() -> None:
    """A name goes out while another task waits for the greeting of an earlier one."""
    waiting = trio.Event()

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\n")
        waiting.set()
        await peer.expect(b"Edsger\n")
        await peer.say(hello(b"Grace") + PROMPT + hello(b"Edsger") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async with greeter_of(play) as greeter:
        await greeter.greet("Ada")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greeter.greet, "Grace")
            await waiting.wait()
            assert await greeter.greet("Edsger") == "Hello Edsger!"


async def test_a_task_that_gives_up_leaves_the_others_waiting(autojump_clock: MockClock) -> None:
    """When the task that moved the conversation forward is cancelled, another one takes over."""
    autojump_clock.autojump_threshold = SETTLED
    greetings: list[str] = []

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME + PROMPT)
        await peer.expect(b"Ada\n")
        await trio.sleep(3)
        await peer.say(hello(b"Ada") + PROMPT)
        await peer.expect(b"Grace\nEdsger\n")
        await peer.say(hello(b"Grace") + PROMPT + hello(b"Edsger") + PROMPT)
        await peer.expect(b"exit\n")
        await peer.say(GOODBYE)
        await peer.hear_all()

    async def greet(name: str, patience: float) -> None:
        with trio.move_on_after(patience):
            greetings.append(await greeter.greet(name))

    async with greeter_of(play) as greeter, trio.open_nursery() as nursery:
        for name, patience in (("Ada", 1), ("Grace", 9), ("Edsger", 9)):
            nursery.start_soon(greet, name, patience)
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(greetings) == ["Hello Edsger!", "Hello Grace!"]


async def test_a_failure_is_every_tasks(autojump_clock: MockClock) -> None:
    """When the conversation ends, each task that waits for a greeting gets the same reason."""
    autojump_clock.autojump_threshold = SETTLED
    reasons: list[EndReason] = []

    async def greet(name: str) -> None:
        with pytest.raises(ConversationFailed) as caught:
            await greeter.greet(name)
        assert caught.value.unanswered == ("Ada", "Grace", "Edsger")
        reasons.append(caught.value.reason)

    async def close_soon(peer: Peer) -> None:
        await trio.sleep(3)
        await peer.close()

    async with (
        greeter_of(playing((b"Ada\n", b""), end=close_soon)) as greeter,
        trio.open_nursery() as nursery,
    ):
        for name in ("Ada", "Grace", "Edsger"):
            nursery.start_soon(greet, name)
            await trio.testing.wait_all_tasks_blocked()
    assert reasons == [EndReason.EOF] * 3


# Against the original server


async def original_server(peer: Peer) -> None:
    """Take whatever one receive returns for one name, as the original does; each word is a send of its own."""
    await peer.say(WELCOME)
    while True:
        await trio.sleep(0.01)
        await peer.say(PROMPT)
        name = await peer.stream.receive_some(1024)
        if not name:
            break
        if name == b"exit":
            await peer.say(GOODBYE)
            break
        await peer.say(b"Hello %s!\n" % name)
    await peer.close()


async def test_the_original_server_is_understood(autojump_clock: MockClock) -> None:
    """A server that takes the newline for a part of the name is found out, and every greeting is right nevertheless."""
    autojump_clock.autojump_threshold = SETTLED
    async with greeter_of(original_server) as greeter:
        assert await greeter.greet("Ada") == "Hello Ada!"
        assert await greeter.greet("Grace") == "Hello Grace!"
        greetings = [greeting async for greeting in greeter.greet_all(["one", "two", "three"])]
    assert greetings == ["Hello one!", "Hello two!", "Hello three!"]


async def test_the_original_server_is_left_in_good_order(autojump_clock: MockClock) -> None:
    """An exit that the original server takes for a name is said again, and then it says goodbye."""
    autojump_clock.autojump_threshold = SETTLED
    async with greeter_of(original_server):
        pass


async def test_the_original_server_in_raw(autojump_clock: MockClock) -> None:
    """A client that was told what it deals with says bare names from the first."""
    autojump_clock.autojump_threshold = SETTLED
    async with greeter_of(original_server, ClientConfig(framing=Framing.RAW)) as greeter:
        assert await greeter.greet("Ada") == "Hello Ada!"


# Over any stream


async def test_a_reset_while_nobody_looks_is_noticed() -> None:
    """A connection that broke between two greetings fails the next one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as stream:
            greeter = Greeter(stream, ClientConfig(framing=Framing.LINES))
            far.sendall(WELCOME + PROMPT + hello(b"Ada") + PROMPT)
            assert await greeter.greet("Ada") == "Hello Ada!"
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            far.close()
            with pytest.raises(ConversationFailed) as caught:
                await greeter.greet("Grace")
    assert caught.value.reason is EndReason.CONNECTION_LOST
    assert caught.value.unanswered == ("Grace",)


async def test_leaving_while_other_tasks_greet() -> None:
    """A task that leaves the block says exit after the names of the others, who get their greetings first."""
    greetings: list[str] = []
    raw = ClientConfig(framing=Framing.RAW)  # so that it takes a while
    async with (
        serving(ServerConfig()) as service,
        trio.open_nursery() as nursery,
        open_greeter("127.0.0.1", service.port, config=raw) as greeter,
    ):

        async def greet(name: str) -> None:
            greetings.append(await greeter.greet(name))

        nursery.start_soon(greet, "Ada")
        nursery.start_soon(greet, "Grace")
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(greetings) == ["Hello Ada!", "Hello Grace!"]


async def test_each_greeting_is_a_checkpoint() -> None:
    """Greetings that have come already are still handed out one a checkpoint, so that others get their turn."""
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        greetings = greeter.greet_all(["Ada", "Grace", "Edsger"])
        for name in ("Ada", "Grace", "Edsger"):
            with trio.testing.assert_checkpoints():
                assert await anext(greetings) == f"Hello {name}!"


async def test_names_are_asked_at_once() -> None:
    """Names that are wrong are refused before anybody waits for a greeting, and so is one name instead of several."""
    async with serving() as service, open_greeter("127.0.0.1", service.port) as greeter:
        for names in (["Ada", ""], ["exit"], "Ada"):
            with pytest.raises(LocalProtocolError):
                greeter.greet_all(names)
