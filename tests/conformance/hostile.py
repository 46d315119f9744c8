"""Clients that are hostile, careless or slow, and what INTEGRATING.md demands of a server then."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, TypeAlias

import trio

from greeter_core import Framing, ServerConfig
from tests.support.originals import original_client
from tests.support.words import ADA, BOB, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello, too_long

from .checking import Check
from .peer import EARLY, PATIENCE, Fault, Peer, TooLateError, connected, excerpt
from .playing import MARGIN, Act, NotPlayableError, Script, Turn
from .socket_play import play
from .targets import Server

_CROWD: Final = 150  # clients; some systems allow a process 256 descriptors
_NAMES: Final = 100_000
_ORIGINALS: Final = 5  # at the same time
_SMALL: Final = 16384  # bytes, of buffers in the kernel
_LARGE: Final = 2**20  # bytes, likewise
_SLICE: Final = 65536  # bytes that are compared at once
_LONGEST_WAIT: Final = 5.0  # seconds that a check waits for a timeout of the server's
_TALKING: Final = 0.3  # seconds for which a client talks on
_BLOCK: Final = b"Ada\n" * 4096
_MOST_TAKEN: Final = 12 * 2**20  # bytes; more than the kernels keep of one direction
_MOST_MEMORY: Final = 32 * 2**20  # bytes; a server that answers without end needs much more
_LATE: Final = ServerConfig(quiet=0.25, idle_timeout=0.5)  # for a process that stands still

_LINES = (Framing.AUTO, Framing.LINES)
_NO_LINES = (Framing.AUTO, Framing.RAW)
_Run: TypeAlias = Callable[[Server], Awaitable[None]]


def hostile_checks(tolerance: float) -> Iterator[Check]:
    """Yield a check for each kind of client; deadlines may be missed by so many seconds."""
    yield _check("a half-close", "The end", _half_close)
    yield _check("the original client", "Reading", partial(_originals, pause=0.1), _NO_LINES)
    hurry = partial(_originals, pause=0.0)
    yield _check("the original client, in a hurry", "Reading", hurry, _NO_LINES)
    yield _check("one byte at a time", "Reading", _single_bytes)
    yield _check("a client that never reads", "Sending", _deaf)
    waiting = "a client that never reads, and has sent before it is accepted"
    yield _check(waiting, "Sending", _deaf_from_before, own_process=True)
    yield _check("a client that reads slowly", "Sending", _slow)
    yield _check(f"{_NAMES:,} names, piped", "Sending", _piped)
    yield _check("a client that talks on after exit", "The end", _after_exit)
    yield _check("a name that never ends", "The end", _endless_name, tuple(Framing))
    yield _check(f"{_CROWD} clients at once", "The loop", _crowd)
    for title, say, heard in _RESETS:
        run = partial(_reset, say=say, heard=heard)
        yield _check(f"a reset {title}", "When something goes wrong", run)
    idle = partial(_idle, tolerance=tolerance)
    yield _check("a client that says nothing", "Time", idle, tuple(Framing))
    yield _check("a shutdown", "When something goes wrong", _shutdown, own_process=True)
    late = "a process that stood still blames nobody"
    yield _check(late, "Read before you judge", _late, config=_LATE, own_process=True)


def _check(
    title: str, heading: str, run: _Run, framings: Sequence[Framing] = _LINES, **more: Any
) -> Check:
    async def run_if_usual(server: Server) -> None:
        if server.config.framing not in framings:
            raise NotPlayableError(f"the server's framing is {server.config.framing.value}")
        if server.config.max_name_size < 16 or server.config.max_lifetime < 60:
            raise NotPlayableError("the server's max_name_size or max_lifetime is small")
        await run(server)

    rule = f"INTEGRATING.md, {heading}"
    return Check(topic="hostile", title=title, rule=rule, run=run_if_usual, **more)


# What checks have in common


async def _together(*acts: Callable[[], Awaitable[object]]) -> None:
    """Do all of this at the same time; what goes wrong first ends the rest, and is raised."""
    raised: list[Exception] = []

    async def run(act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except Exception as exc:  # noqa: BLE001 - a nursery would wrap it in a group
            raised.append(exc)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for act in acts:
            nursery.start_soon(run, act)
    if raised:
        raise raised[0]


async def _meet(peer: Peer) -> None:
    """Be welcomed, greeted once, and asked again: then the framing is LINES."""
    await peer.say(b"Ada\n")
    await peer.hear(WELCOME + PROMPT + ADA + PROMPT)


async def _leave(peer: Peer) -> None:
    await peer.say(b"exit\n")
    await peer.hear(GOODBYE)
    await peer.hear_end()


async def _greet_one_more(server: Server) -> None:
    async with connected(server.address) as peer:
        await _meet(peer)
        await _leave(peer)


def _numbered(count: int) -> tuple[bytes, bytes]:
    """Return so many lines, and what a server says to them after it has welcomed the client."""
    names = [b"name%06d" % number for number in range(count)]
    words = PROMPT + b"".join(hello(name) + PROMPT for name in names)
    return b"".join(name + b"\n" for name in names), words


async def _hear_many(peer: Peer, words: bytes) -> None:
    for start in range(0, len(words), _SLICE):
        await peer.hear(words[start : start + _SLICE])


# The clients


async def _half_close(server: Server) -> None:
    async with connected(server.address) as peer:
        await peer.say(b"Ada\nBob")
        peer.end()
        await peer.hear(WELCOME + PROMPT + ADA + PROMPT + BOB)
        await peer.hear_end()


async def _originals(server: Server, pause: float) -> None:
    await _together(*[partial(_original, server, pause)] * _ORIGINALS)


async def _original(server: Server, pause: float) -> None:
    """Take what one `recv` returns for one word, and wait for the next one."""
    acted = trio.current_time()
    async with connected(server.address) as peer:
        for name, answer in original_client([b"Ada", b"Grace"]):
            if name:
                await trio.sleep(pause)
                acted = trio.current_time()
                await peer.say(name)
            heard = await peer.read(trio.current_time() + PATIENCE)
            late = trio.current_time() - acted >= server.config.pace
            if heard == answer + PROMPT and late:
                raise TooLateError("two words that have been sent apart were read together")
            if heard != answer:
                got = "nothing in time" if heard is None else excerpt(heard)
                raise Fault(f"{excerpt(answer)} in one recv", got)
        await peer.hear_end()


async def _single_bytes(server: Server) -> None:
    async with connected(server.address) as peer:
        await _meet(peer)
        for byte in b"Grace Hopper\r\n\nexit\n":
            await peer.say(bytes([byte]))
            await trio.sleep(0.001)
        await peer.hear(hello("Grace Hopper") + PROMPT + PROMPT + GOODBYE)
        await peer.hear_end()


async def _deaf(server: Server) -> None:
    """Send names and never read; meanwhile others are greeted."""
    if server.send_timeout is None:
        raise NotPlayableError("it takes longer than the time limit for sends (--send-timeout)")
    over = trio.Event()
    peak = server.process.peak_memory if server.process else None

    async def never_read() -> None:
        async with connected(server.address, receive_buffer=_SMALL, send_buffer=_SMALL) as peer:
            await _send_until_reset(peer, server.send_timeout or 0.0)
        over.set()

    async def be_greeted() -> None:
        async with connected(server.address) as peer:
            await _meet(peer)
            while not over.is_set():
                await peer.say(b"Ada\n")
                await peer.hear(ADA + PROMPT)
                await trio.sleep(0.05)
            await _leave(peer)

    await _together(never_read, be_greeted)
    if peak is not None and server.process:
        growth = (server.process.peak_memory or peak) - peak
        if growth > _MOST_MEMORY:
            wanted = f"at most {_MOST_MEMORY >> 20} MiB of memory for a client that never reads"
            raise Fault(wanted, f"{growth >> 20} MiB")


async def _deaf_from_before(server: Server) -> None:
    """Have names in the socket all the time, so that no read of the server's ever waits."""
    assert server.process
    assert server.send_timeout
    await server.process.stop()
    async with connected(server.address, receive_buffer=_SMALL, send_buffer=_LARGE) as peer:
        try:
            with trio.move_on_after(0.1):
                await peer.say(_BLOCK * 64)
        finally:
            server.process.go_on()
        await _send_until_reset(peer, server.send_timeout)


