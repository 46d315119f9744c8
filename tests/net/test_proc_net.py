"""The kernel's tables of connections."""

import io
import socket
import sys
from pathlib import Path

import pytest

from greeter_trio._net import proc_net
from greeter_trio._net.proc_net import handshakes, parse_table, tcp_state
from tests.support.processes import run

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 0100007F:1770 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 0100007F:1770 0100007F:A475 06 00000000:00000000 03:00001770 00000000
   2: 00000000000000000000000001000000:1770 00000000000000000000000001000000:0001 FF 0
"""
CONNECTING = """\
   3: 0100007F:1770 0100007F:0002 03 00000000:00000000 01:00000019 00000000
   4: 0200007F:1770 0100007F:0003 03 00000000:00000000 01:00000019 00000000
   5: 0100007F:1771 0100007F:0004 03 00000000:00000000 01:00000019 00000000
   6: 0100007F:1770 0100007F:0005 01 00000000:00000000 03 00000019 00000000
"""
little_endian = pytest.mark.skipif(
    sys.byteorder == "big", reason="the tables in this file are of another machine"
)


@little_endian
def test_table_of_the_kernel() -> None:
    assert list(parse_table(io.StringIO(TABLE))) == [
        ((("127.0.0.1", 6000), ("0.0.0.0", 0)), "LISTEN"),
        ((("127.0.0.1", 6000), ("127.0.0.1", 42101)), "TIME_WAIT"),
        ((("::1", 6000), ("::1", 1)), "FF"),
    ]


def test_state_of_a_connection_that_is_over() -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("the kernel has no such table")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = listener.getsockname()
        with socket.create_connection(server) as sock, listener.accept()[0] as other:
            client = sock.getsockname()
            sock.shutdown(socket.SHUT_WR)
            assert other.recv(10) == b""
    assert tcp_state(client, server) == "TIME_WAIT"
    assert tcp_state(server, client) is None


@little_endian
def test_handshakes_that_are_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one port; where the kernel has a table for one version of IP only, or none."""
    table, missing = tmp_path / "tcp", tmp_path / "tcp6"
    table.write_text(TABLE + CONNECTING)
    monkeypatch.setattr(proc_net, "_FILES", (str(missing), str(table)))
    assert handshakes(6000) == {("127.0.0.1", 2), ("127.0.0.1", 3)}
    assert handshakes(6001) == {("127.0.0.1", 4)}
    assert handshakes(42101) == set()
    table.unlink()
    assert handshakes(6000) == set()


OWN_STATE = """
import socket
from greeter_trio._net.proc_net import tcp_state
with socket.create_server(("127.0.0.1", 0)) as listener:
    with socket.create_connection(listener.getsockname()) as sock:
        print(tcp_state(sock.getsockname(), sock.getpeername()))
"""


def test_a_process_that_sees_processes_only() -> None:
    """As a service does that has `ProcSubset=pid` in its unit: there is no /proc/net."""
    hostile = pytest.importorskip("tests.support.hostile", reason="this needs Linux")
    mount = 'mount -t proc -o subset=pid proc /proc || exit 77; exec "$@"'
    command = (*hostile.in_namespace("-mpf"), "sh", "-c", mount, "sh", sys.executable)
    done = run("-c", OWN_STATE, command=command)
    if done.returncode == 77:
        pytest.skip("this process may not mount /proc")
    assert (done.stdout, done.stderr) == (b"ESTABLISHED\n", b"")
