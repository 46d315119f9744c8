"""TLS: the stream, what is said when a handshake fails, and what contexts allow."""

import contextlib
import datetime as dt
import re
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from trio.testing import check_half_closeable_stream, memory_stream_pair, wait_all_tasks_blocked

from greeter_core import (
    ClientConnection,
    ConversationEnded,
    EndReason,
    Greeted,
    ServerConnection,
)
from greeter_trio import drive
from greeter_trio._net.tls_contexts import client_context, server_context
from greeter_trio._net.tls_stream import HandshakeFailed, TLSStream, names_of
from greeter_trio._net.tls_words import Remedy, explain, remedy
from tests.support.certificates import Authority
from tests.support.clocks import cancel_when_blocked
from tests.support.connections import LINES, dialogue
from tests.support.descriptors import nothing_left_open
from tests.support.peers import EOF, Peer
from tests.support.plays import Step, closes, ends, hears, hears_end, hears_rest, play, resets, says
from tests.support.streams import Contexts, Ends, Tap, shake_hands, tcp_pair, tls_ends
from tests.support.words import ADA, PROMPT, WELCOME

HOST = "localhost"
MUCH = 20_000_000  # bytes, more than goes without waiting
Says: TypeAlias = tuple[str, str, Remedy | None, Remedy | None]
V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Polite(TLSStream):
    """Ends its stream before it closes it, as Trio's checks demand."""

    async def aclose(self) -> None:
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.send_eof()
        finally:
            await super().aclose()


class Scale(Tap):
    """Notes how much is sent or asked for at once, at most."""

    most = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.most = max(self.most, max_bytes or sys.maxsize)
        return await super().receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.most = max(self.most, len(data))
        await super().send_all(data)


async def receive(end: TLSStream, size: int) -> bytes:
    """Receive so many bytes, or more."""
    received = bytearray()
    while len(received) < size:
        received += await end.receive_some()
    return bytes(received)


@pytest.fixture(params=[V1_2, V1_3], ids=["1.2", "1.3"])
def contexts(authority: Authority, request: pytest.FixtureRequest) -> Contexts:
    client = authority.client()
    client.maximum_version = request.param
    return authority.server(), client


@pytest.fixture
async def tls(contexts: Contexts) -> AsyncIterator[Ends]:
    server, client = tls_ends(contexts, tcp_pair())
    async with server, client:
        await shake_hands(server, client)
        yield server, client


