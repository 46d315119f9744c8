"""Segments are captured and understood, and written for Wireshark."""

import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_trio._show.pcap import pcap
from greeter_trio._show.segments import Capture, Segment, parse_frame
from tests.support.documents import ROOT
from tests.support.laws import law

TCP = struct.pack("!HHIIBBHHH", 42101, 6000, 2**32 - 1, 7, 5 << 4, 0x18, 512, 0, 0)
SYN = struct.pack("!HHIIBBHHH", 42101, 6000, 1, 0, 6 << 4, 0x02, 512, 0, 0) + b"\x02\x04\xff\xd7"


def ethernet(kind: int, packet: bytes) -> bytes:
    return bytes(12) + struct.pack("!H", kind) + packet


def ipv4(segment: bytes, *, protocol: int = 6, options: bytes = b"", fragment: int = 0) -> bytes:
    header = 20 + len(options)
    fields = (0x40 | header // 4, 0, header + len(segment), 0, fragment, 64, protocol, 0)
    addresses = bytes([127, 0, 0, 1, 127, 0, 0, 2])
    return ethernet(0x0800, struct.pack("!BBHHHBBH", *fields) + addresses + options + segment)


def ipv6(segment: bytes, next_header: int = 6) -> bytes:
    fields = struct.pack("!IHBB", 6 << 28, len(segment), next_header, 64)
    return ethernet(0x86DD, fields + bytes(15) + b"\1" + bytes(15) + b"\1" + segment)


def test_segment_with_data() -> None:
    frame = ipv4(TCP + b"Ada\n")
    assert parse_frame(frame + b"padding", 5) == Segment(
        time_ns=5,
        source=("127.0.0.1", 42101),
        destination=("127.0.0.2", 6000),
        seq=2**32 - 1,
        ack=7,
        flags=("PSH", "ACK"),
        window=512,
        payload=b"Ada\n",
        frame=frame,
    )


def test_segment_with_options_over_both_versions_of_ip() -> None:
    for frame in (ipv4(SYN), ipv4(SYN, options=bytes(4)), ipv6(SYN)):
        segment = parse_frame(frame, 0)
        assert segment
        assert (segment.flags, segment.payload) == (("SYN",), b"")
    assert segment
    assert segment.source == ("::1", 42101)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(14),
        ethernet(0x0806, bytes(28)),
        ipv4(TCP, protocol=17),
        ipv6(TCP, next_header=17),
        ipv4(TCP, fragment=0x2000),
        ipv4(TCP)[:-1],
        ipv4(TCP[:12] + b"\x40" + TCP[13:]),
        ipv4(TCP[:12] + b"\xf0" + TCP[13:]),
    ],
    ids=["nothing", "zeros", "ARP", "UDP", "UDP 6", "fragment", "cut", "short", "long"],
)
def test_what_is_no_whole_segment(frame: bytes) -> None:
    assert parse_frame(frame, 0) is None


@given(st.binary(max_size=80), st.sampled_from([0x0800, 0x86DD]))
@law(300)
def test_any_bytes_are_parsed_without_an_error(data: bytes, kind: int) -> None:
    parse_frame(ethernet(kind, data), 0)
    parse_frame(data, 0)


@pytest.fixture
def capture() -> Iterator[Capture]:
    try:
        capturing = Capture()
    except OSError as exc:
        pytest.skip(f"segments cannot be captured here: {exc}")
    with capturing:
        yield capturing


def converse() -> tuple[int, int]:
    """Have a conversation over loopback; return the ports of client and server."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        server, _ = listener.accept()
        with server:
            ports = client.getsockname()[1], server.getsockname()[1]
            client.sendall(b"Ada\n")
            assert server.recv(10) == b"Ada\n"
            client.shutdown(socket.SHUT_WR)
            assert server.recv(10) == b""
        assert client.recv(10) == b""
    return ports


def test_capture_of_a_conversation(capture: Capture, tmp_path: Path) -> None:
    client, server = converse()
    segments = [
        segment
        for segment in capture.read()
        if {segment.source[1], segment.destination[1]} == {client, server}
    ]
    flags = [segment.flags for segment in segments]
    assert flags[:3] == [("SYN",), ("SYN", "ACK"), ("ACK",)]
    assert sum("FIN" in each for each in flags) == 2
    assert [segment.payload for segment in segments if segment.payload] == [b"Ada\n"]
    times = [segment.time_ns for segment in segments]
    assert times == sorted(times)
    assert times[0] > 0
    assert capture.read() == []
    assert capture.fileno() >= 0

    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("there is no tcpdump")
    file = tmp_path / "segments.pcap"
    file.write_bytes(pcap(segments))
    run = subprocess.run([tcpdump, "-nr", str(file)], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == len(segments)
    assert f"127.0.0.1.{client} > 127.0.0.1.{server}: Flags [S], seq {segments[0].seq}" in lines[0]


def test_other_packets_are_left_out(capture: Capture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.sendto(b"Ada", udp.getsockname())
        assert udp.recv(10) == b"Ada"
        ports = {udp.getsockname()[1]}
    assert [each for each in capture.read() if {each.source[1]} & ports] == []


def test_capture_that_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def __init__(self, *_: object) -> None:
            super().__init__()

        def bind(self, _: object) -> None:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "AF_PACKET", 17, raising=False)
    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(PermissionError):
        Capture()
    monkeypatch.delattr(socket, "AF_PACKET")
    with pytest.raises(OSError, match="this platform has no AF_PACKET"):
        Capture()


def test_pcap_of_nothing_is_a_header() -> None:
    assert pcap([]) == bytes.fromhex("4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000")


PROGRAM = """
import ctypes, encodings.idna, os, socket
from greeter_trio._show.namespace import enter_network_namespace
from greeter_trio._show.segments import Capture
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: its files in /proc are its own again
try:
    enter_network_namespace()
except OSError as exc:
    raise SystemExit(f"namespaces are not allowed here: {exc}")
with Capture() as capture, socket.create_server(("127.0.0.1", 6000)) as listener:
    with socket.create_connection(("127.0.0.1", 6000)):
        print([segment.flags for segment in capture.read()][:3])
"""


@pytest.mark.skipif(not hasattr(socket, "AF_PACKET"), reason="this platform has no namespaces")
def test_namespace_in_which_anybody_may_capture() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if run.stderr.startswith("namespaces are not allowed"):
        pytest.skip(run.stderr)
    assert run.stdout == "[('SYN',), ('SYN', 'ACK'), ('ACK',)]\n", run.stderr