async def _send_until_reset(peer: Peer, send_timeout: float) -> None:
    """Send names until the server gives up; see that it stops reading before, and is patient."""
    limit = 2 * send_timeout + 1.0  # some count anew for each slice, or look from time to time
    taken = 0
    began = last = trio.current_time()
    try:
        while taken <= _MOST_TAKEN:
            with trio.move_on_at(last + limit) as scope:
                taken += await peer.say_some(_BLOCK[taken % 4 :])
                last = trio.current_time()
            if scope.cancelled_caught:
                wanted = f"a reset when nothing was taken for {send_timeout:g} s"
                raise Fault(wanted, f"none in {limit:g} s")
    except ConnectionError:
        if trio.current_time() < began + send_timeout - EARLY:
            got = f"a reset after {trio.current_time() - began:.3f} s"
            raise Fault(f"{send_timeout:g} s of patience with a blocked send", got) from None
    else:
        wanted = "that the server stops reading while its send is blocked"
        raise Fault(wanted, f"that it took {taken:,} bytes, and none were taken from it")


async def _slow(server: Server) -> None:
    """Read 64 KiB in a fifth of the time limit, for longer than that; then the rest at once."""
    if server.config.idle_timeout < 2 * _LONGEST_WAIT:  # exit comes long after the last name
        raise NotPlayableError("the server's idle_timeout is short")
    lines, words = _numbered(_NAMES)
    pause = (server.send_timeout or 1.0) / 20
    seconds = min(1.5 * (server.send_timeout or 1.0), _LONGEST_WAIT)

    async with connected(server.address, receive_buffer=_SMALL, send_buffer=_SMALL) as peer:

        async def read() -> None:
            await peer.hear(WELCOME)
            until, start = trio.current_time() + seconds, 0
            while trio.current_time() < until:
                await peer.hear(words[start : start + _SMALL])
                start += _SMALL
                await trio.sleep(pause)
            await _hear_many(peer, words[start:])

        await _together(partial(peer.say, lines), read)
        await _leave(peer)


