"""Where a server listens, and where a client finds it: one notion for both."""

import os
import re
import socket
import sys
from typing import Any, TypeAlias

import attrs

from .optional import optional
from .text import format_address, shown

AF_UNIX: Any = getattr(socket, "AF_UNIX", None)
"""None where there are no Unix sockets."""

UNAVAILABLE: dict[str, str] = {}
"""Why this platform cannot listen on an endpoint, by its prefix (`unix`, `fd`)."""

if not optional("fcntl"):  # pragma: no cover - Windows
    UNAVAILABLE["fd"] = "listening on a passed descriptor is not available on this platform"
if not (optional("fcntl") and AF_UNIX):  # pragma: no cover - Windows
    UNAVAILABLE["unix"] = "Unix sockets are not available on this platform"

_UNIX = "unix:"
_LONGEST_PATH = 107 if sys.platform == "linux" else 103  # bytes; sockaddr_un has one more, a NUL


def _check_port(_: object, __: object, port: int) -> None:
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"port must be a whole number from 0 to 65535, not {port!r}")


def _check_path(_: object, __: object, path: str) -> None:
    size = len(os.fsencode(path))
    if not 1 <= size <= _LONGEST_PATH:
        right = f"1 to {_LONGEST_PATH} bytes"
        raise ValueError(f"the path of a Unix socket must have {right}, not {size}: {path!r}")


@attrs.frozen
class Tcp:
    """A TCP port of a host, at all the addresses that the host has. Raises `ValueError`."""

    host: str | None
    """A name, an IPv4 address, an IPv6 address without brackets, or None for every interface."""
    port: int = attrs.field(validator=_check_port)
    """0 to 65535; to listen, 0 is any free port, the same one at all addresses."""

    def __str__(self) -> str:
        return format_address(("*" if self.host is None else shown(self.host), self.port))


@attrs.frozen
class Unix:
    """A Unix socket with a path of 1 to 107 bytes (103 on other systems than Linux).

    Raises `ValueError`.
    """

    path: str = attrs.field(validator=_check_path)
    """On Linux `@NAME` is an abstract socket, which has no file (unix(7)); `./@NAME` has one."""

    @property
    def is_abstract(self) -> bool:
        """Whether it has a name and no file."""
        return self.path.startswith("@") and sys.platform == "linux"

    @property
    def address(self) -> str:
        """What a socket takes for its address."""
        return "\0" + self.path[1:] if self.is_abstract else self.path

    def __str__(self) -> str:
        return _UNIX + shown(self.path)


@attrs.frozen
class Fd:
    """A descriptor of a listening socket, passed to this process, which owns it from now on."""

    number: int

    def __str__(self) -> str:
        return f"fd:{self.number}"


Endpoint: TypeAlias = Tcp | Unix | Fd


def server_endpoint(host: str, port: int) -> Tcp | Unix:
    """Return where a client finds a server: `host` may be `unix:PATH`, which has no port.

    An IPv6 address may stand in brackets. Raises `ValueError`.
    """
    if host.startswith(_UNIX):
        return Unix(host.removeprefix(_UNIX))
    return Tcp(host[1:-1] if host.startswith("[") and host.endswith("]") else host, port)


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint that is written as HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N.

    Raises `ValueError`, with a message for the person who wrote it.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return parse_unix(text)
    if kind in UNAVAILABLE:
        raise ValueError(UNAVAILABLE[kind])
    if kind == "fd":
        if not re.fullmatch("[0-9]{1,9}", rest):
            raise ValueError(f"fd: must be followed by the number of a descriptor, not by {rest!r}")
        return Fd(int(rest))
    return _parse_tcp(text)


def parse_unix(text: str) -> Unix:
    """Return the endpoint that is written as unix:PATH. Raises `ValueError` in the same way."""
    if "unix" in UNAVAILABLE:
        raise ValueError(UNAVAILABLE["unix"])
    return Unix(text.removeprefix(_UNIX))


def _parse_tcp(text: str) -> Tcp:
    parts = re.fullmatch(r"(?:\[([^]]*)\]|([^][:]*)):([^][:]*)", text)
    if not parts:
        raise ValueError(
            f"an address must be HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, not {text!r}"
        )
    ipv6, host, port = parts.groups()
    if ipv6 is not None:
        check_ipv6(ipv6)
    elif host in ("", "*"):
        msg = (
            f"the host must not be {host!r}: for all addresses of this machine, "
            "write 0.0.0.0 (IPv4) or [::] (IPv6)"
        )
        raise ValueError(msg)
    return Tcp(ipv6 or host, parse_port(port, "the port"))


def split_host(text: str) -> tuple[str, str | None]:
    """Return the host and the port, if there is one, of HOST, HOST:PORT, [IPV6] or [IPV6]:PORT.

    An IPv6 address without brackets has no port; `unix:PATH` and `fd:N` remain as they are. Raises
    `ValueError` for brackets that are none.
    """
    if text.startswith((_UNIX, "fd:")):
        return text, None
    parts = re.fullmatch(r"\[([^]]*)\](?::([^:]*))?", text)
    if parts:
        check_ipv6(parts[1])
        return parts[1], parts[2]
    if "[" in text or "]" in text:
        raise ValueError(f"an IPv6 address with a port must be [IPV6]:PORT, not {text!r}")
    host, colon, port = text.partition(":")
    return (host, port) if colon and ":" not in port else (text, None)


def check_ipv6(text: str) -> None:
    """Raise `ValueError` if this is no IPv6 address, perhaps with a zone (RFC 4007, 11)."""
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError) as exc:  # the latter: there is a NUL in it
        raise ValueError(f"the text in brackets must be an IPv6 address, not {text!r}") from exc


def parse_port(text: str, name: str, lowest: int = 0) -> int:
    """Return the port that is written as a decimal number; `name` is what an error calls it.

    `lowest` is 0 for a port to listen on, which may be any that is free, and otherwise 1.
    """
    if re.fullmatch("[0-9]{1,5}", text) and lowest <= int(text) <= 65535:
        return int(text)
    raise ValueError(f"{name} must be a whole number from {lowest} to 65535, not {text!r}")
