"""The PROXY protocol, versions 1 and 2: the address of the client for which a proxy connects.

Source: "The PROXY protocol, Versions 1 & 2", doc/proxy-protocol.txt of HAProxy. The header comes
before anything else, and whether there is one is configured, never guessed: otherwise every client
could choose its address. Where the source leaves a choice, or practice differs:

* *Sources that are no TCP addresses* (UNSPEC, datagrams, Unix sockets) are accepted, and not shown.
* *What stands behind the addresses in version 2* (TLVs, a checksum among them) is skipped. The
  length in the header says where it ends, so nothing in it can become a part of the conversation.
* *IPv6 addresses in version 1* may end in a dotted quad (RFC 4291, 2.2): inet_ntop(3) writes
  IPv4-mapped addresses like that, and so does HAProxy.
* *An LF without CR* ends no line; it is refused at once, even after UNKNOWN, instead of waiting for
  a CR LF.
"""

import contextlib
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

import trio

from .text import printable

Address: TypeAlias = tuple[str, int]
"""Host, which is an IP address without scope, and port."""

HeaderEncoder: TypeAlias = Callable[[object, object], bytes]
"""Makes a header of both ends' addresses, as `getsockname` and `getpeername` return them."""

_IPAddress: TypeAlias = IPv4Address | IPv6Address

_START_V1 = b"PROXY "
_MAX_V1 = 107  # bytes, CR LF included (section 2.1)
_IP_V1: dict[bytes, type[_IPAddress]] = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}

_START_V2 = b"\r\n\r\n\0\r\nQUIT\n"
# signature, version and command, family and transport, length of what follows
_FIXED_V2 = struct.Struct("!12sBBH")
# bytes in all; HAProxy itself takes no longer ones by default (tune.bufsize), and certificates fit
_MAX_V2 = 16384
_LOCAL, _PROXY = 0x20, 0x21
_TCP_V2 = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}
# of addresses and ports, for each family: unspecified, IPv4, IPv6, Unix
_LENGTHS_V2 = {0: 0, 1: 12, 2: 36, 3: 216}
_TRANSPORTS_V2 = {0, 1, 2}  # unspecified, stream, datagram

_SHOWN = 40  # bytes of what is no header


class ProxyError(Exception):
    """What came is no PROXY header; the message is safe in a log."""

    heard: bytes = b""
    """The first bytes that came, where no header begins like that."""


async def receive_header(
    stream: trio.SocketStream, header: bytearray | None = None
) -> Address | None:
    """Take the PROXY header off the stream, and nothing behind it; return the source address.

    None means that the connection's own peer counts: the proxy speaks for itself (LOCAL), or the
    source is unknown or has no TCP address. Raises `ProxyError` at the first byte that cannot begin
    a header, when a header is wrong, and when the stream ends too early; and
    `trio.BrokenResourceError`. A caller that gives an empty `header`, in which is kept what was
    read, can call again with it after a cancellation.
    """
    if header is None:
        header = bytearray()
    while True:
        try:
            seen = await stream.socket.recv(_MAX_V2, socket.MSG_PEEK)
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc
        if not seen:
            msg = f"it ended the stream within its PROXY header, after {_quoted(bytes(header))}"
            raise ProxyError(msg if header else "it ended the stream and sent no PROXY header")
        found = parse_header(bytes(header) + seen)
        size, source = found or (len(header) + len(seen), None)
        # What was seen is taken even if it is only a part of the header: the next look would not
        # wait for more.
        header.extend(await stream.receive_some(size - len(header)))
        if found:
            return source


def parse_header(data: bytes) -> tuple[int, Address | None] | None:
    """Return the size in bytes of the header that `data` begins with, and the source address.

    Return None, for both, while the header is not complete; then all of `data` belongs to it.
    Raises `ProxyError`.
    """
    if data.startswith(_START_V1[: len(data)]):
        return _parse_v1(data)
    if data.startswith(_START_V2[: len(data)]):
        return _parse_v2(data)
    wrong = ProxyError(f"it sent no PROXY header but {_quoted(data)}")
    wrong.heard = data[:64]
    raise wrong


