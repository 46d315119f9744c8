# ruff: noqa: ARG001 - a test gets the clock that it names as an argument, and need not touch it
"""TLS: contexts, the stream, and what is said when it fails (`_tls.py`)."""

import contextlib
import datetime as dt
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from greeter_core import (
    ClientConfig,
    ConversationEnded,
    EndReason,
    Framing,
    Greeted,
    ServerConfig,
)
from greeter_trio import drive
from greeter_trio._net.tls import (
    HandshakeFailed,
    TLSError,
    TLSStream,
    client_context,
    server_context,
)
from greeter_trio._net.tls_words import explain
from greeter_trio._net.transport import StreamTransport

from .certificates import Authority
from .helpers import (
    EOF,
    GOODBYE,
    LINES,
    PROMPT,
    WELCOME,
    Client,
    Connection,
    Peer,
    Server,
    StreamPair,
    dialogue,
    ending,
    hello,
    nothing_left_open,
    tcp_pair,
)

HOST = "localhost"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
streams = pytest.mark.parametrize("make", [tcp_pair, memory_stream_pair])

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
Limited = Callable[..., ssl.SSLContext]
Introduce = Callable[..., contextlib.AbstractAsyncContextManager["Party"]]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the CA that both sides trust."""
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def contexts(ours: Authority) -> Contexts:
    """Return contexts of a server and a client who get along."""
    return server_context(ours.issue(HOST), None), client_context(ours.path)


class Party:
    """A server and a client who are ready to shake hands."""

    def __init__(
        self,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        pair: StreamPair,
        host: str = HOST,
        kind: type[TLSStream] = TLSStream,
    ) -> None:
        self.transports = pair
        self.server = kind(pair[0], server, server_side=True)
        self.client = kind(pair[1], client, server_side=False, server_hostname=host)

    async def shake_hands(self) -> None:
        """Do the handshake of both."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.do_handshake)
            nursery.start_soon(self.client.do_handshake)

    async def fail(self) -> tuple[str, str]:
        """Do a handshake that fails; return what the server and what the client says of it.

        With TLS 1.3 the client's part is over before the server has looked at its certificate.
        """
        said = ["", ""]

        async def run(number: int, stream: TLSStream) -> None:
            async with stream:
                try:
                    await stream.do_handshake()
                    await stream.receive_some()
                except (HandshakeFailed, trio.BrokenResourceError) as exc:
                    said[number] = explain(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, 0, self.server)
            nursery.start_soon(run, 1, self.client)
        assert not any("ssl" in words.lower() or "_" in words for words in said)
        return said[0], said[1]


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def limited(request: pytest.FixtureRequest) -> Limited:
    """Return `client_context`, but for one version of TLS."""

    def make(*files: str | None) -> ssl.SSLContext:
        context = client_context(*files)
        context.maximum_version = request.param
        return context

    return make


@pytest.fixture
def introduce(contexts: Contexts, limited: Limited, ours: Authority) -> Introduce:
    """Return what makes a party over new streams, after the handshake; the end of the block closes both."""
    client = limited(ours.path)

    @contextlib.asynccontextmanager
    async def enter(make: Callable[[], StreamPair] = tcp_pair) -> AsyncIterator[Party]:
        party = Party(contexts[0], client, make())
        async with party.server, party.client:
            await party.shake_hands()
            yield party

    return enter


# Conversations


