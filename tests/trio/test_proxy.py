"""The PROXY protocol (`_proxy.py`), against the specification's own words and numbers."""

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from greeter_trio._net.proxy import (
    Address,
    ProxyError,
    encode_v1,
    encode_v2,
    parse_header,
    receive_header,
)

from .helpers import Peer, tcp_pair, unix_pair

SIGNATURE = bytes.fromhex("0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A")
IPV4 = bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 23, 112])
IPV6 = (
    ipaddress.ip_address("2001:db8::1").packed
    + ipaddress.ip_address("2001:db8::2").packed
    + IPV4[8:]
)
UNIX = b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")
TLV = b"\x04\x00\x04abcd"  # PP2_TYPE_NOOP


def v2(
    rest: bytes = b"", *, command: int = 0x21, protocol: int = 0x11, length: int | None = None
) -> bytes:
    """Return a header of version 2, right or wrong."""
    return (
        SIGNATURE
        + struct.pack("!BBH", command, protocol, len(rest) if length is None else length)
        + rest
    )


FOUR = ("192.0.2.1", 1234)
SIX = ("2001:db8::1", 1234)

VALID: dict[str, tuple[bytes, Address | None]] = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000\r\n", FOUR),
    "v1 TCP4, longest": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ("255.255.255.255", 65535),
    ),
    "v1 TCP4, shortest": (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0)),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 6000\r\n", SIX),
    "v1 TCP6, in full": (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:0001 ::1 1234 6000\r\n", SIX),
    "v1 TCP6, longest": (
        b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        (":".join(["ffff"] * 8), 65535),
    ),
    "v1 TCP6, mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1234 6000\r\n",
        ("::ffff:192.0.2.1", 1234),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN, addresses": (b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1234 6000\r\n", None),
    "v1 UNKNOWN, longest": (b"PROXY UNKNOWN " + b"\xff" * 91 + b"\r\n", None),
    "v1 UNKNOWN, CR inside": (b"PROXY UNKNOWN \r \r\r\n", None),
    "v2 TCP4": (v2(IPV4), FOUR),
    "v2 TCP6": (v2(IPV6, protocol=0x21), SIX),
    "v2 TCP6, mapped": (
        v2(bytes(10) + b"\xff\xff\xc0\x00\x02\x01" + IPV6[16:], protocol=0x21),
        ("::ffff:192.0.2.1", 1234),
    ),
    "v2 UDP4": (v2(IPV4, protocol=0x12), None),
    "v2 UDP6": (v2(IPV6, protocol=0x22), None),
    "v2 Unix": (v2(UNIX, protocol=0x31), None),
    "v2 Unix datagram": (v2(UNIX, protocol=0x32), None),
    "v2 UNSPEC": (v2(protocol=0x00), None),
    "v2 UNSPEC, something": (v2(b"something", protocol=0x00), None),
    "v2 UNSPEC family": (v2(protocol=0x01), None),
    "v2 UNSPEC transport": (v2(IPV4, protocol=0x10), None),
    "v2 LOCAL": (v2(command=0x20, protocol=0x00), None),
    "v2 LOCAL, addresses": (v2(IPV4, command=0x20), None),
    "v2 LOCAL, family ignored": (v2(b"abc", command=0x20, protocol=0xFF), None),
    "v2 TLV": (v2(IPV4 + TLV), FOUR),
    "v2 TLV, longest": (v2(IPV4 + bytes(16384 - 16 - 12)), FOUR),
    "v2 TLV, cut off": (v2(IPV4 + TLV[:-1]), FOUR),
    "v2 TLV, less than one": (v2(IPV4 + TLV[:1]), FOUR),
    "v2 TLV, wrong checksum": (v2(IPV4 + b"\x03\x00\x04abcd"), FOUR),
}
valid = pytest.mark.parametrize(("header", "source"), VALID.values(), ids=VALID)

BAD_PORTS = [
    b"",
    b"65536",
    b"99999999999999999999",
    b"01234",
    b"00",
    b"+1",
    b"-1",
    b"-0",
    b"1_2",
    b"1.0",
    b"0x1",
]
BAD_PORTS += [b"\t1", b"1\t", b"\r1", b"1\r", b"\x0b1", b"http", b"\xd9\xa1"]

