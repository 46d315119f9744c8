"""Segments as a file that Wireshark and tcpdump open (draft-ietf-opsawg-pcap)."""

import struct
from collections.abc import Iterable

from .segments import Segment

_NANOSECONDS = 0xA1B23C4D  # the magic number of files whose times have them
_ETHERNET = 1  # LINKTYPE_ETHERNET
_SNAPLEN = 262144  # no frame is longer


def pcap(segments: Iterable[Segment]) -> bytes:
    """Return the content of the file."""
    header = struct.pack("<IHHiIII", _NANOSECONDS, 2, 4, 0, 0, _SNAPLEN, _ETHERNET)
    return header + b"".join(map(_record, segments))


def _record(segment: Segment) -> bytes:
    seconds, nanoseconds = divmod(segment.time_ns, 10**9)
    size = len(segment.frame)
    return struct.pack("<IIII", seconds, nanoseconds, size, size) + segment.frame