async def test_a_conversation(tls: Ends, contexts: Contexts) -> None:
    version = contexts[1].maximum_version.name.replace("_", ".")
    assert [end.version for end in tls] == [version, version]
    names, now = [b"name %d" % number for number in range(5000)], trio.current_time()
    server, client = ServerConnection(now=now), ClientConnection(now=now)
    heard: tuple[list[object], list[object]] = [], []
    client.send_names(names, now)
    client.send_exit(now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, server, tls[0], heard[0].append)
        nursery.start_soon(drive, client, tls[1], heard[1].append)
    assert [event.name for event in heard[1] if isinstance(event, Greeted)] == names
    assert heard[0][-1] == heard[1][-1] == ConversationEnded(EndReason.EXIT)


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        (play(says(b"Ada\nexit\n" + bytes(200_000)), hears_rest(), ends()), dialogue(b"Ada")),
        (play(says(b"Ada"), ends(), hears_rest()), WELCOME + PROMPT + ADA),
    ],
    ids=["more after exit than is read", "half-close"],
)
async def test_all_answers_arrive(tls: Ends, script: Step, answers: bytes) -> None:
    """A close would destroy the last of them (PROTOCOL.md, S8.3)."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, ServerConnection(LINES, now=trio.current_time()), tls[0])
        await script(peer := Peer(tls[1]))
    assert peer.heard == answers


async def test_it_passes_trios_checks(contexts: Contexts) -> None:
    async def make() -> Ends:
        ends = tls_ends(contexts, memory_stream_pair(), kind=Polite)
        await shake_hands(*ends)
        return ends

    await check_half_closeable_stream(make, None)


@pytest.mark.parametrize("first", [0, 1])
async def test_either_side_can_go_on_after_the_others_end(tls: Ends, first: int) -> None:
    """A receive goes on, too, that waits meanwhile. Below TLS the stream ends as well."""
    one, other = Peer(tls[first]), Peer(tls[1 - first])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play(hears(b"Grace"), hears_end(), hears_end()), one)
        await wait_all_tasks_blocked()
        await play(says(b"Ada"), ends())(one)
        await play(hears(b"Ada"), hears_end(), hears_end())(other)
        await hears_end()(Peer(tls[1 - first].transport_stream))
        await play(says(b"Grace"), ends())(other)


async def test_after_the_end_nothing_can_be_sent_and_all_be_received(tls: Ends) -> None:
    """Records that wait to be received, or the first part of one, survive `send_eof`."""
    server, client = tls
    numbers = [b"%d " % number for number in range(100)]
    await says(*numbers)(Peer(client))
    rest = await server.receive_some(1)
    for _ in range(2):  # to send the end again does nothing
        await server.send_eof()
        with pytest.raises(trio.ClosedResourceError, match="after the end"):
            await server.send_all(b"Ada")
    await play(says(b"end"), ends())(Peer(client))
    while chunk := await server.receive_some(7):
        assert len(chunk) <= 7
        rest += chunk
    assert rest == b"".join(numbers) + b"end"
    assert await client.receive_some() == EOF


@pytest.mark.parametrize("cut", [0, 1, 10])
async def test_an_end_without_close_notify_is_an_error(tls: Ends, cut: int) -> None:
    """Between records or within one, receiving raises, every time."""
    server, client = tls
    await client.send_all(b"Ada")
    record = await server.transport_stream.receive_some()
    await play(says(bytes(record[:cut])), ends())(Peer(client.transport_stream))
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match=r"^the client hung up without notice$"):
            await server.receive_some()


async def test_closing_does_not_wait_and_is_no_end(tls: Ends) -> None:
    """A send that is blocked ends; the peer gets an error after what was sent before."""
    server, client = tls

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await server.send_all(bytes(MUCH))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        await server.aclose()
    with pytest.raises(trio.BrokenResourceError, match=r"^the server hung up without notice$"):
        await receive(client, MUCH)


async def test_a_cancelled_receive_has_lost_nothing(tls: Ends) -> None:
    server, client = tls
    await client.send_all(b"Ada")
    for byte in bytes(await server.transport_stream.receive_some()):
        await cancel_when_blocked(server.receive_some)
        await client.transport_stream.send_all(bytes([byte]))
    with trio.CancelScope() as scope:
        scope.cancel()  # receiving is a checkpoint, even if something is there
        await server.receive_some()
    assert scope.cancelled_caught
    assert await server.receive_some() == b"Ada"


async def test_nothing_follows_a_cancelled_send_all(tls: Ends) -> None:
    server, client = tls
    await cancel_when_blocked(server.send_all, bytes(MUCH))
    for send in (partial(server.send_all, b"Ada"), server.send_eof):
        with pytest.raises(trio.BrokenResourceError, match="not known how much of it was sent"):
            await send()
    await client.send_all(b"Ada")
    assert await server.receive_some() == b"Ada"


async def test_send_some_goes_on_after_a_cancellation(tls: Ends) -> None:
    """Each call sends one record; the same data, with more behind, is not sent twice."""
    data, sent = memoryview(bytes(range(250)) * (MUCH // 250)), 0

    async def send(end: int) -> None:
        nonlocal sent
        while sent < end:
            sent += await tls[0].send_some(data[sent:end])

    await cancel_when_blocked(send, MUCH - 1)
    assert sent % 16384 == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, MUCH)
        assert await receive(tls[1], MUCH) == data


async def test_one_of_two_tasks_sends(tls: Ends) -> None:
    """Of two that begin at the same moment one sends all of its data, and the other must not."""
    data, refused = [b"A" * MUCH, b"B" * MUCH], []

    async def send(data: bytes) -> None:
        try:
            await tls[0].send_all(data)
        except trio.BusyResourceError:
            refused.append(data)

    async with trio.open_nursery() as nursery:
        for each in data:
            nursery.start_soon(send, each)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task is sending"):
            await tls[0].send_eof()
        assert sorted([await receive(tls[1], MUCH), *refused]) == data


@pytest.mark.parametrize("body", [b"\0\x20" + bytes(32), b"\0\5abcde"], ids=["long", "short"])
async def test_a_wrong_record_breaks_both_directions(tls: Ends, body: bytes) -> None:
    await tls[1].transport_stream.send_all(b"\x17\x03\x03" + body)
    for use in (tls[0].receive_some, tls[0].send_eof, partial(tls[0].send_all, b"Ada")):
        with pytest.raises(trio.BrokenResourceError, match=r"^[a-z ]+$"):
            await use()


async def test_buffers_stay_small(contexts: Contexts) -> None:
    """However much is sent or arrives at once, it goes through OpenSSL in single records."""
    left, right = map(Scale, memory_stream_pair())
    server, client = tls_ends(contexts, (left, right))
    await shake_hands(server, client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, bytes(100_000))
        assert await receive(client, 100_000) == bytes(100_000)
    assert 16384 < left.most < 17000
    assert right.most == 16384


async def test_a_peer_cannot_pile_up_answers(tls: Ends) -> None:
    """OpenSSL's own answers, which wait for the next send, are limited."""
    # as many requests for new keys leave there; no call of ssl makes one
    tls[0]._outgoing.write(bytes(16_385))
    with pytest.raises(trio.BrokenResourceError, match="asks for new keys again and again"):
        await tls[0].receive_some()