INVALID = {
    "v1 no protocol": b"PROXY \r\n",
    "v1 UDP": b"PROXY UDP4 192.0.2.1 192.0.2.2 1234 6000\r\n",
    "v1 lower case": b"PROXY tcp4 192.0.2.1 192.0.2.2 1234 6000\r\n",
    "v1 Unknown": b"PROXY UNKNOW\r\n",
    "v1 two spaces before the protocol": b"PROXY  TCP4 192.0.2.1 192.0.2.2 1234 6000\r\n",
    "v1 two spaces after it": b"PROXY TCP4  192.0.2.1 192.0.2.2 1234 6000\r\n",
    "v1 a tab": b"PROXY TCP4\t192.0.2.1 192.0.2.2 1234 6000\r\n",
    "v1 a space at the end": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000 \r\n",
    "v1 too many fields": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000 1\r\n",
    "v1 too few fields": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n",
    "v1 no addresses": b"PROXY TCP4\r\n",
    "v1 IPv6 in TCP4": b"PROXY TCP4 2001:db8::1 2001:db8::2 1234 6000\r\n",
    "v1 IPv4 in TCP6": b"PROXY TCP6 192.0.2.1 192.0.2.2 1234 6000\r\n",
    "v1 mixed": b"PROXY TCP4 192.0.2.1 2001:db8::2 1234 6000\r\n",
    "v1 leading zero in source": b"PROXY TCP4 192.0.02.1 192.0.2.2 1234 6000\r\n",
    "v1 leading zero in destination": b"PROXY TCP4 192.0.2.1 192.0.2.02 1234 6000\r\n",
    "v1 256": b"PROXY TCP4 192.0.2.256 192.0.2.2 1234 6000\r\n",
    "v1 three numbers": b"PROXY TCP4 192.0.2 192.0.2.2 1234 6000\r\n",
    "v1 a name": b"PROXY TCP4 localhost 192.0.2.2 1234 6000\r\n",
    "v1 a network": b"PROXY TCP4 192.0.2.1/24 192.0.2.2 1234 6000\r\n",
    "v1 digits of another script": "PROXY TCP4 192.0.2.\u0661 192.0.2.2 1234 6000\r\n".encode(),
    "v1 not UTF-8": b"PROXY TCP4 192.0.2.\xff 192.0.2.2 1234 6000\r\n",
    "v1 a scope in source": b"PROXY TCP6 fe80::1%eth0 fe80::2 1234 6000\r\n",
    "v1 a scope in destination": b"PROXY TCP6 fe80::1 fe80::2%1 1234 6000\r\n",
    "v1 two double colons": b"PROXY TCP6 2001::db8::1 2001:db8::2 1234 6000\r\n",
    "v1 five digits": b"PROXY TCP6 02001:db8::1 2001:db8::2 1234 6000\r\n",
    "v1 144 bits": b"PROXY TCP6 1:2:3:4:5:6:7:8:9 2001:db8::2 1234 6000\r\n",
    "v1 brackets": b"PROXY TCP6 [2001:db8::1] [2001:db8::2] 1234 6000\r\n",
    **{
        f"v1 ports {(ports % port)!r}": b"PROXY TCP4 192.0.2.1 192.0.2.2 %s\r\n" % (ports % port)
        for port in BAD_PORTS
        for ports in (b"%s 6000", b"1234 %s")
    },
    "v1 LF alone": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000\n",
    "v1 UNKNOWN, LF alone": b"PROXY UNKNOWN\n",
    "v1 UNKNOWN, LF inside": b"PROXY UNKNOWN \n \r\n",
    "v1 108 bytes": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1 no end": b"PROXY UNKNOWN " + b"x" * 93,
    "v2 version 1": v2(IPV4, command=0x11),
    "v2 version 3": v2(IPV4, command=0x31),
    "v2 command 2": v2(IPV4, command=0x22),
    "v2 command 15": v2(IPV4, command=0x2F),
    "v2 family 4": v2(UNIX, protocol=0x41),
    "v2 family 15": v2(UNIX, protocol=0xF1),
    "v2 transport 3": v2(IPV4, protocol=0x13),
    "v2 transport 15, UNSPEC family": v2(IPV4, protocol=0x0F),
    "v2 TCP4 too short": v2(IPV4[:-1]),
    "v2 TCP4 empty": v2(),
    "v2 TCP6 too short": v2(IPV6[:-1], protocol=0x21),
    "v2 UDP6 too short": v2(IPV6[:-1], protocol=0x22),
    "v2 Unix too short": v2(UNIX[:-1], protocol=0x31),
    "v2 too long": v2(IPV4 + bytes(16384 - 16 - 12 + 1)),
    "v2 too long for LOCAL": v2(command=0x20, protocol=0, length=65535),
    "HTTP": b"GET / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "a name": b"Ada\n",
    "empty lines": b"\r\n\r\n\r\n",
    "proxy": b"proxy TCP4 192.0.2.1 192.0.2.2 1234 6000\r\n",
    "PROXY with LF": b"PROXY\n",
}