async def _piped(server: Server) -> None:
    lines, words = _numbered(_NAMES)
    async with connected(server.address) as peer:

        async def send() -> None:
            await peer.say(lines)
            peer.end()

        await _together(send, partial(_hear_many, peer, WELCOME + words))
        await peer.hear_end()


async def _after_exit(server: Server) -> None:
    await _talk_on(server, b"exit\n", b"Bob\n" * 1024, GOODBYE)


async def _endless_name(server: Server) -> None:
    limit = server.config.max_name_size
    await _talk_on(server, b"x" * (limit + 1), b"x" * 4096, too_long(limit))


async def _talk_on(server: Server, first: bytes, more: bytes, last_word: bytes) -> None:
    """Go on sending after what ends the conversation: the last word comes, and no reset."""
    if server.config.linger < 2 * _TALKING:
        raise NotPlayableError("the server's linger is short")
    async with connected(server.address) as peer:

        async def talk() -> None:
            await peer.say(first)
            with trio.move_on_after(_TALKING):
                while True:
                    await peer.say(more)
                    await trio.sleep(0.005)
            peer.end()

        async def hear() -> None:
            await peer.hear(WELCOME + PROMPT + last_word)
            await peer.hear_end()

        await _together(talk, hear)


async def _crowd(server: Server) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(server.address)) for _ in range(_CROWD)]
        await _together(*(partial(_meet, peer) for peer in peers))
        await _together(*(partial(_leave, peer) for peer in peers))