async def drive_both(one: Connection, other: Connection, party: Party) -> None:
    """Drive a server and a client, to the end of both."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, one, party.server)
        nursery.start_soon(drive, other, party.client)


@pytest.mark.parametrize("framing", [Framing.AUTO, Framing.LINES])
@streams
async def test_a_conversation(
    introduce: Introduce, make: Callable[[], StreamPair], framing: Framing
) -> None:
    """A driven client and a driven server have a whole conversation over TLS, to its end in good order."""
    names = [b"name %d" % number for number in range(5000)]
    async with introduce(make) as party:
        us = Client(ClientConfig(framing=framing), now=trio.current_time())
        them = Server(ServerConfig(framing=framing), now=trio.current_time())
        us.send_names(names, trio.current_time())
        us.send_exit(trio.current_time())
        await drive_both(them, us, party)
    events = us.kept
    assert [event.name for event in events if isinstance(event, Greeted)] == names
    assert events[-1] == ConversationEnded(EndReason.EXIT)
    assert ending(them) == ConversationEnded(EndReason.EXIT)


async def test_goodbye_arrives_though_much_is_unread(introduce: Introduce) -> None:
    """A client that says more after exit than anybody reads still gets GOODBYE, and the end of the stream."""
    async with introduce() as party, trio.open_nursery() as nursery:
        nursery.start_soon(drive, Server(LINES, now=trio.current_time()), party.server)
        peer = Peer(party.client)
        await peer.expect(WELCOME + PROMPT)
        await peer.say(b"Ada\nexit\n" + b"another name\n" * 16_000)
        await peer.hear_all()
        assert peer.heard == dialogue(b"Ada")
        await peer.end()


async def test_a_client_that_half_closes_gets_its_answers(introduce: Introduce) -> None:
    """The end of the client's stream ends the last name, and the answers still come, and then the server's end."""
    connection = Server(LINES, now=trio.current_time())
    async with introduce() as party, trio.open_nursery() as nursery:
        nursery.start_soon(drive, connection, party.server)
        peer = Peer(party.client)
        await peer.say(b"Ada\nGrace")
        await peer.end()
        await peer.hear_all()
    assert peer.heard == WELCOME + PROMPT + hello(b"Ada") + PROMPT + hello(b"Grace")
    assert ending(connection) == ConversationEnded(EndReason.EOF)


async def test_time_passes_as_without_tls(autojump_clock: MockClock, introduce: Introduce) -> None:
    """The timers of an undecided server, which cancel its receives, fire in time and harm nothing; so does linger."""
    connection = Server(ServerConfig(), now=trio.current_time())
    async with introduce(memory_stream_pair) as party, trio.open_nursery() as nursery:
        nursery.start_soon(drive, connection, party.server)
        peer = Peer(party.client)
        nursery.start_soon(peer.hear_all)
        await trio.sleep_until(3)
        await peer.say(b"Ada")
        await trio.sleep_until(4)
        await peer.say(b"exit")
    assert peer.chunks == [
        (0, WELCOME),
        (0.02, PROMPT),
        (3.02, hello(b"Ada")),
        (3.04, PROMPT),
        (4, GOODBYE),
        (4, EOF),
    ]
    assert trio.current_time() == pytest.approx(6)
    assert ending(connection) == ConversationEnded(EndReason.EXIT)


# The stream


async def test_it_is_a_stream_as_trio_wants_it(
    autojump_clock: MockClock, contexts: Contexts
) -> None:
    """It passes Trio's own checks of half-closeable streams, with an `aclose` that says the end as those demand."""

    async def make() -> tuple[TLSStream, TLSStream]:
        party = Party(*contexts, memory_stream_pair(), kind=Polite)
        await party.shake_hands()
        return party.server, party.client

    await check_half_closeable_stream(make, None)


class Polite(TLSStream):
    """Ends its stream before it closes it."""

    async def aclose(self) -> None:
        """Send the end of the stream, if that can be done, and close it."""
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.send_eof()
        finally:
            await super().aclose()


async def test_its_version_is_known_after_the_handshake(
    introduce: Introduce, limited: Limited
) -> None:
    """Both sides have the name of the version that was agreed on."""
    name = limited().maximum_version.name.replace("_", ".")
    async with introduce() as party:
        assert (party.server.version, party.client.version) == (name, name)