# One of each form, short enough to try all that can be done to it.
SEEDS = [
    "v1 TCP4",
    "v1 TCP6",
    "v1 TCP6, mapped",
    "v1 UNKNOWN",
    "v1 UNKNOWN, addresses",
    "v2 TCP4",
    "v2 TCP6",
]
SEEDS += ["v2 UDP4", "v2 Unix", "v2 UNSPEC", "v2 LOCAL", "v2 LOCAL, addresses", "v2 TLV"]
seeds = pytest.mark.parametrize(("header", "source"), [VALID[name] for name in SEEDS], ids=SEEDS)


def mutants(header: bytes) -> Iterator[bytes]:
    """Yield the header with every other value at each of its bytes."""
    for at, right in enumerate(header):
        for byte in range(256):
            if byte != right:
                yield header[:at] + bytes([byte]) + header[at + 1 :]


Verdict: TypeAlias = tuple[int, Address | None] | Literal["invalid"] | None


def verdict(data: bytes) -> Verdict:
    """Return what `parse_header` makes of it."""
    try:
        return parse_header(data)
    except ProxyError:
        return "invalid"


def judge(data: bytes) -> Verdict:
    """Return what the specification makes of at least 15 bytes."""
    if data.startswith(b"PROXY "):
        return judge_v1(data)
    return judge_v2(data) if data.startswith(SIGNATURE) else "invalid"


def judge_v1(data: bytes) -> Verdict:
    """Return what section 2.1 makes of it, by other means: one pattern for the line, inet_pton(3) for the addresses."""
    if b"\n" not in data:
        return None if len(data) < 107 else "invalid"
    port = rb"(0|[1-9][0-9]{0,4})"
    pattern = rb"PROXY (?:UNKNOWN[^\n]*|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) %s %s)\r\n" % (
        port,
        port,
    )
    line = re.match(pattern, data)
    if not line or line.end() > 107:
        return "invalid"
    version, source, destination, *ports = line.groups()
    if version is None:
        return line.end(), None
    family = socket.AF_INET if version == b"4" else socket.AF_INET6
    try:
        packed = socket.inet_pton(family, source.decode())
        socket.inet_pton(family, destination.decode())
    except OSError:
        return "invalid"
    if max(map(int, ports)) > 65535:
        return "invalid"
    return line.end(), (socket.inet_ntop(family, packed), int(ports[0]))


def judge_v2(data: bytes) -> Verdict:
    """Return what the tables of section 2.2 make of it, and the limit of 16384 bytes, which is ours."""
    command, protocol = data[12:14]
    size = 16 + int.from_bytes(data[14:16], "big")
    if command not in (0x20, 0x21) or size > 16384:
        return "invalid"
    if command == 0x21 and (
        protocol >> 4 > 3 or protocol & 15 > 2 or size < [16, 28, 52, 232][protocol >> 4]
    ):
        return "invalid"
    if len(data) < size:
        return None
    match command, protocol:
        case 0x21, 0x11:
            return size, (
                socket.inet_ntop(socket.AF_INET, data[16:20]),
                int.from_bytes(data[24:26], "big"),
            )
        case 0x21, 0x21:
            return size, (
                socket.inet_ntop(socket.AF_INET6, data[16:32]),
                int.from_bytes(data[48:50], "big"),
            )
        case _:
            return size, None