_RESETS: Final = (
    ("at once", b"", b""),
    ("after WELCOME", b"", WELCOME),
    ("in a name", b"Ada\nGra", WELCOME + PROMPT + ADA + PROMPT),
    ("with unread answers", b"Ada\n" * 10_000, WELCOME),
    ("while the server lingers", b"exit\n", WELCOME + PROMPT + GOODBYE),
)
"""When to break the connection: after saying and hearing this."""


async def _reset(server: Server, say: bytes, heard: bytes) -> None:
    for _ in range(3):
        async with connected(server.address) as peer:
            await peer.say(say)
            await peer.hear(heard)
            peer.reset()
    await _greet_one_more(server)


async def _idle(server: Server, tolerance: float) -> None:
    config = server.config
    if not config.pace + MARGIN < config.idle_timeout < _LONGEST_WAIT:
        raise NotPlayableError("it takes an idle_timeout of less than 5 s; the corpus has such")
    asked = config.framing is Framing.LINES
    turns = [Turn(Act.CONNECT, 0.0, says=WELCOME + PROMPT if asked else WELCOME)]
    if not asked:
        turns.append(Turn(Act.WAIT, config.pace, says=PROMPT))
    turns.append(Turn(Act.WAIT, config.idle_timeout, says=TOO_SLOW, ends=True))
    if MARGIN < config.linger < _LONGEST_WAIT:
        turns.append(Turn(Act.WAIT, config.idle_timeout + config.linger, closes=True))
    await play(Script(config, tuple(turns)), server, tolerance=tolerance)


async def _shutdown(server: Server) -> None:
    """End in good order: names that have arrived are answered, before they were read or not."""
    assert server.process
    lines, words = _numbered(5000)
    many_lines, many_words = _numbered(150_000)
    async with AsyncExitStack() as stack:
        idle, half, unread, deaf = [
            await stack.enter_async_context(
                connected(server.address, receive_buffer=_SMALL, send_buffer=_SMALL)
            )
            for _ in range(4)
        ]
        await _meet(idle)
        await _meet(half)
        await half.say(b"Gra")
        with trio.move_on_after(0.3):
            await deaf.say(many_lines)
        await server.process.stop()
        try:
            await unread.say(lines)
            server.process.shut_down()
        finally:
            server.process.go_on()

        async def hear_all(peer: Peer, words: bytes) -> None:
            await _hear_many(peer, words)
            await peer.hear(GOODBYE)
            await peer.hear_end()

        await _together(
            partial(hear_all, idle, b""),
            partial(hear_all, half, b""),
            partial(hear_all, unread, WELCOME + words),
            partial(_hear_some, deaf, WELCOME + many_words),
        )


async def _hear_some(peer: Peer, words: bytes) -> None:
    """Hear the beginning of this, up to any name, and then goodbye."""
    heard = bytearray()
    while data := await peer.read(trio.current_time() + PATIENCE):
        heard += data
    if data is None:
        raise Fault("the end of the stream", "nothing in time")
    said = bytes(heard).removesuffix(GOODBYE)
    if len(said) == len(heard) or not said.endswith(PROMPT) or not words.startswith(said):
        raise Fault("greetings in order, and goodbye", f"... {excerpt(bytes(heard[-60:]))}")


async def _late(server: Server) -> None:
    """Say the rest of a name, and a name, while the process stands still, until both are late."""
    assert server.process
    quiet, idle = server.config.quiet, server.config.idle_timeout
    began = trio.current_time()
    async with connected(server.address) as half, connected(server.address) as silent:
        await half.hear(WELCOME + PROMPT)
        await silent.hear(WELCOME + PROMPT)
        said = trio.current_time()
        await half.say(b"Grace Hop")
        await trio.sleep(quiet / 5)
        await server.process.stop()
        try:
            if trio.current_time() > min(said + quiet, began + idle) - MARGIN:
                raise TooLateError("the process was stopped too late")
            await trio.sleep_until(trio.current_time() + quiet + idle)
            await half.say(b"per\n")
            await silent.say(b"Ada\n")
        finally:
            server.process.go_on()
        await half.hear(hello("Grace Hopper") + PROMPT)
        await silent.hear(ADA + PROMPT)