@streams
async def test_either_side_can_go_on_after_the_others_end(
    introduce: Introduce, make: Callable[[], StreamPair]
) -> None:
    """After one side's close_notify the other side can send, and its own close_notify comes after that."""
    for first, second in [("client", "server"), ("server", "client")]:
        async with introduce(make) as party:
            one, other = Peer(getattr(party, first)), Peer(getattr(party, second))
            await one.say(b"Ada")
            await one.end()
            await other.hear_all()
            assert other.heard == b"Ada"
            await other.say(b"Grace")
            await other.end()
            await one.hear_all()
            assert one.heard == b"Grace"
            assert await other.hear() == await one.hear() == EOF


async def test_the_end_is_sent_below_tls_too(introduce: Introduce) -> None:
    """`send_eof` half-closes the transport after close_notify, so that nothing on the path waits for more."""
    async with introduce() as party:
        await party.client.send_eof()
        received = b""
        while chunk := await party.transports[0].receive_some():
            received += chunk
        assert len(received) > 0


async def test_what_came_before_the_end_can_be_received_after_it(introduce: Introduce) -> None:
    """Records that wait to be received, or the first part of one, survive `send_eof`."""
    async with introduce(memory_stream_pair) as party:
        for number in range(100):
            await party.client.send_all(b"%d " % number)
        assert await party.server.receive_some(1) == b"0"
        await party.server.send_eof()
        await party.client.send_all(b"end")
        await party.client.send_eof()
        rest = b""
        while chunk := await party.server.receive_some(7):
            assert len(chunk) <= 7
            rest += chunk
        assert rest == b"".join(b"%d " % number for number in range(100))[1:] + b"end"
        assert await party.client.receive_some() == EOF


async def test_the_end_can_be_sent_while_a_receive_waits(introduce: Introduce) -> None:
    """A receive that waits gets what comes after `send_eof` was called."""
    heard = []
    async with introduce() as party, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            heard.append(await party.server.receive_some())

        await wait_all_tasks_blocked()
        await party.server.send_eof()
        await party.client.send_all(b"Ada")
    assert heard == [b"Ada"]


@pytest.mark.parametrize("cut", [0, 1, 10])
async def test_an_end_without_notice_is_no_end(introduce: Introduce, cut: int) -> None:
    """Where the transport ends without close_notify, between records or within one, receiving raises, every time."""
    async with introduce(memory_stream_pair) as party:
        left, right = party.transports
        await party.client.send_all(b"Ada")
        record = await left.receive_some()
        await right.send_all(record[:cut])
        await right.send_eof()
        for _ in range(2):
            with pytest.raises(
                trio.BrokenResourceError, match=r"^the client hung up without notice$"
            ):
                await party.server.receive_some()


async def test_closing_is_no_end(introduce: Introduce) -> None:
    """`aclose` alone sends no close_notify: to the peer it looks as what it is, something cut short."""
    async with introduce() as party:
        await party.server.aclose()
        with pytest.raises(trio.BrokenResourceError, match=r"^the server hung up without notice$"):
            await party.client.receive_some()


async def test_closing_does_not_wait(introduce: Introduce) -> None:
    """`aclose` returns even where the peer takes nothing and a send is blocked, which it ends."""
    async with introduce() as party, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await party.server.send_all(bytes(50_000_000))

        await wait_all_tasks_blocked()
        await party.server.aclose()


async def test_a_cancelled_receive_has_lost_nothing(
    autojump_clock: MockClock, introduce: Introduce
) -> None:
    """A receive that is cancelled within a record leaves its first part for the next one."""
    async with introduce(memory_stream_pair) as party:
        left, right = party.transports
        await party.client.send_all(b"Ada")
        record = await left.receive_some()
        for byte in record[:-1]:
            await right.send_all(bytes([byte]))
            with trio.move_on_after(1) as scope:
                await party.server.receive_some()
            assert scope.cancelled_caught
        await right.send_all(record[-1:])
        assert await party.server.receive_some() == b"Ada"


async def test_a_receive_cancelled_at_once_has_taken_nothing(introduce: Introduce) -> None:
    """To receive is a checkpoint, even if something is there."""
    async with introduce() as party:
        await party.client.send_all(b"Ada")
        with trio.CancelScope() as scope:
            scope.cancel()
            await party.server.receive_some()
        assert scope.cancelled_caught
        assert await party.server.receive_some() == b"Ada"


