"""The PROXY header and the TLS handshake before a conversation, and the time they may take."""

import contextlib
import ssl

import outcome
import pytest
import trio
from trio.testing import MockClock

from greeter_trio import Limits
from greeter_trio._net.proxy import encode_v2
from greeter_trio._net.tls_stream import TLSStream
from greeter_trio._service.handshake import Handshake
from greeter_trio._service.settings import Settings
from tests.support.certificates import Authority
from tests.support.peers import Peer
from tests.support.plays import Step, after, play, says, secures, stops
from tests.support.servers import HEADER, SOURCE
from tests.support.streams import sockets


class Attempt:
    """A handshake over Unix sockets, in which what is sent has arrived at once."""

    def __init__(
        self, tls: Authority | None = None, *, proxied: bool = True, seconds: float = 10
    ) -> None:
        context = tls.server() if tls else None
        limits = Limits(handshake_timeout=seconds)
        settings = Settings(limits=limits, ssl_context=context, proxy_protocol=proxied)
        self.ending, self.sources = trio.Event(), list[object]()
        self.sock, self.stream = sockets("Unix")
        self.handshake = Handshake(self.sock, settings, self.ending, self.sources.append)

    async def run(self, *script: Step) -> TLSStream | None:
        """Run it, with a client that plays this script."""
        with self.sock:
            async with self.stream, trio.open_nursery() as nursery:
                nursery.start_soon(play(*script), Peer(self.stream))
                result = await outcome.acapture(self.handshake.run)
                if isinstance(result, outcome.Error):
                    nursery.cancel_scope.cancel()
        return result.unwrap()


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (HEADER, SOURCE),
        (encode_v2(SOURCE, ("192.0.2.2", 6000)), SOURCE),
        (b"PROXY UNKNOWN\r\n", None),
        (encode_v2("", ""), None),
    ],
    ids=["version 1", "version 2", "version 1 without source", "version 2 without source"],
)
async def test_a_proxy_header_alone(header: bytes, source: object) -> None:
    it = Attempt()
    assert await it.run(says(header, b"Ada")) is None
    assert it.sources == [source]


@pytest.mark.parametrize("proxied", [False, True], ids=["alone", "after a PROXY header"])
async def test_a_tls_handshake(authority: Authority, *, proxied: bool) -> None:
    it, header = Attempt(authority, proxied=proxied), HEADER if proxied else b""
    assert await it.run(says(header[:9], header[9:]), secures(authority.path))
    assert it.sources == [SOURCE if proxied else None]


async def drips(client: Peer) -> None:
    for byte in HEADER + b"\x16" * 1000:
        await client.say(bytes([byte]))
        await trio.sleep(0.1)


@pytest.mark.parametrize(
    ("kind", "script", "awaited"),
    [
        ("PROXY", says(), "PROXY header"),
        ("PROXY", says(HEADER[:20]), "PROXY header"),
        ("PROXY TLS", drips, "PROXY header"),
        ("PROXY TLS", play(after(1), says(HEADER)), "TLS handshake"),
        ("TLS", says(), "TLS handshake"),
        ("TLS", play(after(2), says(b"\x16\x03\x01\x02\x00\x01\x00")), "TLS handshake"),
    ],
    ids=["no header", "part", "drips", "header alone", "no TLS", "part of TLS"],
)
async def test_header_and_handshake_share_one_timeout(
    autojump_clock: MockClock, authority: Authority, kind: str, script: Step, awaited: str
) -> None:
    it = Attempt(authority if "TLS" in kind else None, proxied="PROXY" in kind, seconds=4)
    with pytest.raises(trio.TooSlowError, match=rf"^no {awaited} within 4 s$"):
        await it.run(script)
    assert autojump_clock.current_time() == 4
    assert bool(it.sources) == (awaited == "TLS handshake")


@pytest.mark.parametrize(
    ("ends_at", "seconds", "over_at"),
    [(0, 10, 2), (1, 10, 3), (1, 1.5, 1.5)],
    ids=["before it began", "meanwhile", "short timeout"],
)
async def test_two_seconds_are_left_when_the_server_shuts_down(
    autojump_clock: MockClock, ends_at: float, seconds: float, over_at: float
) -> None:
    it = Attempt(seconds=seconds)

    async def shut_down(_: Peer) -> None:
        it.ending.set()
        it.handshake.cap()

    if not ends_at:
        await shut_down(Peer(it.stream))
    with pytest.raises(trio.TooSlowError, match=r"^no PROXY header before the end$"):
        await it.run(says(HEADER[:11]), after(ends_at), shut_down)
    assert autojump_clock.current_time() == over_at


# A server that was stopped, and notices a timeout long after it has passed


@pytest.mark.parametrize("kind", ["PROXY header", "TLS", "both"])
async def test_a_timeout_that_is_noticed_late_is_given_again(
    mock_clock: MockClock, authority: Authority, kind: str
) -> None:
    """What was done before it is not lost, neither the header nor a part of the TLS handshake."""
    header, secure = b"" if kind == "TLS" else HEADER, kind != "PROXY header"
    it, stop = Attempt(authority if secure else None, proxied=bool(header)), stops(mock_clock)
    tls = TLSStream(it.stream, authority.client(), server_side=False, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls._tls.do_handshake()
    hello = tls._outgoing.read() if secure else b""

    async def finish(_: Peer) -> None:
        if secure:
            await tls.do_handshake()

    parts = (header[:10], header[10:], hello[:100], hello[100:])
    steps = [step for part in parts for step in (says(part), stop)]
    assert bool(await it.run(*steps, finish)) == secure
    assert it.sources == [SOURCE if header else None]


async def test_the_time_left_at_shutdown_holds_after_a_late_timeout(mock_clock: MockClock) -> None:
    it = Attempt()
    it.ending.set()
    with pytest.raises(trio.TooSlowError, match=r"^no PROXY header before the end$"):
        await it.run(stops(mock_clock), stops(mock_clock, 2), stops(mock_clock, 1000))
    assert mock_clock.current_time() == 17