# The pure part


@valid
def test_every_form(header: bytes, source: Address | None) -> None:
    """Every valid form is taken, and tells its source or that it has none."""
    assert parse_header(header) == (len(header), source)


@valid
def test_what_follows_is_no_part_of_the_header(header: bytes, source: Address | None) -> None:
    """The header's size does not depend on what follows, be it another header."""
    assert parse_header(header + b"Ada\r\nBob\n") == (len(header), source)
    assert parse_header(header + header) == (len(header), source)


@valid
def test_every_truncation_waits_for_more(header: bytes, source: Address | None) -> None:
    """As long as one byte is missing, nothing is known and nothing is wrong."""
    del source
    for size in range(len(header)):
        assert parse_header(header[:size]) is None


@pytest.mark.parametrize("header", INVALID.values(), ids=INVALID)
def test_what_the_specification_calls_invalid_is_refused(header: bytes) -> None:
    """Every deviation from the specification is refused, and no later than when all of it is there."""
    with pytest.raises(ProxyError):
        parse_header(header)


@seeds
def test_every_changed_byte(header: bytes, source: Address | None) -> None:
    """Whatever one byte is changed to, the answer is the specification's: a source, a refusal, or a wait for more."""
    assert judge(header) == (len(header), source)
    for mutant in mutants(header):
        assert verdict(mutant) == judge(mutant), mutant


@pytest.mark.parametrize("start", [b"PROXY ", SIGNATURE])
def test_the_first_wrong_byte_is_refused(start: bytes) -> None:
    """Each byte that differs from both beginnings of a header is refused at once, with no more bytes known."""
    for at in range(len(start)):
        allowed = {start[at]} | ({b"P"[0], b"\r"[0]} if at == 0 else set())
        for byte in range(256):
            data = start[:at] + bytes([byte])
            if byte in allowed:
                assert parse_header(data) is None
            else:
                with pytest.raises(ProxyError, match=r"^it sent no PROXY header but "):
                    parse_header(data)


def test_size_limits_are_exact() -> None:
    """A line without its end is refused with its byte 107, and a length beyond 16384 as soon as it is known."""
    line = b"PROXY UNKNOWN " + b"x" * 92
    assert parse_header(line) is None
    with pytest.raises(ProxyError, match="no CR LF within 107 bytes"):
        parse_header(line + b"x")
    assert parse_header(v2(length=16384 - 16)) is None
    with pytest.raises(ProxyError, match="at most 16384 bytes, not 16385"):
        parse_header(v2(length=16384 - 16 + 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\n", 'it sent no PROXY header but "GET / HTTP/1.1\\x0d\\x0a"'),
        (b"\x1b[2J", 'it sent no PROXY header but "\\x1b[2J"'),
        (b"\xff" * 100, 'it sent no PROXY header but "' + "\ufffd" * 40 + '"...'),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000\n",
            'its PROXY header must end in CR LF, not in LF alone: "PROXY TCP4 192.0.2.1 192.0.2.2 1234 6000"...',
        ),
        (
            b"PROXY TCP4 192.0.2.1 \x1b[2J 1234 6000\r\n",
            (
                'its PROXY header must be "PROXY TCP4|TCP6 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT" or '
                '"PROXY UNKNOWN", not "PROXY TCP4 192.0.2.1 \\x1b[2J 1234 6000"'
            ),
        ),
        (
            v2(command=0x31),
            "its PROXY header must have version and command 0x20 (LOCAL) or 0x21 (PROXY), not 0x31",
        ),
        (
            v2(protocol=0x4F),
            "its PROXY header must have family 0 to 3 and transport 0 to 2, not 4 and 15",
        ),
        (
            v2(IPV4, protocol=0x21),
            "its PROXY header must have 36 bytes for addresses of family 2, not 12",
        ),
    ],
)
def test_messages(data: bytes, message: str) -> None:
    """A message says what came and what is right, in one line, and can do a terminal no harm."""
    with pytest.raises(ProxyError) as caught:
        parse_header(data)
    assert str(caught.value) == message


