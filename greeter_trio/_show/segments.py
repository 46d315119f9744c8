"""The segments that TCP really sends over the loopback interface (packet(7))."""

import socket
import struct
from typing import Any, Self

import attrs

_socket: Any = socket  # only Linux has AF_PACKET

_ETHERNET = 14  # bytes of its header, which frames of `lo` have, too
_IPV4, _IPV6 = 0x0800, 0x86DD  # what its last two say
_TCP = 6  # in both versions of IP
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")  # from the lowest bit (RFC 9293)
_READING_ORDER = ("SYN", "FIN", "RST", "PSH", "URG", "ECE", "CWR", "ACK")

_SO_TIMESTAMPNS = 35  # socket(7); its number in <asm-generic/socket.h>
_BUFFER = 4 * 2**20  # bytes


@attrs.frozen(kw_only=True)
class Segment:
    """One segment of TCP."""

    time_ns: int
    """When the kernel handled it, in nanoseconds since 1970."""
    source: tuple[str, int]
    destination: tuple[str, int]
    seq: int
    ack: int
    """Means something only where the flags have ACK."""
    flags: tuple[str, ...]
    """In the order in which people say them: SYN ACK, PSH ACK, FIN ACK."""
    window: int
    """As it stands in the header, not scaled."""
    payload: bytes
    frame: bytes
    """All of it, with the headers of Ethernet and IP."""


def parse_frame(frame: bytes, time_ns: int) -> Segment | None:
    """Return the segment in an Ethernet frame with IPv4 or IPv6; None if there is no whole one."""
    try:
        return _parse(frame, time_ns)
    except (IndexError, struct.error):
        return None


def _parse(frame: bytes, time_ns: int) -> Segment | None:
    (kind,) = struct.unpack_from("!H", frame, _ETHERNET - 2)
    packet = frame[_ETHERNET:]
    if kind == _IPV4:
        (total,) = struct.unpack_from("!H", packet, 2)
        (offset,) = struct.unpack_from("!H", packet, 6)
        header, protocol = (packet[0] & 15) * 4, packet[9]
        family, addresses = socket.AF_INET, (packet[12:16], packet[16:20])
        if offset & 0x3FFF:  # a fragment
            return None
    elif kind == _IPV6:
        (length,) = struct.unpack_from("!H", packet, 4)
        header, protocol, total = 40, packet[6], 40 + length
        family, addresses = socket.AF_INET6, (packet[8:24], packet[24:40])
    else:
        return None
    segment = packet[header:total]
    if protocol != _TCP or total > len(packet):
        return None
    ports = struct.unpack_from("!HH", segment)
    seq, ack, size, bits, window = struct.unpack_from("!IIBBH", segment, 4)
    size = (size >> 4) * 4
    if header < 20 or not 20 <= size <= len(segment):
        return None
    hosts = [socket.inet_ntop(family, address) for address in addresses]
    names = {name for bit, name in enumerate(_FLAGS) if bits >> bit & 1}
    return Segment(
        time_ns=time_ns,
        source=(hosts[0], ports[0]),
        destination=(hosts[1], ports[1]),
        seq=seq,
        ack=ack,
        flags=tuple(name for name in _READING_ORDER if name in names),
        window=window,
        payload=segment[size:],
        frame=frame[: _ETHERNET + total],
    )


class Capture:
    """All segments of the loopback interface, from the making of this object on.

    Raises OSError where that is not allowed (CAP_NET_RAW in capabilities(7)), or not possible.
    """

    def __init__(self) -> None:
        if not hasattr(socket, "AF_PACKET"):
            raise OSError("this platform has no AF_PACKET")
        all_protocols = socket.htons(3)  # ETH_P_ALL
        self._sock: Any = socket.socket(_socket.AF_PACKET, socket.SOCK_RAW, all_protocols)
        try:
            self._sock.bind(("lo", 0))
            self._sock.settimeout(0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there are segments."""
        return int(self._sock.fileno())

    def read(self) -> list[Segment]:
        """Return the segments that have been captured since the last call."""
        segments: list[Segment] = []
        while True:
            try:
                frame, ancillary, _, address = self._sock.recvmsg(70000, 64)
            except BlockingIOError:
                return segments
            if address[2] == _socket.PACKET_OUTGOING:  # each packet of `lo` comes twice
                continue
            times = [
                struct.unpack("@ll", data) for _, kind, data in ancillary if kind == _SO_TIMESTAMPNS
            ]
            time_ns = times[0][0] * 10**9 + times[0][1] if times else 0
            segment = parse_frame(frame, time_ns)
            if segment:
                segments.append(segment)
