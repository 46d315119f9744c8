"""Endpoints as they are written, and what is said about those that are written wrongly."""

import re
import sys
from typing import Any

import pytest

from greeter_trio._net import endpoints
from greeter_trio._net.endpoints import (
    Endpoint,
    Fd,
    Tcp,
    Unix,
    parse_endpoint,
    parse_port,
    server_endpoint,
    split_host,
)

LONGEST = 107 if sys.platform == "linux" else 103  # sockaddr_un in unix(7)
FORMS = "an address must be HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, not {!r}"
WILDCARD = (
    "the host must not be {!r}: for all addresses of this machine, "
    "write 0.0.0.0 (IPv4) or [::] (IPv6)"
)
BRACKETS = "the text in brackets must be an IPv6 address, not {!r}"
PATH = f"the path of a Unix socket must have 1 to {LONGEST} bytes, not {{}}: {{!r}}"
NUMBER = "fd: must be followed by the number of a descriptor, not by {!r}"


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:6000", Tcp("127.0.0.1", 6000)),
        ("0.0.0.0:0", Tcp("0.0.0.0", 0)),
        ("localhost:65535", Tcp("localhost", 65535)),
        ("[::1]:6000", Tcp("::1", 6000)),
        ("[::]:0", Tcp("::", 0)),
        ("[fe80::1%eth0]:6000", Tcp("fe80::1%eth0", 6000)),
        ("unix:/run/greeter.sock", Unix("/run/greeter.sock")),
        ("unix:greeter:1", Unix("greeter:1")),
        ("unix:" + LONGEST * "x", Unix(LONGEST * "x")),
        ("fd:3", Fd(3)),
        ("fd:0", Fd(0)),
    ],
)
def test_endpoints_are_parsed_and_shown_as_written(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text
    assert str(Tcp(None, 6000)) == "*:6000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, FORMS.format(text)) for text in ("", "6000", "localhost", "::1:6000", "[::1]")),
        *((text, FORMS.format(text)) for text in ("[::1:6000", "::1]:6000", "a[::1]:6000")),
        (":6000", WILDCARD.format("")),
        ("*:6000", WILDCARD.format("*")),
        ("[127.0.0.1]:6000", BRACKETS.format("127.0.0.1")),
        ("[localhost]:6000", BRACKETS.format("localhost")),
        ("[]:6000", BRACKETS.format("")),
        ("localhost:http", "the port must be a whole number from 0 to 65535, not 'http'"),
        ("[::1]:65536", "the port must be a whole number from 0 to 65535, not '65536'"),
        ("unix:", PATH.format(0, "")),
        ("unix:x" + LONGEST * "x", PATH.format(LONGEST + 1, "x" + LONGEST * "x")),
        ("unix:" + 54 * "é", PATH.format(108, 54 * "é")),
        *((f"fd:{rest}", NUMBER.format(rest)) for rest in ("", "-1", "stdin", "9999999999")),
    ],
)
def test_wrong_endpoints(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_endpoint(text)


@pytest.mark.parametrize("kind", ["unix", "fd"])
def test_endpoints_that_the_platform_lacks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(endpoints.UNAVAILABLE, kind, "not here")
    with pytest.raises(ValueError, match=r"^not here$"):
        parse_endpoint(f"{kind}:1")
    assert parse_endpoint("localhost:1") == Tcp("localhost", 1)


WRONG_PORTS = ["", "http", "65536", "-1", "+1", " 1", "1 ", "1_0", "\u0661", "000001", "9" * 11]


@pytest.mark.parametrize(("text", "lowest"), [*((text, 0) for text in WRONG_PORTS), ("0", 1)])
def test_wrong_ports(text: str, lowest: int) -> None:
    assert parse_port(str(lowest), "A", lowest) == lowest
    message = f"A must be a whole number from {lowest} to 65535, not {text!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_port(text, "A", lowest)


def test_a_client_writes_a_unix_socket_as_the_host() -> None:
    assert endpoints.server_endpoint("unix:/run/greeter.sock", 6000) == Unix("/run/greeter.sock")
    assert endpoints.server_endpoint("::1", 6000) == Tcp("::1", 6000)


@pytest.mark.parametrize("port", [-1, 65536, 1.5, "1", None])
def test_ports_that_are_none(port: Any) -> None:
    right = "a whole number from 0 to 65535"
    with pytest.raises(ValueError, match=f"^port must be {right}, not {port!r}$"):
        Tcp("127.0.0.1", port)


@pytest.mark.parametrize("path", ["", "x" * (LONGEST + 1), "é" * LONGEST])
def test_paths_that_no_unix_socket_can_have(path: str) -> None:
    with pytest.raises(ValueError, match=f"^{PATH.format(len(path.encode()), path)}$"):
        server_endpoint(f"unix:{path}", 0)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("greet.example", "greet.example", None),
        ("greet.example:7", "greet.example", "7"),
        ("127.0.0.1:", "127.0.0.1", ""),
        (":7", "", "7"),
        ("::1", "::1", None),
        ("2001:db8::1:7", "2001:db8::1:7", None),
        ("[::1]", "::1", None),
        ("[::1]:7", "::1", "7"),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", "7"),
        ("unix:a:7", "unix:a:7", None),
        ("fd:7", "fd:7", None),
    ],
)
def test_a_host_and_perhaps_a_port(text: str, host: str, port: str | None) -> None:
    assert split_host(text) == (host, port)


@pytest.mark.parametrize("text", ["[::1", "::1]", "[greet.example]", "[::1]7", "[]:7", "a[::1]:7"])
def test_brackets_that_are_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"IPv6|\[IPV6\]"):
        split_host(text)


def test_brackets_of_an_address_are_left_out() -> None:
    assert server_endpoint("[::1]", 7) == Tcp("::1", 7)


def test_endpoints_are_shown_in_one_line() -> None:
    assert str(Tcp("a\nb", 7)) == r"'a\nb':7"
    assert str(Unix("a b\n")) == r"unix:'a b\n'"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_abstract_sockets() -> None:
    assert Unix("@a").address == "\0a"
    assert Unix("@a").is_abstract
    assert Unix("./@a").address == "./@a"
    assert not Unix("./@a").is_abstract