# The encoders


@pytest.mark.parametrize(
    ("source", "destination", "v1", "binary"),
    [
        (FOUR, ("192.0.2.2", 6000), VALID["v1 TCP4"][0], VALID["v2 TCP4"][0]),
        ((*SIX, 0, 0), ("2001:db8::2", 6000, 0, 0), VALID["v1 TCP6"][0], VALID["v2 TCP6"][0]),
        (
            ("fe80::1%eth0", 1, 0, 2),
            ("fe80::2%eth0", 2, 0, 2),
            b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n",
            v2(b"\xfe\x80" + bytes(13) + b"\1\xfe\x80" + bytes(13) + b"\2\0\1\0\2", protocol=0x21),
        ),
        (
            ("::ffff:192.0.2.1", 1, 0, 0),
            ("::ffff:192.0.2.2", 2, 0, 0),
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n",
            v2(
                bytes(10) + b"\xff\xff\xc0\0\2\1" + bytes(10) + b"\xff\xff\xc0\0\2\2" + b"\0\1\0\2",
                protocol=0x21,
            ),
        ),
    ],
)
def test_encoded(source: object, destination: object, v1: bytes, binary: bytes) -> None:
    """Addresses of IPv4 and IPv6 become the specification's line and block, without scope."""
    assert encode_v1(source, destination) == v1
    assert encode_v2(source, destination) == binary


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("/run/a", "/run/b"),
        ("", ""),
        (b"\0abstract", ""),
        (None, None),
        (FOUR, (*SIX, 0, 0)),
        ((*SIX, 0, 0), FOUR),
        (FOUR, ""),
        (("localhost", 1), ("localhost", 2)),
        ((1, 2), (3, 4)),
    ],
)
def test_what_are_no_two_ip_addresses_is_unknown(source: object, destination: object) -> None:
    """Unix sockets' addresses, and whatever else is no pair of the same family, become UNKNOWN and LOCAL."""
    assert encode_v1(source, destination) == b"PROXY UNKNOWN\r\n"
    assert encode_v2(source, destination) == v2(command=0x20, protocol=0x00)


def socknames(version: Literal[4, 6], *more: int) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return a strategy for two socket addresses."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    hosts = st.ip_addresses(v=version).map(lambda ip: socket.inet_ntop(family, ip.packed))
    name = st.tuples(hosts, st.integers(0, 65535), *map(st.just, more))
    return st.tuples(name, name)


