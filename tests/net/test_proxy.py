"""The PROXY protocol against its specification (doc/proxy-protocol.txt of HAProxy)."""

import itertools
import re
import socket
import struct
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from typing import Literal, TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greeter_trio._net.proxy import Address, ProxyError, encode_v1, encode_v2, parse_header
from greeter_trio._net.proxy import receive_header as receive
from tests.support.peers import Peer
from tests.support.plays import Step, ends, play, resets, says, settles
from tests.support.streams import tcp_pair, unix_pair

SIGNATURE = bytes.fromhex("0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A")


def v1(*fields: bytes) -> bytes:
    return b"PROXY " + b" ".join(fields) + b"\r\n"


def v2(
    rest: bytes = b"", *, command: int = 0x21, protocol: int = 0x11, length: int | None = None
) -> bytes:
    length = len(rest) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, protocol, length) + rest


IPV4 = bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 23, 112])
IPV6 = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed + IPV4[8:]
MAPPED = IPv6Address("::ffff:192.0.2.1").packed + IPV6[16:]
UNIX = b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")
NOOP = b"\x04\x00\x04abcd"  # a TLV

FOUR, FOUR_2 = ("192.0.2.1", 1234), ("192.0.2.2", 6000)
SIX, SIX_2 = ("2001:db8::1", 1234), ("2001:db8::2", 6000)

TCP4 = [b"TCP4", b"192.0.2.1", b"192.0.2.2", b"1234", b"6000"]
TCP6 = [b"TCP6", b"2001:db8::1", b"2001:db8::2", b"1234", b"6000"]

# One of each form, short enough to try all that can be done to it
SHORT: dict[str, tuple[bytes, Address | None]] = {
    "v1 TCP4": (v1(*TCP4), FOUR),
    "v1 TCP6": (v1(*TCP6), SIX),
    "v1 TCP6, mapped": (v1(b"TCP6", b"::ffff:192.0.2.1", *TCP6[2:]), ("::ffff:192.0.2.1", 1234)),
    "v1 UNKNOWN": (v1(b"UNKNOWN"), None),
    "v1 UNKNOWN, addresses": (v1(b"UNKNOWN", *TCP4[1:]), None),
    "v2 TCP4": (v2(IPV4), FOUR),
    "v2 TCP6": (v2(IPV6, protocol=0x21), SIX),
    "v2 UDP4": (v2(IPV4, protocol=0x12), None),
    "v2 Unix": (v2(UNIX, protocol=0x31), None),
    "v2 UNSPEC": (v2(protocol=0x00), None),
    "v2 LOCAL": (v2(command=0x20, protocol=0x00), None),
    "v2 LOCAL, addresses": (v2(IPV4, command=0x20), None),
    "v2 TLV": (v2(IPV4 + NOOP), FOUR),
}
F8, HIGHEST = ":".join(["ffff"] * 8), ("255.255.255.255", 65535)
VALID = SHORT | {
    "v1 TCP4, longest": (v1(b"TCP4", *[b"255.255.255.255"] * 2, *[b"65535"] * 2), HIGHEST),
    "v1 TCP4, shortest": (v1(b"TCP4", b"0.0.0.0", b"0.0.0.0", b"0", b"0"), ("0.0.0.0", 0)),
    "v1 TCP6, longest": (v1(b"TCP6", *[F8.encode()] * 2, *[b"65535"] * 2), (F8, 65535)),
    "v1 TCP6, in full": (
        v1(b"TCP6", b"2001:0DB8:0:0:0:0:0:0001", b"::ffff:c000:202", *TCP6[3:]),
        SIX,
    ),
    "v1 UNKNOWN, longest": (v1(b"UNKNOWN", b"\xff" * 91), None),
    "v1 UNKNOWN, CR inside": (v1(b"UNKNOWN", b"\r", b"\r"), None),
    "v2 TCP6, mapped": (v2(MAPPED, protocol=0x21), ("::ffff:192.0.2.1", 1234)),
    "v2 UNSPEC, something": (v2(b"something", protocol=0x00), None),
    "v2 LOCAL, family ignored": (v2(b"abc", command=0x20, protocol=0xFF), None),
    "v2 TLV, longest": (v2(IPV4 + bytes(16384 - 16 - 12)), FOUR),
    "v2 TLV, less than one": (v2(IPV4 + NOOP[:1]), FOUR),
}
short = pytest.mark.parametrize(("header", "source"), SHORT.values(), ids=SHORT)
valid = pytest.mark.parametrize(("header", "source"), VALID.values(), ids=VALID)