UNACCEPTED = "the client does not accept our certificate"
UNTRUSTED = "certificate is signed by no CA that is trusted here"
NO_TRUST = "does not trust the CA that signed our certificate"
INVALID = "the server's certificate is not valid"
LATE = "certificate has expired"
DEMANDS = "the server demands a certificate"
NO_CIPHER = "has no cipher in common with us"
OLD_ALERT_SAYS = f"the server {NO_CIPHER}, or demands a certificate"
TRUST, SHOW = Remedy.TRUST_CA, Remedy.SHOW_CERTIFICATE


@pytest.mark.parametrize("version", [V1_2, V1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("problem", "says"),
    [
        ("name", (UNACCEPTED, f"{INVALID} for 'example.org'", None, None)),
        ("address", (UNACCEPTED, f"{INVALID} for '127.0.0.1'", None, None)),
        ("early", (UNACCEPTED, f"{INVALID} yet; is this machine's clock right?", None, None)),
        ("late", (f"the client says that our {LATE}", f"the server's {LATE}", None, None)),
        ("server", (f"the client {NO_TRUST}", f"the server's {UNTRUSTED}", None, TRUST)),
        ("client", (f"the client's {UNTRUSTED}", f"the server {NO_TRUST}", TRUST, None)),
        ("none", ("the client showed no certificate", DEMANDS, None, SHOW)),
        ("cipher", (f"the client {NO_CIPHER}", OLD_ALERT_SAYS, None, SHOW)),
    ],
)
async def test_handshakes_that_fail(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion, problem: str, says: Says
) -> None:
    """With TLS 1.3 the client's part is over before the server has looked at its certificate."""
    foreign = Authority(tmp_path)
    issue = (foreign if problem == "server" else authority).ca.issue_cert
    if year := {"early": 2990, "late": 2000}.get(problem):
        first, last = (dt.datetime(year, month, 1, tzinfo=dt.UTC) for month in (1, 12))
        issue = partial(issue, not_before=first, not_after=last)
    client_ca = authority.path if problem in ("client", "none") else None
    shown = foreign.issue("client") if problem == "client" else None
    server = server_context(authority.save(issue(HOST)), None, client_ca)
    client = client_context(authority.path, shown)
    client.maximum_version = version
    if problem == "cipher":
        client.maximum_version = V1_2  # the ciphers of 1.3 cannot be chosen
        server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    failures: dict[TLSStream, Exception] = {}

    async def run(end: TLSStream) -> None:
        async with end:
            with pytest.raises((HandshakeFailed, trio.BrokenResourceError)) as caught:
                await play(lambda _: end.do_handshake(), hears_end())(Peer(end))
        failures[end] = caught.value

    host = {"name": "example.org", "address": "127.0.0.1"}.get(problem, HOST)
    ends = tls_ends((server, client), tcp_pair(), host)
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(run, end)
    if problem == "none" and version == V1_2:  # which has no better alert
        says = says[0], OLD_ALERT_SAYS, None, SHOW
    ours, theirs = failures[ends[0]], failures[ends[1]]
    found = explain(ours), explain(theirs), remedy(ours.__cause__), remedy(theirs.__cause__)
    assert found == says


async def test_a_client_certificate_and_the_systems_authorities(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL lets the environment say what the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", authority.path)
    server = server_context(authority.issue(HOST), None, authority.path)
    ends = tls_ends((server, client_context(None, authority.issue("client"))), tcp_pair())
    async with ends[0], ends[1]:
        await shake_hands(*ends)
        await ends[1].send_all(b"Ada")
        assert await ends[0].receive_some() == b"Ada"


# The beginning of a TLS 1.1 handshake (RFC 4346, 7.4.1.2), and the alert protocol_version
OLD_HELLO = b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x02" + bytes(32) + b"\0\0\x02\xc0\x09\x01\0"
OLD_ALERT = b"\x15\x03\x02\0\x02\x02\x46"
OTHER_VERSION = "speaks no TLS version that we do: 1.2 and newer"
HUNG_UP = "the client hung up during the handshake"


@pytest.mark.parametrize(
    ("peer_is_client", "script", "message", "answer"),
    [
        (True, says(OLD_HELLO), f"the client {OTHER_VERSION}", b"\x15\x03.\0\x02\x02\x46"),
        (True, says(b"A"), "the client does not speak TLS", b""),
        (True, says(bytes(100)), "the client does not speak TLS", b""),
        (False, says(OLD_ALERT), f"the server {OTHER_VERSION}", None),
        (False, says(WELCOME), "the server does not speak TLS on this port", None),
        (True, closes(), HUNG_UP, None),
        (True, resets(), HUNG_UP, None),
        (True, play(says(OLD_HELLO[:4]), closes()), HUNG_UP, None),
        (True, play(says(OLD_HELLO[:-1]), resets()), HUNG_UP, None),
    ],
    ids=range(9),
)
async def test_peers_that_speak_no_tls_that_we_do(
    contexts: Contexts, *, peer_is_client: bool, script: Step, message: str, answer: bytes | None
) -> None:
    """A client that has begun with TLS gets an alert, and any other one no answer."""
    pair = tcp_pair()
    peer, end = Peer(pair[peer_is_client]), tls_ends(contexts, pair)[not peer_is_client]
    await script(peer)
    with pytest.raises(HandshakeFailed, match=f"^{message}$") as caught:
        await end.do_handshake()
    assert explain(caught.value) == message
    assert end.version == ""
    await end.aclose()
    if answer is not None:
        await peer.hear_all()
        assert re.fullmatch(answer, peer.heard)
    await peer.close()


async def test_an_alert_that_cannot_be_sent(contexts: Contexts) -> None:
    """The failure is the same if the peer no longer listens to the alert."""
    left, right = memory_stream_pair()
    await right.send_all(OLD_HELLO)
    await right.receive_stream.aclose()
    with pytest.raises(HandshakeFailed, match=OTHER_VERSION):
        await TLSStream(left, contexts[0], server_side=True).do_handshake()


async def test_a_cancelled_handshake_can_be_repeated(contexts: Contexts) -> None:
    """Cancelled before anything has come, and while the answer to the hello is awaited."""
    async with nothing_left_open():
        server, client = ends = tls_ends(contexts, tcp_pair())
        for end in (server, client, server):
            await cancel_when_blocked(end.do_handshake)
            assert end.version == ""
        await shake_hands(*ends)
        await server.send_all(b"Ada")
        assert await receive(client, 3) == b"Ada"
        await server.aclose()
        await client.aclose()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("LENGTH_MISMATCH", "length mismatch"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "the peer gave up: internal error"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "the peer demands a certificate"),
        ("", "unknown error"),
    ],
)
def test_failures_in_plain_words(reason: str, words: str) -> None:
    """The system's own words come before those of the exception; for most, nothing helps."""
    error, broken = ssl.SSLError(1, "[SSL: ...] ... (_ssl.c:1006)"), trio.BrokenResourceError()
    error.reason, broken.__cause__ = reason, error
    assert explain(error) == explain(broken) == words
    broken = trio.BrokenResourceError("socket connection broken: [Errno 104]")
    assert explain(broken) == "socket connection broken: [Errno 104]"
    broken.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert explain(broken) == "Connection reset by peer"
    assert remedy(broken) is remedy(None) is None