@settings(derandomize=True, deadline=None, database=None)
@given(st.one_of(socknames(4), socknames(6, 0, 0)), st.binary(max_size=20))
def test_round_trip(names: tuple[Any, ...], rest: bytes) -> None:
    """What an encoder wrote, the parser reads: the same source, in a header of the right size."""
    source, destination = names
    for encode in (encode_v1, encode_v2):
        header = encode(source, destination)
        assert parse_header(header + rest) == (len(header), source[:2])
    assert len(encode_v1(source, destination)) <= (104 if ":" in source[0] else 56)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses_of_real_sockets(host: str) -> None:
    """What `getsockname` and `getpeername` really return can be encoded, and comes back."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        for encode in (encode_v1, encode_v2):
            header = encode(client.getsockname(), client.getpeername())
            assert parse_header(header) == (len(header), client.getsockname()[:2])


# On a stream

Pair = tuple[trio.SocketStream, trio.SocketStream]
pairs = pytest.mark.parametrize("make", [unix_pair, tcp_pair])


@pairs
@valid
async def test_received_and_not_one_byte_more(
    header: bytes, source: Address | None, make: Callable[[], Pair]
) -> None:
    """The header is taken off the stream, and the conversation right behind it stays there."""
    left, right = make()
    async with left, right:
        await left.send_all(header + b"Ada\n")
        await left.send_eof()
        assert await receive_header(right) == source
        peer = Peer(right)
        await peer.hear_all()
        assert peer.heard == b"Ada\n"


@pairs
@seeds
async def test_received_byte_by_byte(
    header: bytes, source: Address | None, make: Callable[[], Pair]
) -> None:
    """A header that comes byte by byte is taken as it comes: while more is awaited, nothing keeps the task busy."""
    left, right = make()
    results: list[Address | None] = []

    async def receive() -> None:
        results.append(await receive_header(right))

    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for byte in header:
            await trio.testing.wait_all_tasks_blocked()  # for ever, if it was busy
            assert results == []
            await left.send_all(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked()
        assert results == [source]
        await left.send_all(b"Ada\n")
        assert await right.receive_some() == b"Ada\n"


@seeds
async def test_received_in_two_parts(header: bytes, source: Address | None) -> None:
    """Wherever a header is cut, and with the conversation behind it, it is taken and nothing else."""
    for at in range(1, len(header)):
        left, right = unix_pair()
        async with left, right:
            await left.send_all(header[:at])
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _(left: trio.SocketStream = left, rest: bytes = header[at:]) -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    await left.send_all(rest + b"Ada\n")

                assert await receive_header(right) == source
            assert await right.receive_some() == b"Ada\n"


@pairs
@seeds
async def test_the_stream_ends_inside(
    header: bytes, source: Address | None, make: Callable[[], Pair]
) -> None:
    """A stream that ends inside of a header is refused, and the message says so."""
    del source
    for size in {1, 5, 6, 12, len(header) - 1}:
        left, right = make()
        async with left, right:
            await left.send_all(header[:size])
            await left.send_eof()
            with pytest.raises(
                ProxyError, match=r"^it ended the stream within its PROXY header, after "
            ):
                await receive_header(right)


@pairs
async def test_the_stream_ends_before(make: Callable[[], Pair]) -> None:
    """A stream that ends without a byte is refused, and the message says so."""
    left, right = make()
    async with left, right:
        await left.send_eof()
        with pytest.raises(ProxyError, match=r"^it ended the stream and sent no PROXY header$"):
            await receive_header(right)


@pairs
async def test_what_is_no_header_is_refused_while_the_peer_waits(make: Callable[[], Pair]) -> None:
    """One wrong byte is enough: nobody waits for a second one."""
    left, right = make()
    async with left, right:
        await left.send_all(b"A")
        with pytest.raises(ProxyError, match=r'^it sent no PROXY header but "A"$'):
            await receive_header(right)


@pairs
async def test_a_line_that_never_ends(make: Callable[[], Pair]) -> None:
    """Of a megabyte without CR LF at most 107 bytes are taken before it is refused."""
    flood = b"PROXY UNKNOWN " + b"x" * 1_000_000
    left, right = make()
    async with right:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                async with left:
                    await left.send_all(flood)

            with pytest.raises(ProxyError, match="no CR LF within 107 bytes"):
                await receive_header(right)
            peer = Peer(right)
            await peer.hear_all()
        assert len(flood) - len(peer.heard) <= 107


async def test_a_line_that_drips_and_never_ends() -> None:
    """Byte by byte, such a line is refused with the byte 107, of which the first 106 are taken."""
    left, right = unix_pair()
    async with left, right, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            for byte in b"PROXY UNKNOWN".ljust(106, b"x"):
                await trio.testing.wait_all_tasks_blocked()
                await left.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
            await left.send_all(b"yz")

        with pytest.raises(ProxyError, match="no CR LF within 107 bytes"):
            await receive_header(right)
        assert await right.receive_some() == b"yz"


@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4"])
async def test_a_reset(begun: bytes) -> None:
    """A connection that is reset before its header is complete is broken, as Trio's own streams say it."""
    left, right = tcp_pair()
    async with left, right, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await left.send_all(begun)
            await trio.testing.wait_all_tasks_blocked()
            Peer(left).reset()

        with pytest.raises(trio.BrokenResourceError):
            await receive_header(right)


async def test_it_can_be_cancelled() -> None:
    """It has no time limit of its own, but is cancelled by the caller's."""
    left, right = unix_pair()
    async with left, right:
        await left.send_all(b"PROXY ")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()

                await receive_header(right)
        assert scope.cancelled_caught