PORTS = (
    b" 65536 99999999999999999999 01234 00 +1 -1 -0 1_2 1.0 0x1 \t1 1\t \r1 1\r \x0b1 a \xd9\xa1"
)
HOSTS4 = b" 2001:db8::1 192.0.02.1 192.0.2.256 192.0.2 localhost 192.0.2.1/24 192.0.2.\xd9\xa1 \xff"
HOSTS6 = b" 192.0.2.1 fe80::1%1 2001::db8::1 02001:db8::1 1:2:3:4:5:6:7:8:9 [2001:db8::1]"
WRONG_FIELDS = [
    *((TCP4, field, port) for field in (3, 4) for port in [*PORTS.split(b" "), b"1 ", b"1 1"]),
    *((TCP4, field, host) for field in (1, 2) for host in HOSTS4.split(b" ")),
    *((TCP6, field, host) for field in (1, 2) for host in HOSTS6.split(b" ")),
    *((TCP4, 0, name) for name in (b"", b"UDP4", b"tcp4", b"UNKNOW", b" TCP4", b"TCP4 ", b"\t")),
]
INVALID = [
    *(v1(*right[:field], value, *right[field + 1 :]) for right, field, value in WRONG_FIELDS),
    *(v1(*TCP4[:fields]) for fields in (0, 1, 4)),
    v1(*TCP4)[:-2] + b"\n",
    b"PROXY UNKNOWN\n",
    v1(b"UNKNOWN", b"\n", b""),
    v1(b"UNKNOWN", b"x" * 92),  # 108 bytes
    b"PROXY UNKNOWN " + b"x" * 93,  # 107, and no end
]


# The specification, as plainly as can be, and by other means than the product

Verdict: TypeAlias = tuple[int, Address | None] | Literal["invalid"] | None


def judge_v1(data: bytes) -> Verdict:
    """Return what section 2.1 makes of it: one pattern for the line, inet_pton(3) for the rest."""
    if b"\n" not in data:
        return None if len(data) < 107 else "invalid"
    addresses = rb"TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)"
    ports = rb" (0|[1-9][0-9]{0,4})" * 2
    line = re.match(rb"PROXY (?:UNKNOWN[^\n]*|%s%s)\r\n" % (addresses, ports), data)
    if not line or line.end() > 107:
        return "invalid"
    version, *hosts, port, other_port = line.groups()
    if version is None:
        return line.end(), None
    family = socket.AF_INET if version == b"4" else socket.AF_INET6
    try:
        packed, _ = (socket.inet_pton(family, host.decode()) for host in hosts)
    except OSError:
        return "invalid"
    if max(int(port), int(other_port)) > 65535:
        return "invalid"
    return line.end(), (socket.inet_ntop(family, packed), int(port))


def judge_v2(data: bytes) -> Verdict:
    """Return what the tables of section 2.2 make of it, and the limit of 16384 bytes."""
    command, protocol, length = struct.unpack_from("!BBH", data, 12)
    size, family = 16 + length, protocol >> 4
    if command not in (0x20, 0x21) or size > 16384:
        return "invalid"
    sizes = {0: 16, 1: 28, 2: 52, 3: 232}
    if command == 0x21 and (protocol & 15 > 2 or size < sizes.get(family, 99999)):
        return "invalid"
    if len(data) < size:
        return None
    for tcp, version, ip, port in ((0x11, socket.AF_INET, 4, 24), (0x21, socket.AF_INET6, 16, 48)):
        if (command, protocol) == (0x21, tcp):
            host = socket.inet_ntop(version, data[16 : 16 + ip])
            return size, (host, int.from_bytes(data[port : port + 2], "big"))
    return size, None