def test_contexts_are_strict(authority: Authority) -> None:
    """TLS 1.2 and newer, no renegotiation, no resumption; the client checks the server."""
    server, client = server_context(authority.issue(HOST), None), client_context()
    assert all(each.options & ssl.OP_NO_RENEGOTIATION for each in (server, client))
    assert server.minimum_version == client.minimum_version == V1_2
    assert server.num_tickets == 0
    assert (server.verify_mode, client.verify_mode) == (ssl.CERT_NONE, ssl.CERT_REQUIRED)
    assert client.check_hostname


CIPHERS = """
ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-RSA-CHACHA20-POLY1305
"""
WEAK_CIPHERS = """
ECDHE-RSA-AES128-SHA256 ECDHE-RSA-AES256-SHA DHE-RSA-AES128-GCM-SHA256 AES128-GCM-SHA256
"""


@pytest.mark.parametrize("cipher", [*CIPHERS.split(), *WEAK_CIPHERS.split()])
async def test_ciphers_of_the_server(authority: Authority, cipher: str) -> None:
    """With TLS 1.2 they have forward secrecy, and authenticate what they encrypt."""
    cert = authority.ca.issue_cert(HOST, key_type=trustme.KeyType.RSA)
    client = authority.client()
    client.maximum_version = V1_2
    client.set_ciphers(cipher)
    ends = tls_ends((server_context(authority.save(cert), None), client), memory_stream_pair())
    if cipher in CIPHERS.split():
        await shake_hands(*ends)
        return
    failures = []

    async def run(end: TLSStream) -> None:
        with pytest.raises(HandshakeFailed) as caught:
            await end.do_handshake()
        failures.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(run, end)
    assert sorted(failures) == [f"the client {NO_CIPHER}", OLD_ALERT_SAYS]