async def test_nothing_follows_a_cancelled_send(introduce: Introduce) -> None:
    """After a send that was cancelled half-way nothing can be sent, not even the end; receiving still works."""
    async with introduce() as party:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(party.server.send_all, bytes(50_000_000))
                await wait_all_tasks_blocked()
                scope.cancel()
        with pytest.raises(trio.BrokenResourceError, match="nobody knows"):
            await party.server.send_all(b"Ada")
        with pytest.raises(trio.BrokenResourceError, match="nobody knows"):
            await party.server.send_eof()
        await party.client.send_all(b"Ada")
        assert await party.server.receive_some() == b"Ada"


async def test_one_task_sends(introduce: Introduce) -> None:
    """A second task that sends is told so, and the first one's data arrives whole."""
    data = bytes(itertools.islice(itertools.cycle(range(251)), 20_000_000))
    async with introduce() as party, trio.open_nursery() as nursery:
        nursery.start_soon(party.server.send_all, data)
        await wait_all_tasks_blocked()
        for send in (partial(party.server.send_all, b"Ada"), party.server.send_eof):
            with pytest.raises(trio.BusyResourceError, match="another task is sending"):
                await send()
        received = bytearray()
        while len(received) < len(data):
            received += await party.client.receive_some()
        assert received == data


async def test_two_tasks_that_begin_to_send_at_once(introduce: Introduce) -> None:
    """Of two tasks that begin at the same moment one sends, all of it, and the other one is told so."""
    async with introduce() as party:
        busy: list[bytes] = []

        async def send(data: bytes) -> None:
            try:
                await party.server.send_all(data)
            except trio.BusyResourceError:
                busy.append(data)

        size = 20_000_000  # more than goes without waiting
        data = [b"A" * size, b"B" * size]
        async with trio.open_nursery() as nursery:
            for each in data:
                nursery.start_soon(send, each)
            received = bytearray()
            while len(received) < size:
                received += await party.client.receive_some()
    assert sorted([bytes(received), *busy]) == data


async def test_nothing_can_be_sent_after_the_end(introduce: Introduce) -> None:
    """Sending after `send_eof` is a mistake; to send the end again does nothing."""
    async with introduce() as party:
        await party.server.send_eof()
        with pytest.raises(trio.ClosedResourceError, match="after the end"):
            await party.server.send_all(b"Ada")
        await party.server.send_eof()
        assert await party.client.receive_some() == EOF


async def test_nonsense_instead_of_a_record_breaks_it(introduce: Introduce) -> None:
    """What cannot be decrypted is an error of the connection, explained in words."""
    async with introduce(memory_stream_pair) as party:
        await party.transports[1].send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await party.server.receive_some()
        assert explain(caught.value) in (
            "decryption failed or bad record mac",  # OpenSSL 3.0
            "record layer failure",  # OpenSSL 3.6
        )
        for use in (partial(party.server.send_all, b"Ada"), party.server.send_eof):
            with pytest.raises(trio.BrokenResourceError):
                await use()


async def test_a_broken_connection_has_no_end(introduce: Introduce) -> None:
    """After nonsense from the peer there is nothing to say goodbye with, and the exception has a message."""
    async with introduce() as party:
        await party.transports[1].send_all(b"\x17\x03\x03\x00\x05abcde")
        for call in (party.server.receive_some, party.server.send_eof):
            with pytest.raises(trio.BrokenResourceError, match=r"\w"):
                await call()


