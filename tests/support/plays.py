r"""A small language for what a scripted peer does: `play(says(WELCOME), hears(b"Ada\\n"), ends())`.

A play is a sequence of steps, each a coroutine function that takes the peer. It is run by
`scripted` (over TCP, in place of a server) or `background` (over a pair of streams).
"""

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_trio._net.tls_contexts import client_context
from greeter_trio._net.tls_stream import HandshakeFailed, TLSStream

from .peers import Peer
from .words import GOODBYE, PROMPT, WELCOME, hello

Step: TypeAlias = Callable[[Peer], Awaitable[object]]


def play(*steps: Step) -> Step:
    """Return all these steps as one."""

    async def run(peer: Peer) -> None:
        for step in steps:
            await step(peer)

    return run


def says(*words: bytes) -> Step:
    """Send these words, each with a call of its own."""
    return play(*(lambda peer, word=word: peer.say(word) for word in words))


def hears(*words: bytes) -> Step:
    """Receive exactly these words, after those that were heard before."""
    return lambda peer: peer.expect(b"".join(words))


def hears_rest() -> Step:
    """Receive until the end of the stream."""
    return lambda peer: peer.hear_all()


def hears_end() -> Step:
    """Receive the end of the stream, and nothing before it."""
    return lambda peer: peer.expect_end()


def hears_reset() -> Step:
    """Receive until RST has come, also below TLS: the stream does not end in good order."""

    async def step(peer: Peer) -> None:
        try:
            await peer.hear_all()
        except trio.BrokenResourceError as exc:
            assert isinstance(exc.__cause__, ConnectionResetError), exc  # noqa: PT017 - any is raised
        else:
            raise AssertionError("the stream has ended in good order")

    return step


def after(seconds: float) -> Step:
    """Let this time pass (virtual time, if the clock is)."""
    return lambda _: trio.sleep(seconds)  # noqa: ASYNC105 - it is awaited by the play


def when(event: trio.Event) -> Step:
    return lambda _: event.wait()


def ends() -> Step:
    """Send the end of the stream."""
    return lambda peer: peer.end()


def closes() -> Step:
    return lambda peer: peer.close()


def resets() -> Step:
    async def step(peer: Peer) -> None:
        peer.reset()

    return step


def welcomes() -> Step:
    """As a server: say welcome, and ask for the first name."""
    return says(WELCOME + PROMPT)


def greets(*names: bytes) -> Step:
    """As a server: hear these names, one line after the other, and greet each of them."""
    turns = ((hears(name + b"\n"), says(hello(name) + PROMPT)) for name in names)
    return play(*(step for turn in turns for step in turn))


def hears_last(*words: bytes) -> Step:
    """Receive exactly these words and then the end, and close."""
    return play(hears(*words), hears_end(), closes())


def stops(clock: MockClock, seconds: float = 15) -> Step:
    """Let time pass without any task running, as if the process had been stopped."""

    async def step(_: Peer) -> None:
        await wait_all_tasks_blocked()
        clock.jump(seconds)
        await wait_all_tasks_blocked()

    return step


def over_tls(context: ssl.SSLContext, *steps: Step) -> Step:
    """As a server: play these steps over TLS, until the client hangs up."""

    async def step(peer: Peer) -> None:
        stream = TLSStream(peer.stream, context, server_side=True)
        with contextlib.suppress(HandshakeFailed, trio.BrokenResourceError):
            await stream.do_handshake()
            await play(*steps)(Peer(stream))

    return step


def settles() -> Step:
    """Wait until no other task can go on."""
    return lambda _: wait_all_tasks_blocked()


def conversation(*names: bytes | str) -> Step:
    """As a server: greet these names, which must come as lines, and then the client must go."""
    words = [name.encode() if isinstance(name, str) else name for name in names]
    goodbye = play(hears(b"exit\n"), says(GOODBYE), ends(), hears_end())
    return play(welcomes(), greets(*words), goodbye)


def secures(ca: str) -> Step:
    """As a client: do a TLS handshake, trusting this CA; all later steps go through TLS."""

    async def step(peer: Peer) -> None:
        context = client_context(ca)
        tls = TLSStream(peer.stream, context, server_side=False, server_hostname="localhost")
        await tls.do_handshake()
        peer.stream = tls

    return step


def says_for_long(data: bytes = b"Ada\n" * 1_000_000) -> Step:
    """Say this until nothing more is taken, because the answers are not read."""

    async def step(peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.say, data)
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()

    return step