async def test_the_server_keeps_no_sessions(contexts: Contexts) -> None:
    """Not even of conversations that ended as they should, with a client that would resume them."""
    for _ in range(3):
        ends = tls_ends(contexts, memory_stream_pair())
        await shake_hands(*ends)
        for end in ends:
            await end.send_eof()
        for end in ends:
            assert await end.receive_some() == EOF
            await end.aclose()
    assert contexts[0].session_stats()["number"] == 0


async def test_a_common_name_is_no_name_of_a_host(authority: Authority) -> None:
    cert = authority.save(authority.ca.issue_cert(common_name=HOST))
    contexts = server_context(cert, None), authority.client()
    ends = tls_ends(contexts, memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, ends[0].do_handshake)
        with pytest.raises(HandshakeFailed, match=f"^{INVALID} for 'localhost'$"):
            await ends[1].do_handshake()


async def fails(handshake: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(HandshakeFailed):
        await handshake()


NAMES = ("*.example.org", "127.0.0.1", "2001:db8::1", "example.com")
# a domain with an escape sequence, a URI, and an address of three bytes (RFC 5280, 4.2.1.6)
STRANGE = b"\x30\x11\x82\x04a\x1b[2\x86\x04a://\x87\x03abc"
UNDECODABLE = b"\x30\x06\x82\x04a\xff\xffb"


@pytest.mark.parametrize(
    ("extension", "names"),
    [
        (None, NAMES),
        (STRANGE, (r"a\x1b[2", "<invalid>")),
        (UNDECODABLE, ()),
    ],
    ids=["all kinds", "strange", "undecodable"],
)
async def test_names_of_a_server(
    authority: Authority, extension: bytes | None, names: tuple[str, ...]
) -> None:
    """They are found out with the context for which the name is wrong, which stays as strict."""
    cert = authority.issue(*NAMES)
    if extension is not None:
        key = rsa.generate_private_key(65537, 2048)
        san = x509.ObjectIdentifier("2.5.29.17")
        cert = authority.save_for(key, x509.UnrecognizedExtension(san, extension))
    client = authority.client()
    ends = tls_ends((server_context(cert, None), client), memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends[0].do_handshake)
        assert await names_of(ends[1].transport_stream, client, HOST) == names
    assert client.check_hostname
    with pytest.raises(trio.BrokenResourceError):
        await ends[0].receive_some()


async def test_names_that_nobody_vouches_for(authority: Authority, tmp_path: Path) -> None:
    client = Authority(tmp_path).client()
    ends = tls_ends((authority.server(), client), memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, ends[0].do_handshake)
        with pytest.raises(HandshakeFailed, match=UNTRUSTED):
            await names_of(ends[1].transport_stream, client, HOST)


async def test_names_of_a_peer_that_shows_no_certificate(tls: Ends) -> None:
    assert (tls[0].peer_names(), tls[1].peer_names()) == ((), (HOST,))