async def test_buffers_stay_small(introduce: Introduce) -> None:
    """However much is sent or arrives at once, it goes through OpenSSL's buffers in single records."""
    sizes = set()

    class Scale(trio.abc.HalfCloseableStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            sizes.add(len(data))
            await trio.lowlevel.checkpoint()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            sizes.add(max_bytes or 65536)
            await trio.lowlevel.checkpoint()
            return b""

        async def wait_send_all_might_not_block(self) -> None:
            raise NotImplementedError

        async def send_eof(self) -> None:
            raise NotImplementedError

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async with introduce() as party:
        transport, party.server.transport_stream = party.server.transport_stream, Scale()
        party.server._transport = StreamTransport(party.server.transport_stream)
        async with transport:
            await party.server.send_all(bytes(1_000_000))
            with pytest.raises(trio.BrokenResourceError):
                await party.server.receive_some()
    assert 16384 <= max(sizes) < 17000


async def test_a_peer_cannot_pile_up_answers(introduce: Introduce) -> None:
    """OpenSSL's own answers, which wait for the next send, are limited."""
    async with introduce(memory_stream_pair) as party:
        # as many requests for new keys leave there; no call of ssl makes one
        party.server._outgoing.write(bytes(16_385))
        with pytest.raises(trio.BrokenResourceError, match="asks for new keys again and again"):
            await party.server.receive_some()


# Handshakes that fail


@streams
async def test_a_certificate_for_another_host(
    contexts: Contexts, limited: Limited, ours: Authority, make: Callable[[], StreamPair]
) -> None:
    """The client says for which host the certificate is not valid, and the server that it was not accepted."""
    for host in ("example.org", "127.0.0.1"):
        party = Party(contexts[0], limited(ours.path), make(), host)
        assert await party.fail() == (
            "the client does not accept our certificate",
            f"the server's certificate is not valid for '{host}'",
        )


@pytest.mark.parametrize(
    ("year", "server_says", "client_says"),
    [
        (
            2000,
            "the client says that our certificate has expired",
            "the server's certificate has expired",
        ),
        (
            2990,
            "the client does not accept our certificate",
            "the server's certificate is not valid yet; is this machine's clock right?",
        ),
    ],
)
async def test_a_certificate_out_of_time(
    limited: Limited, ours: Authority, year: int, server_says: str, client_says: str
) -> None:
    """A server's certificate that has expired, or will be valid only later, is told from all other faults."""
    first, last = dt.datetime(year, 1, 1), dt.datetime(year, 12, 31)  # noqa: DTZ001 - trustme takes them for UTC
    server = server_context(
        ours.save(ours.ca.issue_cert(HOST, not_before=first, not_after=last)), None
    )
    assert await Party(server, limited(ours.path), tcp_pair()).fail() == (server_says, client_says)


async def test_a_certificate_of_an_unknown_authority(
    limited: Limited, ours: Authority, foreign: Authority
) -> None:
    """A server whose CA the client does not know is refused, with the option that would change that."""
    server = server_context(foreign.issue(HOST), None)
    for ca in (ours.path, None):
        assert await Party(server, limited(ca), tcp_pair()).fail() == (
            "the client does not trust the CA that signed our certificate",
            "the server's certificate is signed by no CA that is trusted here (--ca)",
        )


async def test_the_systems_authorities(
    contexts: Contexts, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a CA's file the client trusts what the system trusts, which OpenSSL lets the environment say."""
    monkeypatch.setenv("SSL_CERT_FILE", ours.path)
    party = Party(contexts[0], client_context(), tcp_pair())
    async with party.server, party.client:
        await party.shake_hands()


async def test_a_client_certificate_is_missing(limited: Limited, ours: Authority) -> None:
    """A client without the certificate that is demanded is told so, as clearly as the version of TLS can."""
    server = server_context(ours.issue(HOST), None, ours.path)
    client = limited(ours.path)
    server_says, client_says = await Party(server, client, tcp_pair()).fail()
    assert server_says == "the client showed no certificate"
    if client.maximum_version == ssl.TLSVersion.TLSv1_3:
        assert client_says == "the server demands a client certificate (--cert, --key)"
    else:
        assert client_says == (
            "the server has no cipher in common with us, or demands a client certificate (--cert, --key)"
        )


async def test_a_client_certificate_of_a_foreign_authority(
    limited: Limited, ours: Authority, foreign: Authority
) -> None:
    """A client certificate that another CA signed is refused, and both sides say why."""
    server = server_context(ours.issue(HOST), None, ours.path)
    client = limited(ours.path, foreign.issue("somebody"))
    assert await Party(server, client, tcp_pair()).fail() == (
        "the client's certificate is signed by no CA that is trusted here (--tls-client-ca)",
        "the server does not trust the CA that signed our certificate",
    )


async def test_a_client_certificate_is_accepted(limited: Limited, ours: Authority) -> None:
    """A client certificate that the right CA signed is what the server wants."""
    server = server_context(ours.issue(HOST), None, ours.path)
    party = Party(server, limited(ours.path, ours.issue("somebody")), tcp_pair())
    async with party.server, party.client:
        await party.shake_hands()
        await party.client.send_all(b"Ada")
        assert await party.server.receive_some() == b"Ada"


async def test_no_cipher_in_common(ours: Authority) -> None:
    """A client and a server whose ciphers differ find that out."""
    server, client = server_context(ours.issue(HOST), None), client_context(ours.path)
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # the ciphers of 1.3 cannot be chosen
    server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    assert await Party(server, client, tcp_pair()).fail() == (
        "the client has no cipher in common with us",
        "the server has no cipher in common with us, or demands a client certificate (--cert, --key)",
    )


OLD_HELLO = (
    b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x02" + bytes(32) + b"\x00\x00\x02\xc0\x09\x01\x00"
)
"""The beginning of a TLS 1.1 handshake (RFC 4346, 7.4.1.2), as a client says it."""

OLD_ALERT = b"\x15\x03\x02\x00\x02\x02\x46"
"""The alert protocol_version, as a server says it."""


async def handshake_with(
    words: bytes, context: ssl.SSLContext, *, server_side: bool
) -> tuple[str, bytes]:
    """Do a handshake with somebody who says just this; return what it fails with, and what was answered."""
    left, right = memory_stream_pair()
    await right.send_all(words)
    stream = TLSStream(
        left, context, server_side=server_side, server_hostname=None if server_side else HOST
    )
    with pytest.raises(HandshakeFailed) as caught:
        await stream.do_handshake()
    assert stream.version == ""
    await stream.aclose()
    answer = b""
    while chunk := await right.receive_some():
        answer += chunk
    assert explain(caught.value) == str(caught.value)
    return explain(caught.value), answer


async def test_an_older_version(contexts: Contexts) -> None:
    """TLS 1.1 is refused by an alert that says so, and understood when it is refused by the other side."""
    said, answer = await handshake_with(OLD_HELLO, contexts[0], server_side=True)
    assert said == "the client speaks no TLS version that we do: 1.2 and newer"
    assert (answer[0], answer[-2:]) == (0x15, OLD_ALERT[-2:])
    said, _ = await handshake_with(OLD_ALERT, contexts[1], server_side=False)
    assert said == "the server speaks no TLS version that we do: 1.2 and newer"


@pytest.mark.parametrize("words", [b"A", b"Ada\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100])
async def test_no_tls_at_all(words: bytes, contexts: Contexts) -> None:
    """A client that says anything else is found out by its first byte, and not answered."""
    assert await handshake_with(words, contexts[0], server_side=True) == (
        "the client does not speak TLS",
        b"",
    )


async def test_tls_to_a_plain_port(contexts: Contexts) -> None:
    """A client that shakes hands with a server without TLS says that it is one."""
    left, right = tcp_pair()
    client = TLSStream(right, contexts[1], server_side=False, server_hostname=HOST)
    async with left, client, trio.open_nursery() as nursery:
        nursery.start_soon(drive, Server(LINES, now=trio.current_time()), left)
        with pytest.raises(HandshakeFailed, match=r"^the server does not speak TLS on this port$"):
            await client.do_handshake()
        await client.aclose()


@pytest.mark.parametrize("words", [b"", OLD_HELLO[:4], OLD_HELLO[:-1]])
async def test_a_peer_that_hangs_up(words: bytes, contexts: Contexts) -> None:
    """A peer that goes away during the handshake, whether in order or by reset, is no mystery."""
    for leave in (Peer.close, Peer.reset):
        left, right = tcp_pair()
        peer, stream = Peer(right), TLSStream(left, contexts[0], server_side=True)
        await peer.say(words)
        if leave is Peer.reset:
            peer.reset()
        else:
            await peer.close()
        async with stream:
            with pytest.raises(HandshakeFailed, match=r"^the client hung up during the handshake$"):
                await stream.do_handshake()


async def test_an_alert_that_cannot_be_sent(contexts: Contexts) -> None:
    """What is said of a failed handshake stays the same if the peer no longer listens to the alert."""
    left, right = memory_stream_pair()
    await right.send_all(OLD_HELLO)
    await right.receive_stream.aclose()
    with pytest.raises(HandshakeFailed, match="no TLS version"):
        await TLSStream(left, contexts[0], server_side=True).do_handshake()


async def test_a_stalled_handshake(autojump_clock: MockClock, contexts: Contexts) -> None:
    """A handshake with somebody silent lasts as long as the caller lets it; cancelled, it leaves nothing behind."""
    for words in (b"", OLD_HELLO[:7]):
        left, right = memory_stream_pair()
        await right.send_all(words)
        start = trio.current_time()
        async with TLSStream(left, contexts[0], server_side=True) as stream:
            with trio.move_on_after(5) as scope:
                await stream.do_handshake()
            assert scope.cancelled_caught
        assert trio.current_time() == start + 5
        assert await right.receive_some() == EOF


async def test_no_descriptor_stays_open(contexts: Contexts) -> None:
    """Nothing is left open after a stalled handshake over TCP."""
    async with nothing_left_open():
        left, right = tcp_pair()
        async with (
            right,
            TLSStream(left, contexts[0], server_side=True) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(stream.do_handshake)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


# Words


def test_unknown_reasons_become_plain_words() -> None:
    """Of an error that is not in the tables the reason's own words are left, and nothing of its form."""
    error = ssl.SSLError(1, "[SSL: LENGTH_MISMATCH] length mismatch (_ssl.c:1006)")
    error.reason = "LENGTH_MISMATCH"
    assert explain(error) == "length mismatch"
    error.reason = "TLSV1_ALERT_INTERNAL_ERROR"
    assert explain(error) == "the peer gave up: internal error"
    assert explain(ssl.SSLError(1, "[SSL] internals (_ssl.c:1006)")) == "unknown error"


def test_other_streams_failures_are_explained() -> None:
    """Of a stream that broke below TLS the system's own words are told, or else the exception's."""
    broken = trio.BrokenResourceError("socket connection broken: [Errno 104]")
    assert explain(broken) == "socket connection broken: [Errno 104]"
    broken.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert explain(broken) == "Connection reset by peer"


def test_a_bare_cause_is_explained() -> None:
    """A broken stream that has no words of its own is explained by the TLS error that caused it."""
    broken, error = trio.BrokenResourceError(), ssl.SSLError(1, "[SSL: …] … (_ssl.c:2580)")
    error.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    broken.__cause__ = error
    assert explain(broken) == "the server demands a client certificate (--cert, --key)"


# Contexts


def key_and_certificate(ours: Authority, folder: Path) -> tuple[Path, Path]:
    """Return a certificate's file, and that of its key."""
    leaf = ours.ca.issue_cert(HOST)
    cert, key = folder / "cert.pem", folder / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    return cert, key


def refusal(cert: Path, key: Path | None) -> str:
    """Return what is said of files that cannot be used, which is the same for both roles."""
    said = []
    for make in (server_context, partial(client_context, None)):
        with pytest.raises(TLSError) as caught:
            make(str(cert), str(key) if key else None)
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def test_the_rules_are_strict(contexts: Contexts) -> None:
    """Both roles speak TLS 1.2 and newer, never renegotiate, offer no resumption, and check whom they must."""
    assert all(context.options & ssl.OP_NO_RENEGOTIATION for context in contexts)
    assert contexts[0].num_tickets == 0
    assert [context.minimum_version for context in contexts] == [ssl.TLSVersion.TLSv1_2] * 2
    assert [context.verify_mode for context in contexts] == [ssl.CERT_NONE, ssl.CERT_REQUIRED]
    assert contexts[1].check_hostname


def test_a_key_in_a_file_of_its_own(ours: Authority, tmp_path: Path) -> None:
    """The key may be in another file than the certificate."""
    cert, key = key_and_certificate(ours, tmp_path)
    server_context(str(cert), str(key))
    client_context(None, str(cert), str(key))


def test_files_that_cannot_be_read(ours: Authority, tmp_path: Path) -> None:
    """A file that is missing or no file is named, whichever of the two it is."""
    cert, key = key_and_certificate(ours, tmp_path)
    missing = tmp_path / "missing.pem"
    assert refusal(missing, key) == f"{missing}: No such file or directory"
    assert refusal(missing, None) == f"{missing}: No such file or directory"
    assert refusal(cert, missing) == f"{missing}: No such file or directory"
    assert refusal(tmp_path, key) == f"{tmp_path}: Is a directory"


def test_files_that_hold_something_else(ours: Authority, tmp_path: Path) -> None:
    """A file without what it is given for is named, with what is missing in it."""
    cert, key = key_and_certificate(ours, tmp_path)
    assert refusal(key, key) == f"{key}: there is no certificate in it; it must be a PEM file"
    assert refusal(cert, cert) == f"{cert}: there is no private key in it; it must be a PEM file"
    assert refusal(cert, None) == f"{cert}: there is no private key in it; it must be a PEM file"


def test_a_key_of_another_certificate(ours: Authority, tmp_path: Path) -> None:
    """A key that does not belong to the certificate is told from one that cannot be read."""
    cert, _ = key_and_certificate(ours, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, key = key_and_certificate(ours, other)
    assert refusal(cert, key) == f"{key}: this is not the key of the certificate in {cert}"


def test_an_encrypted_key(ours: Authority, tmp_path: Path) -> None:
    """An encrypted key is refused, and nobody is asked for a passphrase at the terminal."""
    cert, key = key_and_certificate(ours, tmp_path)
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    assert refusal(cert, key).startswith(
        f"{key}: the key is encrypted; decrypt it with `openssl pkey"
    )


def test_a_damaged_file(ours: Authority, tmp_path: Path) -> None:
    """A file that looks right and is not is named, with OpenSSL's reason in words."""
    cert, key = key_and_certificate(ours, tmp_path)
    lines = cert.read_bytes().splitlines(keepends=True)
    cert.write_bytes(b"".join([lines[0], b"!" * 64 + b"\n", *lines[2:]]))
    said = refusal(cert, key)
    assert said.startswith(f"{cert} or {key}: OpenSSL cannot read it (")
    assert "ssl.c" not in said


def test_authorities_that_cannot_be_read(ours: Authority, tmp_path: Path) -> None:
    """A CA's file that cannot be used is named, by both roles."""
    cert, key = key_and_certificate(ours, tmp_path)
    missing = tmp_path / "missing.pem"
    for path, why in [
        (missing, "No such file or directory"),
        (key, "there is no certificate in it; it must be a PEM file"),
    ]:
        for make in (client_context, partial(server_context, str(cert), str(key))):
            with pytest.raises(TLSError) as caught:
                make(str(path))
            assert str(caught.value) == f"{path}: {why}"


def test_damaged_authorities(tmp_path: Path) -> None:
    """A CA's file that looks right and is not is named."""
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    with pytest.raises(TLSError) as caught:
        client_context(str(path))
    assert str(caught.value).startswith(f"{path}: OpenSSL cannot read it (")


def test_a_key_without_a_certificate() -> None:
    """A client that is given only a key is told what is missing."""
    with pytest.raises(TLSError, match=r"^key\.pem: a key is of no use without its certificate$"):
        client_context(None, None, "key.pem")