def judge(data: bytes) -> Verdict:
    """Return what the specification makes of at least 15 bytes."""
    if data.startswith(b"PROXY "):
        return judge_v1(data)
    return judge_v2(data) if data.startswith(SIGNATURE) else "invalid"


def verdict(data: bytes) -> Verdict:
    try:
        return parse_header(data)
    except ProxyError:
        return "invalid"


@valid
def test_valid_headers(header: bytes, source: Address | None) -> None:
    """What follows is no part of a header, be it another one; while a byte is missing, it waits."""
    for rest in (b"", b"Ada\r\nBob\n", header):
        assert parse_header(header + rest) == (len(header), source)
    for size in range(len(header)):
        assert parse_header(header[:size]) is None


@pytest.mark.parametrize("header", INVALID, ids=range(len(INVALID)))
def test_invalid_headers(header: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_header(header)


@short
def test_every_changed_byte(header: bytes, source: Address | None) -> None:
    """The answer is the specification's; a wrong beginning is refused with its first byte."""
    assert judge(header) == (len(header), source)
    for at, byte in itertools.product(range(len(header)), range(256)):
        changed = header[:at] + bytes([byte]) + header[at + 1 :]
        assert verdict(changed) == judge(changed), changed
        if 0 < at < (6 if header.startswith(b"P") else 12) and changed != header:
            assert verdict(changed[: at + 1]) == "invalid"


def test_size_limits_are_exact() -> None:
    """A line is refused with its byte 107, and a length as soon as it is known."""
    line = b"PROXY UNKNOWN " + b"x" * 92
    assert parse_header(line) is None
    with pytest.raises(ProxyError, match="no CR LF within 107 bytes"):
        parse_header(line + b"x")
    assert parse_header(v2(length=16384 - 16)) is None
    with pytest.raises(ProxyError, match="at most 16384 bytes, not 16385"):
        parse_header(v2(length=16384 - 16 + 1))


MUST = "its PROXY header must"
COMMANDS = "version and command 0x20 (LOCAL) or 0x21 (PROXY)"
FIELDS = '"PROXY TCP4|TCP6 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT" or "PROXY UNKNOWN"'
LF_ALONE = 'in CR LF, not in LF alone: "PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000"...'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\n", 'it sent no PROXY header but "GET / HTTP/1.1\\x0d\\x0a"'),
        (b"\xff" * 100, 'it sent no PROXY header but "' + "\ufffd" * 40 + '"...'),
        (v1(*TCP4)[:-2] + b"\n", f"{MUST} end {LF_ALONE}"),
        (v1(b"TCP4", b"\x1b[2J"), f'{MUST} be {FIELDS}, not "PROXY TCP4 \\x1b[2J"'),
        (v2(command=0x31), f"{MUST} have {COMMANDS}, not 0x31"),
        (v2(protocol=0x4F), f"{MUST} have family 0 to 3 and transport 0 to 2, not 4 and 15"),
        (v2(IPV4, protocol=0x21), f"{MUST} have 36 bytes for addresses of family 2, not 12"),
    ],
    ids=range(7),
)
def test_messages_can_be_shown(data: bytes, message: str) -> None:
    with pytest.raises(ProxyError) as caught:
        parse_header(data)
    assert str(caught.value) == message