def _parse_v1(data: bytes) -> tuple[int, Address | None] | None:
    size = data.find(b"\n", 0, _MAX_V1) + 1  # 0 where there is none
    if not size:
        if len(data) < _MAX_V1:
            return None
        raise ProxyError(f"its PROXY header has no CR LF within {_MAX_V1} bytes: {_quoted(data)}")
    line, end = data[: size - 2], data[size - 2 : size]
    if end != b"\r\n":
        raise ProxyError(
            f"its PROXY header must end in CR LF, not in LF alone: {_quoted(data[:size])}"
        )
    if line.startswith(b"PROXY UNKNOWN"):
        return size, None  # the rest of the line must be ignored
    try:
        _, protocol, source, destination, source_port, destination_port = line.split(b" ")
        ip = _IP_V1[protocol]
        _parse_ip(destination, ip)
        _parse_port(destination_port)
        return size, (_parse_ip(source, ip), _parse_port(source_port))
    except (KeyError, ValueError) as exc:
        right = "PROXY TCP4|TCP6 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT"
        msg = f'its PROXY header must be "{right}" or "PROXY UNKNOWN", not {_quoted(line, _MAX_V1)}'
        raise ProxyError(msg) from exc


def _parse_ip(text: bytes, ip: type[IPv4Address] | type[IPv6Address]) -> str:
    if b"%" in text:  # `ipaddress` allows a scope, the specification does not
        raise ValueError
    return _ntop(ip(text.decode("ascii")))


def _parse_port(text: bytes) -> int:
    """Return the port; `int` alone would take signs, spaces, underscores and leading zeros."""
    port = int(text)
    if b"%d" % port != text or port not in range(65536):
        raise ValueError
    return port


def _parse_v2(data: bytes) -> tuple[int, Address | None] | None:
    if len(data) < _FIXED_V2.size:
        return None
    _, command, protocol, length = _FIXED_V2.unpack_from(data)
    size = _FIXED_V2.size + length
    if command not in (_LOCAL, _PROXY):
        raise _must_have("version and command 0x20 (LOCAL) or 0x21 (PROXY)", f"{command:#04x}")
    if size > _MAX_V2:
        raise _must_have(f"at most {_MAX_V2} bytes", size)
    if command == _PROXY:
        family, transport = divmod(protocol, 16)
        if family not in _LENGTHS_V2 or transport not in _TRANSPORTS_V2:
            raise _must_have("family 0 to 3 and transport 0 to 2", f"{family} and {transport}")
        needed = _LENGTHS_V2[family]
        if length < needed:
            raise _must_have(f"{needed} bytes for addresses of family {family}", length)
    if len(data) < size:
        return None
    if command == _LOCAL or protocol not in _TCP_V2:
        return size, None
    source, _, port, _ = _TCP_V2[protocol].unpack_from(data, _FIXED_V2.size)
    return size, (_ntop(ip_address(source)), port)


def _must_have(what: str, instead: object) -> ProxyError:
    return ProxyError(f"its PROXY header must have {what}, not {instead}")


def encode_v1(source: object, destination: object) -> bytes:
    """Return the header of version 1 for a connection between these two addresses.

    They are as `getsockname` returns them; other than two of IPv4 or two of IPv6 become UNKNOWN.
    Scopes (`%eth0`) are dropped: they mean nothing elsewhere.
    """
    ends = _tcp_ends(source, destination)
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    ip, other_ip, port, other_port = ends
    return f"PROXY TCP{ip.version} {_ntop(ip)} {_ntop(other_ip)} {port} {other_port}\r\n".encode()


def encode_v2(source: object, destination: object) -> bytes:
    """Return the header of version 2 for a connection between these two addresses.

    It is LOCAL where version 1 is UNKNOWN.
    """
    ends = _tcp_ends(source, destination)
    if ends is None:
        return _FIXED_V2.pack(_START_V2, _LOCAL, 0, 0)
    ip, other_ip, port, other_port = ends
    protocol = 0x11 if ip.version == 4 else 0x21
    addresses = _TCP_V2[protocol].pack(ip.packed, other_ip.packed, port, other_port)
    return _FIXED_V2.pack(_START_V2, _PROXY, protocol, len(addresses)) + addresses


def _tcp_ends(
    source: object, destination: object
) -> tuple[_IPAddress, _IPAddress, int, int] | None:
    """Return both IP addresses and both ports, in the order of the headers.

    Return None unless both ends are TCP addresses of the same version.
    """
    match source, destination:
        case (str(host), int(port), *_), (str(other_host), int(other_port), *_):
            with contextlib.suppress(ValueError):
                ip, other_ip = ip_address(host), ip_address(other_host)
                if ip.version == other_ip.version:
                    return ip, other_ip, port, other_port
    return None


def _ntop(ip: _IPAddress) -> str:
    """Return an address as the kernel writes it; `str` differs between versions of Python."""
    return socket.inet_ntop(socket.AF_INET if ip.version == 4 else socket.AF_INET6, ip.packed)


def _quoted(data: bytes, most: int = _SHOWN) -> str:
    return f'"{printable(data[:most])}"' + ("..." if len(data) > most else "")