def test_addresses_are_encoded_without_scope() -> None:
    six, six_2 = (*SIX, 0, 0), (*SIX_2, 0, 0)
    scoped, mapped = ("2001:db8::1%eth0", 1234, 0, 2), ("::ffff:192.0.2.1", 1234, 0, 0)
    pairs = (FOUR, FOUR_2), (six, six_2), (scoped, six_2), (mapped, six_2)
    names = "TCP4", "TCP6", "TCP6", "TCP6, mapped"
    for (here, there), name in zip(pairs, names, strict=True):
        assert encode_v1(here, there) == VALID[f"v1 {name}"][0]
        assert encode_v2(here, there) == VALID[f"v2 {name}"][0]


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        *[("/run/a", "/run/b"), ("", ""), (b"\0abstract", ""), (None, None), (FOUR, "")],
        *[(FOUR, (*SIX, 0, 0)), ((*SIX, 0, 0), FOUR), (("a", 1), ("a", 2)), ((1, 2), (3, 4))],
    ],
)
def test_other_addresses_are_unknown(source: object, destination: object) -> None:
    assert encode_v1(source, destination) == v1(b"UNKNOWN")
    assert encode_v2(source, destination) == v2(command=0x20, protocol=0x00)


def test_round_trip() -> None:
    """The parser reads what the encoders write, whatever follows."""
    four = [(host, port) for host in ("0.0.0.0", "1.2.3.4", HIGHEST[0]) for port in (0, 65535)]
    six = [(host, 1, 0, 0) for host in ("::", "::1", "1::", "1:0:0:2::3", "1:2:3:4:5:6:7:8", F8)]
    for here, there in (*itertools.permutations(four, 2), *itertools.permutations(six, 2)):
        for header in (encode_v1(here, there), encode_v2(here, there)):
            assert parse_header(header + b"PROXY ") == (len(header), here[:2])


Streams: TypeAlias = tuple[trio.SocketStream, trio.SocketStream]


@pytest.fixture(params=[unix_pair, tcp_pair])
async def streams(request: pytest.FixtureRequest) -> AsyncIterator[Streams]:
    left, right = request.param()
    async with left, right:
        yield left, right


@valid
async def test_not_one_byte_more_is_received(
    header: bytes, source: Address | None, streams: Streams
) -> None:
    left, right = streams
    await left.send_all(header + b"Ada\n")
    assert await receive(right) == source
    assert await right.receive_some() == b"Ada\n"


@short
async def test_byte_by_byte_with_cancellations(
    header: bytes, source: Address | None, streams: Streams
) -> None:
    """The caller keeps what was received; while more is awaited, nothing keeps the task busy."""
    (left, right), received = streams, bytearray()
    for byte in header[:-1]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, right, received)
            await wait_all_tasks_blocked()
            await left.send_all(bytes([byte]))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    await left.send_all(header[-1:] + b"Ada\n")
    assert await receive(right, received) == source
    assert await right.receive_some() == b"Ada\n"


ENDED = r"^it ended the stream within its PROXY header, after "


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (says(b"A"), r'^it sent no PROXY header but "A"$'),  # one wrong byte is enough
        (ends(), r"^it ended the stream and sent no PROXY header$"),
        (play(says(b"P"), ends()), ENDED),
        (play(says(v1(*TCP4)[:-1]), ends()), ENDED),
        (play(says(v2(IPV4)[:-1]), ends()), ENDED),
    ],
    ids=range(5),
)
async def test_no_header_is_received(script: Step, error: str, streams: Streams) -> None:
    await script(Peer(streams[0]))
    with pytest.raises(ProxyError, match=error):
        await receive(streams[1])


async def test_a_line_without_an_end_is_refused_with_its_byte_107() -> None:
    """Of what comes byte by byte the first 106 are taken."""
    left, right = unix_pair()
    drip = [
        step for byte in b"UNKNOWN".ljust(100, b"x") for step in (says(bytes([byte])), settles())
    ]
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(play(says(b"PROXY "), settles(), *drip, says(b"yz")), Peer(left))
        with pytest.raises(ProxyError, match="no CR LF within 107 bytes"):
            await receive(right)
        assert await right.receive_some() == b"yz"


@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4"])
async def test_a_reset_is_a_broken_connection(begun: bytes) -> None:
    left, right = tcp_pair()
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(play(says(begun), settles(), resets()), Peer(left))
        with pytest.raises(trio.BrokenResourceError):
            await receive(right)
